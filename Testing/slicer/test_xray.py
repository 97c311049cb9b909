"""X-rays as a user takes them: buttons for views, pictures at their detectors with the beam, a preview that follows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from Testing.slicer.test_panel import editors, press


@pytest.fixture
def widget(app: Any, module: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module with this very Python as worker."""
    monkeypatch.setattr(app.slicer.packaging, "pip_check", lambda requirement: True)
    opened = app.open_widget(module)
    yield opened
    opened.cleanup()


@pytest.fixture
def chest(app: Any, small_ct: Any) -> Any:
    return app.slicer.util.addVolumeFromArray(small_ct.voxels, small_ct.ijk_to_ras, "chest")


def shift(app: Any, node: Any, millimeters: tuple[float, float, float]) -> Any:
    """A transform that moves a node."""
    transform = app.slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    matrix = np.eye(4)
    matrix[:3, 3] = millimeters
    transform.SetMatrixTransformToParent(app.slicer.util.vtkMatrixFromArray(matrix))
    node.SetAndObserveTransformNodeID(transform.GetID())
    return transform


@pytest.mark.slow
def test_pictures_stand_at_their_detectors(app: Any, widget: Any, chest: Any) -> None:
    """Also of a scan under a transform; the views come back when the result is discarded."""
    from MedDiffFMGui.views.cameras import cameraNode

    slicer = app.slicer
    shift(app, chest, (10, -20, 30))
    camera = cameraNode() or slicer.mrmlScene.AddNewNodeByClass("vtkMRMLCameraNode")
    camera.SetPosition(0, 5000, 0)
    camera.SetFocalPoint(0, 4000, 0)
    bounds = [0.0] * 6
    chest.GetRASBounds(bounds)
    red = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeRed")
    composite = slicer.app.applicationLogic().GetSliceLogic(red).GetSliceCompositeNode()
    before = slicer.util.arrayFromVTKMatrix(red.GetSliceToRAS()), red.GetFieldOfView(), red.GetSliceVisible()
    run = widget.logic.run("radiograph", chest, parameters={"views": "ap,lat", "pixels": 64})
    widget.resultPanel.show(run)
    view = widget.xrayView
    first, second = run.volumes.values()
    assert composite.GetBackgroundVolumeID() == first.GetID() and red.GetSliceVisible()
    assert [button.text for button in view._buttons.values()] == ["AP", "LAT"]
    assert (first.GetName(), second.GetName()) == ("chest X-ray", "chest X-ray lat")
    beams = [run.others[f"{name}_frustum"] for name in run.volumes]
    assert [beam.GetDisplayNode().GetVisibility() for beam in beams] == [1, 0]
    assert bounds[2] < camera.GetFocalPoint()[1] < bounds[3], "a 3D view that showed nothing is turned to the beam"

    view.next()
    facts = run.facts["views"]["radiograph_lat"]
    assert composite.GetBackgroundVolumeID() == second.GetID() and "source 1800 mm away" in view.ui.xrayFactsLabel.text
    assert [beam.GetDisplayNode().GetVisibility() for beam in beams] == [0, 1]
    points = beams[1].GetPolyData()
    corners = np.array([points.GetPoint(n) for n in range(4)])
    assert corners == pytest.approx(np.array(facts["detector_corners_ras_mm"]), abs=1e-3)
    assert points.GetPoint(4) == pytest.approx(facts["source_ras_mm"], abs=1e-3)
    assert points.GetNumberOfLines() == 8 and beams[1].GetTransformNodeID() == chest.GetTransformNodeID()
    plane = slicer.util.arrayFromVTKMatrix(red.GetSliceToRAS())
    world = corners + (10, -20, 30)
    assert (world - plane[:3, 3]) @ plane[:3, 2] == pytest.approx(np.zeros(4), abs=0.1), "the slice is the detector"
    low, high = first.GetDisplayNode().GetWindowLevelMin(), first.GetDisplayNode().GetWindowLevelMax()
    assert [low, high] == pytest.approx(run.facts["windows"]["radiograph"], abs=1e-3)

    view.ui.xrayBeamCheckBox.click()
    assert not beams[1].GetDisplayNode().GetVisibility()
    view.ui.xrayDiscardButton.click()
    assert not any(slicer.mrmlScene.IsNodePresent(node) for node in [first, second, *beams])
    after = slicer.util.arrayFromVTKMatrix(red.GetSliceToRAS()), red.GetFieldOfView(), red.GetSliceVisible()
    assert np.array_equal(before[0], after[0]) and before[1:] == after[1:]
    assert camera.GetFocalPoint() == (0, 4000, 0)


def test_views_are_buttons(app: Any, widget: Any, chest: Any) -> None:
    press(app, widget, "radiograph")
    editor = editors(widget)["views"]
    assert editor.value() == "ap" and editor.buttons["ap"].checked
    editor.buttons["lat"].click()
    editor.line.text = "lao30, cran20"
    assert editor.value() == "ap,lat,lao30,cran20"
    editor.buttons["ap"].click()
    assert widget.taskPanel.choices().settings.parameters["views"] == "lat,lao30,cran20"
    editor.setValue("lat,ap,rao10")
    assert editor.value() == "lat,ap,rao10" and editor.line.text == "rao10"


def test_a_preview_follows_the_3d_view(app: Any, widget: Any, chest: Any) -> None:
    """And the scan's transform; the parameter follows once the view rests."""
    from MedDiffFMGui.views.cameras import cameraNode

    # A 3D view that an earlier test opened has a camera already.
    camera = cameraNode() or app.slicer.mrmlScene.AddNewNodeByClass("vtkMRMLCameraNode")
    center = chest_center(chest)
    camera.SetFocalPoint(*center)
    camera.SetPosition(center[0], center[1] + 900, center[2])
    camera.SetViewUp(0, 0, 1)
    widget._parameterNode.inputVolume = chest
    press(app, widget, "radiograph")
    editor = editors(widget)["camera"]
    assert not editor.picture.visible
    editor.button.click()
    assert editor.value()[1] == pytest.approx(center[1] + 900, abs=1e-2)
    app.wait(lambda: editor.picture.visible)
    pictures = [content(editor)]
    camera.SetPosition(center[0] - 900, center[1], center[2])
    app.wait(lambda: not np.array_equal(content(editor), pictures[-1]))
    app.wait(lambda: editor.value()[0] == pytest.approx(center[0] - 900, abs=1e-2))
    pictures.append(content(editor))
    shift(app, chest, (0, 50, 0))
    app.wait(lambda: editor.value()[1] == pytest.approx(center[1] - 50, abs=1e-2))
    assert widget.taskPanel.choices().settings.parameters["camera"] == editor.value()
    editor.button.click()
    assert editor.value() is None and not editor.picture.visible
    camera.SetPosition(center[0], center[1] - 900, center[2])
    app.qt.processEvents()
    assert editor.value() is None


@pytest.mark.slow
def test_the_preview_is_the_x_ray_in_small(app: Any, module: Any, chest: Any, small_ct: Any) -> None:
    """Line integrals of water, against the exact ones; parallel and from a source, and fast enough to be dragged."""
    import torch
    from MedDiffFMGui.views.xrayPreview import PIXELS, XrayPreview

    from MedDiffFMLib.multimodal.attenuation import attenuation
    from MedDiffFMLib.multimodal.names import parse_views
    from MedDiffFMLib.multimodal.radiograph import Patient
    from MedDiffFMLib.multimodal.views import Setup, from_angles

    preview, patient = XrayPreview(chest), Patient(small_ct)
    for angles in parse_views("ap,lat,lao30-cran20"):
        for distance in (1000.0, None):
            pixels, beam = preview.picture(from_angles(angles), Setup(distance))
            exact = attenuation(patient.areal_densities(beam), {70.0: 1.0}).numpy()
            assert max(pixels.shape) == PIXELS
            assert np.corrcoef(pixels.ravel(), exact.ravel())[0, 1] > 0.995
            assert pixels.mean() == pytest.approx(exact.mean(), rel=0.03)
    view = from_angles(parse_views("lat")[0])
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        preview.picture(view, Setup())
        seconds.append(time.perf_counter() - begin)
    assert min(seconds) < 0.2, torch.__config__.parallel_info()


def content(editor: Any) -> np.ndarray:
    image = editor.picture.pixmap.toImage()
    return np.array(
        [[image.pixel(x, y) & 255 for x in range(0, image.width(), 4)] for y in range(0, image.height(), 4)]
    )


def chest_center(node: Any) -> list[float]:
    bounds = [0.0] * 6
    node.GetRASBounds(bounds)
    return [(bounds[2 * axis] + bounds[2 * axis + 1]) / 2 for axis in range(3)]


def test_windows_know_the_modality(app: Any, widget: Any, chest: Any) -> None:
    """Hounsfield units for a CT, shares of its bright tissue for an MR; an X-ray keeps its own."""
    slicer = app.slicer
    signal = np.full((6, 20, 20), 5.0, np.float32)
    signal[:, 4:16, 4:16] = 350
    signal[:, 4:10, 4:16] = 1000
    mr = slicer.util.addVolumeFromArray(signal, np.eye(4), "mr")
    slicer.util.setSliceViewerLayers(background=chest, foreground=mr)
    widget.ui.softWindowButton.click()
    assert (chest.GetDisplayNode().GetWindow(), chest.GetDisplayNode().GetLevel()) == (400, 40)
    assert (mr.GetDisplayNode().GetWindow(), mr.GetDisplayNode().GetLevel()) == pytest.approx((800, 400))
    xray = slicer.util.addVolumeFromArray(signal[:1], np.eye(4), "x-ray")
    xray.SetAttribute("MedDiffFM.Task", "radiograph")
    xray.SetAttribute("MedDiffFM.Output", "radiograph_lat")
    xray.GetDisplayNode().SetAutoWindowLevel(False)
    xray.GetDisplayNode().SetWindowLevel(2.5, 1.5)
    slicer.util.setSliceViewerLayers(background=xray, foreground=None)
    widget.ui.boneWindowButton.click()
    assert (xray.GetDisplayNode().GetWindow(), xray.GetDisplayNode().GetLevel()) == (2.5, 1.5)
