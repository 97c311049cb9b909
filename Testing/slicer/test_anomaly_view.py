"""The Result section of anomaly maps, used as a user would: layers, threshold, findings, export, scenes."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from Testing.harness import pictures, pythonqt, scenes
from Testing.harness.geometries import GEOMETRIES, orthogonal

ROOT = Path(__file__).resolve().parents[2]
UI_FILE = ROOT / "MedDiffFM" / "Resources" / "UI" / "Anomaly.ui"
BLOBS = {(8, 8, 9): 9.0, (20, 15, 22): 6.0, (12, 25, 14): 4.0}
"""Center (k, j, i) -> peak z."""
RADIUS = 3.0


@pytest.fixture
def case(app: Any, module: Any, request: pytest.FixtureRequest) -> SimpleNamespace:
    """A CT with three bright blobs where the map is high, and the nodes of a finished run."""
    from MedDiffFMGui.nodes.finishedRun import FinishedRun
    from MedDiffFMGui.nodes.volumeNodes import addResultNode

    rows = orthogonal(GEOMETRIES[getattr(request, "param", "oblique")])
    k, j, i = np.mgrid[:28, :32, :30]
    score = np.full(k.shape, 0.8, dtype=np.float32)
    for (ck, cj, ci), peak in BLOBS.items():
        distance = np.sqrt((k - ck) ** 2 + (j - cj) ** 2 + (i - ci) ** 2)
        score = np.maximum(score, peak * np.exp(-((distance / RADIUS) ** 2)).astype(np.float32))
    voxels = np.where(score > 3.0, 300, 0).astype(np.int16)
    ct = app.slicer.util.addVolumeFromArray(voxels, rows, "thorax")
    ct.GetDisplayNode().SetAutoWindowLevel(False)
    ct.GetDisplayNode().SetWindowLevel(400, 200)
    arrays = {
        "anomaly": score,
        "healthy": np.zeros(k.shape, np.int16),
        "uncertainty": np.full(k.shape, 50, np.float32),
    }
    volumes = {name: addResultNode(a, ct, f"thorax {name}", name == "healthy") for name, a in arrays.items()}
    report = app.slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode", "report")
    settings = {"settings": {"parameters": {"threshold": 3.0, "minimum_volume": 0.0}}}
    run = FinishedRun("anomaly", ct, volumes, settings, report)
    return SimpleNamespace(ct=ct, score=score, rows=rows, run=run)


@pytest.fixture
def opened(app: Any, widget: Any, case: SimpleNamespace) -> Iterator[Any]:
    """The module's widget with the finished run in its Result section; gives the anomaly view."""
    app.slicer.util.setSliceViewerLayers(background=case.ct, foreground=None)
    widget.resultPanel.show(case.run)
    app.wait(lambda: "above" in widget.anomalyView.ui.findingsLabel.text)
    yield widget.anomalyView
    widget.resultPanel.clear()


def composites(app: Any) -> list[Any]:
    return app.slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")


def node_names(app: Any, kind: str = "vtkMRMLVolumeNode") -> set[str]:
    return {node.GetName() for node in app.slicer.util.getNodesByClass(kind)}


def rest(app: Any, view: Any, threshold: float) -> None:
    """Move the slider and wait until the findings have followed."""
    view.ui.anomalyThresholdSlider.value = threshold
    app.wait(lambda: f"z {threshold:.1f}" in view.ui.findingsLabel.text)


# ------------------------------------------------------------------------------------------------------------ the panel


def test_ui_file_names_only_what_slicer_has(app: Any) -> None:
    assert app.widgets.ui_problems(UI_FILE) == []


def test_all_connections_exist_in_slicer(opened: Any) -> None:
    assert pythonqt.refused_connections == []


def test_section_shows_the_map_and_hides_the_other_view(widget: Any, opened: Any) -> None:
    assert widget.ui.resultCollapsibleButton.visible and widget.ui.anomalyResultWidget.visible
    assert not widget.ui.compareResultWidget.visible
    assert opened.ui.anomalyTitleLabel.text == "thorax anomaly"


# -------------------------------------------------------------------------------------------------------------- layers


def test_heat_map_lies_over_the_ct_in_every_view(app: Any, opened: Any, case: SimpleNamespace) -> None:
    heat = case.run.volumes["anomaly"]
    assert len(composites(app)) >= 3
    for node in composites(app):
        assert node.GetBackgroundVolumeID() == case.ct.GetID() and node.GetForegroundVolumeID() == heat.GetID()
        assert node.GetForegroundOpacity() == 0.7
    display = heat.GetDisplayNode()
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == (0, 10)
    assert display.GetColorNodeID() == "vtkMRMLColorTableNodeFileInferno.txt"
    assert display.GetApplyThreshold() and display.GetLowerThreshold() == 3.0
    assert case.ct.GetDisplayNode().GetWindow() == 400


def test_layers_and_legends(app: Any, opened: Any, case: SimpleNamespace) -> None:
    logic = app.slicer.modules.colors.logic()
    heat = case.run.volumes["anomaly"]
    assert logic.GetColorLegendDisplayNode(heat).GetVisibility()
    opened.ui.differenceRadioButton.click()
    difference = app.slicer.mrmlScene.GetNodeByID(composites(app)[0].GetForegroundVolumeID())
    assert np.array_equal(
        app.slicer.util.arrayFromVolume(difference), app.slicer.util.arrayFromVolume(case.ct).astype(np.float32)
    )
    assert difference.GetDisplayNode().GetWindowLevelMin() == -500
    assert not logic.GetColorLegendDisplayNode(heat).GetVisibility()
    assert logic.GetColorLegendDisplayNode(difference).GetVisibility()
    opened.ui.legendCheckBox.click()
    assert not logic.GetColorLegendDisplayNode(difference).GetVisibility()
    for name in ("healthy", "uncertainty"):
        getattr(opened.ui, f"{name}RadioButton").click()
        assert composites(app)[0].GetForegroundVolumeID() == case.run.volumes[name].GetID()


def test_opacity_acts_at_once_and_belongs_to_the_layer(app: Any, opened: Any) -> None:
    opened.ui.anomalyOpacitySlider.value = 0.4
    assert {node.GetForegroundOpacity() for node in composites(app)} == {0.4}
    opened.ui.healthyRadioButton.click()
    assert opened.ui.anomalyOpacitySlider.value == 1.0
    opened.ui.heatRadioButton.click()
    assert opened.ui.anomalyOpacitySlider.value == 0.4 == composites(app)[0].GetForegroundOpacity()


@pytest.mark.slow
def test_blink_shows_the_ct_alone_and_the_layer_again(app: Any, opened: Any) -> None:
    opened.ui.anomalyOpacitySlider.value = 0.5
    opened.blink()
    assert {node.GetForegroundOpacity() for node in composites(app)} == {0.0}
    opened.blink()
    assert {node.GetForegroundOpacity() for node in composites(app)} == {0.5}


def test_side_by_side_shows_the_layer_on_one_side_only(app: Any, opened: Any, case: SimpleNamespace) -> None:
    manager = app.slicer.app.layoutManager()
    before = manager.layout
    opened.ui.anomalySideBySideButton.click()
    left, right = (manager.sliceWidget(f"MedDiffFM{side}").mrmlSliceCompositeNode() for side in ("Before", "After"))
    assert left.GetBackgroundVolumeID() == right.GetBackgroundVolumeID() == case.ct.GetID()
    assert not left.GetForegroundVolumeID()
    assert right.GetForegroundVolumeID() == case.run.volumes["anomaly"].GetID()
    opened.ui.anomalySideBySideButton.click()
    assert manager.layout == before


# ------------------------------------------------------------------------------------------------------------ findings


def test_findings_are_those_of_the_library(app: Any, opened: Any, case: SimpleNamespace) -> None:
    from MedDiffFMGui.nodes.volumeNodes import volumeFromNode

    from MedDiffFMLib.tasks.anomaly.findings import list_findings

    expected = list_findings(case.score, volumeFromNode(case.ct), 3.0, 0.0)
    assert [row["peak_z"] for row in expected] == [9.0, 6.0, 4.0]
    assert opened.nodes.rows() == expected
    model = opened.ui.findingsTableView._target.model()
    assert [model.headerData(c, pythonqt.QtCore.Qt.Orientation.Horizontal) for c in range(5)] == [
        "#",
        "slice",
        "where",
        "ml",
        "peak z",
    ]
    assert [model.item(row, 4).text() for row in range(model.rowCount())] == ["9", "6", "4"]


@pytest.mark.slow
def test_threshold_acts_at_once_and_the_findings_follow(app: Any, opened: Any, case: SimpleNamespace) -> None:
    opened.ui.anomalyThresholdSlider.value = 5.0
    assert case.run.volumes["anomaly"].GetDisplayNode().GetLowerThreshold() == 5.0
    app.wait(lambda: opened.ui.findingsLabel.text.startswith("2 findings"))
    assert opened.nodes.node("regions").GetSegmentation().GetNumberOfSegments() == 2
    rest(app, opened, 7.0)
    assert opened.ui.findingsLabel.text == "1 finding above z 7.0."
    rest(app, opened, 12.0)
    assert opened.ui.findingsLabel.text.startswith("No finding")
    assert opened.nodes.node("regions").GetSegmentation().GetNumberOfSegments() == 0
    rest(app, opened, 2.0)
    assert opened.ui.findingsLabel.text.startswith("3 findings")


def test_findings_follow_though_the_module_was_left_meanwhile(app: Any, widget: Any, opened: Any) -> None:
    opened.ui.anomalyThresholdSlider.value = 4.5
    widget.exit()
    widget.enter()
    app.wait(lambda: "z 4.5" in opened.ui.findingsLabel.text)


def test_a_click_sends_every_view_to_the_finding(app: Any, opened: Any, case: SimpleNamespace) -> None:
    for row in (1, 0, 2):
        opened.ui.findingsTableView.selectRow(row)
        finding = opened.nodes.rows()[row]
        place = np.array([finding["r_mm"], finding["a_mm"], finding["s_mm"], 1.0])
        for name in ("Red", "Green", "Yellow"):
            to_ras = app.slicer.util.arrayFromVTKMatrix(
                app.slicer.app.layoutManager().sliceWidget(name).mrmlSliceNode().GetSliceToRAS()
            )
            assert abs((np.linalg.inv(to_ras) @ place)[2]) < 1e-3
        segments = opened.nodes.node("regions").GetSegmentation()
        white = [segments.GetNthSegment(n).GetColor() == (1.0, 1.0, 1.0) for n in range(3)]
        assert white == [n == row for n in range(3)]


def test_next_and_previous_go_round(app: Any, opened: Any) -> None:
    rows = []
    for step in (opened.next, opened.next, opened.next, opened.next, opened.previous, opened.previous):
        step()
        rows.append(opened.ui.findingsTableView.currentIndex().row())
    assert rows == [0, 1, 2, 0, 2, 1]


def test_a_transform_of_the_ct_moves_the_jump(app: Any, opened: Any, case: SimpleNamespace) -> None:
    import vtk

    transform = app.slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(0, 3, 25.0)
    transform.SetMatrixTransformToParent(matrix)
    before = opened.nodes.location(0)
    case.ct.SetAndObserveTransformNodeID(transform.GetID())
    assert np.allclose(np.subtract(opened.nodes.location(0), before), [25, 0, 0])
    app.wait(lambda: len(bodies(app)) == 2)
    on_the_ct = [*(opened.nodes.node(role) for role in ("anomaly", "healthy", "regions", "numbers")), *bodies(app)]
    assert {node.GetTransformNodeID() for node in on_the_ct} == {transform.GetID()}
    case.ct.SetAndObserveTransformNodeID(None)
    assert {node.GetTransformNodeID() for node in on_the_ct} == {None}


@pytest.mark.slow
def test_findings_name_the_organ_of_the_run_s_anatomy(app: Any, widget: Any, case: SimpleNamespace) -> None:
    """Also after the threshold moved; Discard leaves the user's segmentation alone."""
    from MedDiffFMGui.runs.runRequest import runChoices

    segmentation = app.slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "organs")
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(case.ct)
    segment = segmentation.GetSegmentation().AddEmptySegment("x", "lung_upper_lobe_right")
    labels = np.zeros(case.score.shape, np.uint8)
    labels[:14] = 1  # holds the first finding and part of the third
    app.slicer.util.updateSegmentBinaryLabelmapFromArray(labels, segmentation, segment, case.ct)
    case.run.choices = runChoices("anomaly", anatomy=segmentation)
    widget.resultPanel.show(case.run)
    app.wait(widget.anomalyView.nodes.rows)
    rows = widget.anomalyView.nodes.rows()
    assert [row["where"].startswith("right lung upper lobe, ") for row in rows] == [True, False, True]
    rest(app, widget.anomalyView, 5.0)
    assert [row["where"].startswith("right lung") for row in widget.anomalyView.nodes.rows()] == [True, False]
    widget.anomalyView.discard()
    assert app.slicer.mrmlScene.IsNodePresent(segmentation)


def test_table_as_csv(opened: Any, tmp_path: Path) -> None:
    path = tmp_path / "sub folder" / "findings.csv"
    opened.findings.export(str(path))
    with open(path, newline="") as stream:
        rows = list(csv.DictReader(stream))
    expected = opened.nodes.findings()
    for words in ("where", "place", "state", "comment", "reason"):
        assert [row.pop(words) for row in rows] == [row.pop(words) for row in expected]
    assert [{name: float(text) for name, text in row.items()} for row in rows] == expected
    opened.findings.export(str(path))  # the file dialog has asked before
    assert [file.name for file in path.parent.iterdir()] == ["findings.csv"]


def test_a_table_that_cannot_be_written_is_said_and_leaves_nothing(opened: Any, tmp_path: Path) -> None:
    from MedDiffFMLib.core.errors import OutputError

    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="not a folder"):
        opened.findings.export(str(tmp_path / "file" / "findings.csv"))


# ----------------------------------------------------------------------------------------------------- way back, scenes


def test_discard_gives_everything_back(app: Any, widget: Any, case: SimpleNamespace) -> None:
    other = app.slicer.util.addVolumeFromArray(np.zeros((4, 4, 4), np.int16), name="other")
    app.slicer.util.setSliceViewerLayers(background=other, foreground=case.ct, foregroundOpacity=0.25)
    kept = {"thorax", "other"}
    widget.resultPanel.show(case.run)
    view = widget.anomalyView
    view.ui.differenceRadioButton.click()
    view.ui.findingsTableView.selectRow(1)
    view.ui.anomalyDiscardButton.click()
    assert node_names(app) == kept
    for kind in ("vtkMRMLTableNode", "vtkMRMLSegmentationNode", "vtkMRMLTextNode"):
        assert node_names(app, kind) == set(), kind
    assert bodies(app) == []
    for node in composites(app):
        assert (node.GetBackgroundVolumeID(), node.GetForegroundVolumeID()) == (other.GetID(), case.ct.GetID())
        assert node.GetForegroundOpacity() == 0.25
    assert not widget.ui.resultCollapsibleButton.visible


def test_body_comes_and_goes_and_is_nobody_s_node(app: Any, widget: Any, case: SimpleNamespace, tmp_path: Path) -> None:
    """Hidden and shown by the check box; neither listed nor saved; not left behind when the CT goes."""
    widget.resultPanel.show(case.run)
    app.wait(lambda: len(bodies(app)) == 2)
    assert {node.GetDisplayNode().GetVisibility() for node in bodies(app)} == {1}
    widget.anomalyView.ui.renderingCheckBox.click()
    assert {node.GetDisplayNode().GetVisibility() for node in bodies(app)} == {0}
    widget.anomalyView.ui.renderingCheckBox.click()
    assert {node.GetDisplayNode().GetVisibility() for node in bodies(app)} == {1}
    assert all(node.GetHideFromEditors() and not node.GetSaveWithScene() for node in bodies(app))
    app.slicer.mrmlScene.RemoveNode(case.ct)
    assert bodies(app) == []


def bodies(app: Any) -> list[Any]:
    return [
        node for node in app.slicer.util.getNodesByClass("vtkMRMLModelNode") if node.GetName().startswith("thorax ")
    ]


def test_accept_keeps_nodes_and_views(app: Any, widget: Any, opened: Any, case: SimpleNamespace) -> None:
    opened.ui.anomalyAcceptButton.click()
    assert {"thorax", "thorax anomaly", "thorax healthy", "thorax uncertainty"} <= node_names(app)
    assert node_names(app, "vtkMRMLTableNode") == {"thorax findings"}
    assert composites(app)[0].GetForegroundVolumeID() == case.run.volumes["anomaly"].GetID()


def test_results_lie_beside_the_input(app: Any, opened: Any, case: SimpleNamespace) -> None:
    hierarchy = app.slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(app.slicer.mrmlScene)
    parent = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(case.ct))
    for node in (opened.nodes.table, opened.nodes.node("regions"), opened.nodes.node("anomaly")):
        assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == parent


@pytest.mark.slow
def test_a_saved_scene_brings_the_map_back(app: Any, widget: Any, opened: Any, tmp_path: Path) -> None:
    rest(app, opened, 5.0)
    opened.ui.uncertaintyRadioButton.click()
    opened.ui.anomalyOpacitySlider.value = 0.3
    rows = opened.nodes.rows()
    scenes.save(tmp_path / "scene.mrb")
    app.slicer.mrmlScene.Clear(0)
    assert opened.nodes is None
    scenes.load(tmp_path / "scene.mrb")
    app.wait(lambda: opened.nodes is not None)
    assert widget.ui.resultCollapsibleButton.visible
    assert opened.nodes.rows() == rows and len(rows) == 2
    assert opened.ui.anomalyThresholdSlider.value == 5.0
    assert opened.ui.uncertaintyRadioButton.checked and opened.ui.anomalyOpacitySlider.value == 0.3
    assert opened.nodes.node("regions").GetSegmentation().GetNumberOfSegments() == 2
    rest(app, opened, 3.0)
    assert len(opened.nodes.rows()) == 3


def test_removing_the_ct_ends_the_view_quietly(app: Any, widget: Any, opened: Any, case: SimpleNamespace) -> None:
    app.slicer.mrmlScene.RemoveNode(case.ct)
    opened.ui.anomalyThresholdSlider.value = 6.0
    opened.ui.differenceRadioButton.click()
    opened.next()
    assert not widget.ui.resultCollapsibleButton.visible and opened.nodes is None
    assert node_names(app) == {"thorax anomaly", "thorax healthy", "thorax uncertainty"}  # nothing is lost unasked
    assert {node.GetForegroundVolumeID() for node in composites(app)} == {None}


# ------------------------------------------------------------------------------------------------------------- overlay


@pytest.mark.slow
@pytest.mark.parametrize("case", ["flipped", "oblique", "anisotropic"], indirect=True)
def test_map_and_regions_lie_exactly_on_the_ct(app: Any, opened: Any, case: SimpleNamespace, tmp_path: Path) -> None:
    """In numbers and in the picture, on every kind of grid: the CT is bright just where the map is high."""
    together = np.zeros(case.score.shape, bool)
    for number, row in enumerate(opened.nodes.rows(), start=1):
        together |= app.slicer.util.arrayFromSegmentBinaryLabelmap(regions_of(opened), str(number), case.ct) > 0
        center = surface_center(app, opened, str(number))
        half_a_voxel = 0.5 * np.linalg.norm(case.rows[:3, :3], axis=0).max()
        assert np.linalg.norm(center - [row["r_mm"], row["a_mm"], row["s_mm"]]) < half_a_voxel
    labels, count = ndimage.label(case.score > 3.0, np.ones((3, 3, 3)))
    peak = np.append(0.0, ndimage.maximum(case.score, labels, np.arange(1, count + 1)))[labels]
    assert np.array_equal(together, (case.score > 3.0) & (case.score > 0.6 * peak))

    bright, colored = rendered(app, opened, case, tmp_path)
    assert bright.sum() > 50
    assert (bright & colored).sum() / (bright | colored).sum() > 0.98


def regions_of(view: Any) -> Any:
    return view.nodes.node("regions")


def surface_center(app: Any, view: Any, segment: str) -> np.ndarray:
    kind = app.slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
    surface = regions_of(view).GetSegmentation().GetSegment(segment).GetRepresentation(kind)
    return np.array(surface.GetBounds()).reshape(3, 2).mean(axis=1)


def rendered(app: Any, view: Any, case: SimpleNamespace, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Bright pixels of the CT alone, and colored pixels of the heat map over it, true voxels."""
    import matplotlib.image

    from Testing.harness.views import slice_picture

    for node in (case.ct, case.run.volumes["anomaly"]):
        node.GetDisplayNode().SetInterpolate(False)
    view.ui.regionsCheckBox.click()
    app.slicer.app.layoutManager().resetSliceViews()
    view.ui.findingsTableView.selectRow(0)
    pictures = []
    for opacity in (0.0, 1.0):
        view.ui.anomalyOpacitySlider.value = opacity
        slice_picture("Red", folder / "view.png", size=200, labels=False)
        pictures.append(matplotlib.image.imread(folder / "view.png")[..., :3])
    return pictures[0].mean(axis=2) > 0.5, np.ptp(pictures[1], axis=2) > 0.05


# --------------------------------------------------------------------------------------------------------- real network


@pytest.mark.slow
def test_nodule_of_the_sample_ct_is_found_with_the_shipped_weights(
    app: Any, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the click on Run to a finding in the outlined nodule: real worker, real weights, a crop of the CT."""
    from MedDiffFMGui.nodes.volumeNodes import volumeFromNode

    from MedDiffFMLib.imaging.io import read_volume
    from MedDiffFMLib.imaging.volume import Volume

    samples = ROOT / "Resources" / "SampleData"
    ct = read_volume(samples / "thorax_lidc0001.nrrd")
    nodule = read_volume(samples / "thorax_lidc0001_mask.nrrd", modality="mask").voxels > 0
    center = np.argwhere(nodule).mean(axis=0).astype(int)
    low = np.maximum(center - (20, 30, 30), 0)
    box = tuple(slice(int(a), int(a) + n) for a, n in zip(low, (40, 60, 60), strict=True))
    matrix = ct.ijk_to_ras.copy()
    matrix[:3, 3] = (ct.ijk_to_ras @ [*low[::-1], 1])[:3]
    node = app.slicer.util.addVolumeFromArray(ct.voxels[box].copy(), matrix, "nodule")

    monkeypatch.setattr(app.slicer.packaging, "pip_check", lambda requirement: True)
    widget = app.open_widget(module)
    try:
        widget.ui.inputVolumeSelector.setCurrentNode(node)
        widget.taskPanel.choose("anomaly")
        widget.ui.runButton.click()
        app.wait(lambda: not widget.logic.running, seconds=900)
        view = widget.anomalyView
        assert view.nodes is not None, widget.ui.runStatusLabel.text
        view.ui.anomalyThresholdSlider.value = 2.0
        app.wait(lambda: "z 2.0" in view.ui.findingsLabel.text)
        regions = view.nodes.node("regions")
        hit = [
            row
            for row in range(len(view.nodes.rows()))
            if (app.slicer.util.arrayFromSegmentBinaryLabelmap(regions, str(row + 1), node) > 0)[nodule[box]].any()
        ]
        assert hit, view.nodes.rows()
        view.ui.findingsTableView.selectRow(hit[0])
        score = app.slicer.util.arrayFromVolume(view.nodes.node("anomaly"))
        assert score[nodule[box]].max() > 2.0
        assert volumeFromNode(view.nodes.node("healthy")).same_geometry(Volume(ct.voxels[box], matrix), tolerance=1e-6)
        view.ui.anomalyDiscardButton.click()
        assert node_names(app) == {"nodule"}
    finally:
        widget.cleanup()


def test_a_difference_is_colored_and_leaves_the_ct_visible(app: Any, module: Any, tmp_path: Path) -> None:
    """Rendered: gray where nothing is different, orange where the CT is denser, blue where it is less dense."""
    from matplotlib.image import imread
    from MedDiffFMGui.nodes.volumeNodes import addResultNode
    from MedDiffFMGui.views.anomalyLayers import showLayer, styleLayer

    view = pictures.SliceView("Red", 200)
    voxels = np.full((8, 100, 100), 40, np.int16)
    ct = app.slicer.util.addVolumeFromArray(voxels, np.diag([-1, -1, 2, 1.0]), "ct")
    ct.GetDisplayNode().SetAutoWindowLevel(False)
    ct.GetDisplayNode().SetWindowLevel(800, 0)
    difference = np.zeros(voxels.shape, np.float32)
    difference[:, 20:40, 20:40], difference[:, 60:80, 60:80], difference[:, 20:40, 60:80] = 400, -400, 20
    node = addResultNode(difference, ct, "difference", False)
    styleLayer("difference", node, 3.0)
    showLayer(ct, node, 0.8)
    app.slicer.app.layoutManager().resetSliceViews()
    view.picture(tmp_path / "slice.png")
    view.close()
    seen = imread(tmp_path / "slice.png")[..., :3]
    low, high = (np.argwhere(seen.min(axis=2) > 0.05).min(axis=0), np.argwhere(seen.max(axis=2) > 0.05).max(axis=0))

    def at(j: float, i: float) -> np.ndarray:
        return seen[tuple((low + (high - low) * np.array([j, i])).astype(int))]

    # The first index of the voxels runs from anterior, the picture's rows from the top: both as a reader sees a CT.
    plain, small, denser, thinner = at(0.9, 0.5), at(0.3, 0.7), at(0.3, 0.3), at(0.7, 0.7)
    assert np.ptp(plain) < 0.02 and np.allclose(small, plain, atol=0.02)
    assert denser[0] > denser[1] > denser[2] + 0.2 and thinner[2] > thinner[1] > thinner[0] + 0.1
