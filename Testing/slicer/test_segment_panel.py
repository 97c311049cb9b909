"""Segmentation from few examples as a user does it: segments to cases, training, head, results, several CTs, scenes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from Testing.harness import pythonqt, scenes

ROOT = Path(__file__).resolve().parents[2]
UI_FILE = ROOT / "MedDiffFM" / "Resources" / "UI" / "Segment.ui"
TERMINOLOGY = (
    "Segmentation category and type - DICOM master list~SCT^123037004^Anatomical Structure~SCT^39607008^Lung~^^"
    "~Anatomic codes - DICOM master list~^^~^^"
)
LOOKS = {"lungs": ((0.2, 0.4, 0.8), TERMINOLOGY), "spine": ((1.0, 0.8, 0.0), "")}
SHORT = {
    "steps": 44,
    "validate_every": 22,
    "checkpoint_every": 22,
    "learning_rate": 1e-2,
    "options": {"spacing": 4.0, "points": 256},
}


@pytest.fixture
def widget(app: Any, module: Any, monkeypatch: pytest.MonkeyPatch, own_models: Path) -> Iterator[Any]:
    """The module with this very Python as worker; models that it makes are gone afterwards."""
    monkeypatch.setattr(app.slicer.packaging, "pip_check", lambda requirement: True)
    opened = app.open_widget(module)
    yield opened
    opened.cleanup()
    for file in own_models.iterdir():
        file.unlink()


@pytest.fixture
def scene(app: Any, small_ct: Any) -> SimpleNamespace:
    """Three CTs; lungs and spine are outlined in two of them, in different order. The last is under a transform."""
    slicer = app.slicer
    cts, segmentations = [], []
    for number in range(3):
        voxels = np.roll(small_ct.voxels, 2 * number, 1) + np.random.default_rng(number).integers(0, 9, (40, 48, 44))
        ct = slicer.util.addVolumeFromArray(voxels.astype(np.int16), small_ct.ijk_to_ras, f"CT {number}")
        ct.GetDisplayNode().SetWindowLevel(1400, -350)
        cts.append(ct)
    for number, names in enumerate((("lungs", "spine"), ("spine", "lungs"))):
        masks = outlined(app, cts[number])
        segmentations.append(add_segmentation(app, cts[number], {name: masks[name] for name in names}))
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    matrix = np.eye(4)
    matrix[:3, 3] = 10, -20, 30
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    cts[2].SetAndObserveTransformNodeID(transform.GetID())
    return SimpleNamespace(cts=cts, segmentations=segmentations)


def outlined(app: Any, ct: Any) -> dict[str, np.ndarray]:
    """The structures as the phantom has them."""
    voxels = app.slicer.util.arrayFromVolume(ct)
    inside = np.zeros(voxels.shape, bool)
    inside[2:-2, 10:-10, 6:-6] = True
    return {"lungs": inside & (voxels < -600) & (voxels > -940), "spine": voxels > 300}


def add_segmentation(app: Any, ct: Any, masks: dict[str, np.ndarray]) -> Any:
    node = app.slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{ct.GetName()} outlines")
    node.SetReferenceImageGeometryParameterFromVolumeNode(ct)
    node.CreateDefaultDisplayNodes()
    for name, mask in masks.items():
        color, terminology = LOOKS.get(name, ((1, 0, 0), ""))
        segment_id = node.GetSegmentation().AddEmptySegment("", name, color)
        if terminology:
            tag = app.slicer.vtkSegment.GetTerminologyEntryTagName()
            node.GetSegmentation().GetSegment(segment_id).SetTag(tag, terminology)
        app.slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), node, segment_id, ct)
    return node


def add_case(app: Any, panel: Any, ct: Any, segmentation: Any) -> str:
    """As a user: choose both and press the button."""
    panel.ui.caseImageSelector.setCurrentNode(ct)
    panel.ui.caseMaskSelector.setCurrentNode(segmentation)
    panel.ui.addFromSceneButton.click()
    app.wait(lambda: not panel._cases.busy, 120)
    return panel.ui.datasetStatusLabel.text


def offered(widget: Any) -> list[str]:
    combo = head_combo(widget)
    return [combo.itemText(index) for index in range(combo.count)]


def head_combo(widget: Any) -> Any:
    return widget.taskPanel._forms["segment"].widgets._editors["head"].widget


def looks(segmentation: Any) -> dict[str, Any]:
    """Name -> color and terminology of each segment."""
    import slicer
    import vtk

    found = {}
    for segment_id in segmentation.GetSegmentation().GetSegmentIDs():
        segment, tag = segmentation.GetSegmentation().GetSegment(segment_id), vtk.reference("")
        segment.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), tag)
        found[segment.GetName()] = (np.round(segment.GetColor(), 2).tolist(), str(tag))
    return found


def mask_of(app: Any, segmentation: Any, name: str, ct: Any) -> np.ndarray:
    segment_id = segmentation.GetSegmentation().GetSegmentIdBySegmentName(name)
    return app.slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment_id, ct) > 0


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    return 2 * (found & truth).sum() / (found.sum() + truth.sum())


def foreground(app: Any) -> Any:
    composite = app.slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    return app.slicer.mrmlScene.GetNodeByID(composite.GetForegroundVolumeID() or "")


# ------------------------------------------------------------------------------------------------------------- examples


def test_ui_file_names_only_what_slicer_has(app: Any) -> None:
    assert app.widgets.ui_problems(UI_FILE) == []


@pytest.mark.slow
def test_segments_are_chosen_and_keep_their_numbers(
    app: Any, widget: Any, scene: SimpleNamespace, tmp_path: Path
) -> None:
    import qt

    from MedDiffFMLib.datasets.dataset_folder import Dataset

    panel = widget.trainingPanel
    rows = panel.ui.caseSegmentsListWidget
    panel.ui.datasetPathLineEdit.currentPath = str(tmp_path / "set")
    assert panel.ui.caseSegmentsListWidget._target.isHidden()
    add_case(app, panel, scene.cts[0], scene.segmentations[0])
    assert [rows.item(row).text() for row in range(rows.count)] == ["lungs", "spine"]

    extra = scene.segmentations[1].GetSegmentation().AddEmptySegment("", "forgotten")
    text = add_case(app, panel, scene.cts[1], scene.segmentations[1])
    assert "'forgotten' is empty" in text and "leave it out" in text
    rows.item(2).setCheckState(qt.Qt.Unchecked)
    scene.segmentations[1].GetSegmentation().GetSegment(extra).SetName("renamed")  # the list follows, the choice stays
    assert rows.item(2).text() == "renamed" and rows.item(2).checkState() == qt.Qt.Unchecked
    panel.ui.addFromSceneButton.click()
    app.wait(lambda: not panel._cases.busy, 120)

    dataset = Dataset(tmp_path / "set")
    assert {value: label.name for value, label in dataset.labels().items()} == {1: "lungs", 2: "spine"}
    assert dataset.labels()[1].terminology == TERMINOLOGY and dataset.labels()[2].color == (255, 204, 0)
    from MedDiffFMLib.imaging.io import read_volume

    for case, ct in zip(dataset.cases(), scene.cts, strict=False):
        label = read_volume(case.files["label"], "mask").voxels
        for value, name in ((1, "lungs"), (2, "spine")):
            assert np.array_equal(label == value, outlined(app, ct)[name])
    for row in range(3):
        rows.item(row).setCheckState(qt.Qt.Unchecked)
    assert not panel.ui.addFromSceneButton.enabled
    assert pythonqt.refused_connections == []


@pytest.mark.slow
def test_segments_that_cannot_be_examples(app: Any, widget: Any, scene: SimpleNamespace, tmp_path: Path) -> None:
    panel, ct = widget.trainingPanel, scene.cts[0]
    panel.ui.datasetPathLineEdit.currentPath = str(tmp_path / "set")
    spine = outlined(app, ct)["spine"]
    middle = spine & (np.arange(40) < 20)[:, None, None]
    text = add_case(app, panel, ct, add_segmentation(app, ct, {"spine": spine, "again": spine}))
    assert "mark the same voxels" in text
    two = add_segmentation(app, ct, {"spine": spine, "other": middle})
    two.GetSegmentation().GetSegment(two.GetSegmentation().GetNthSegmentID(1)).SetName("spine")
    assert "have the same name" in add_case(app, panel, ct, two)
    assert not (tmp_path / "set").exists() and not list(tmp_path.glob("meddifffm-case-*"))
    text = add_case(app, panel, ct, add_segmentation(app, ct, {"spine": spine, "lower half": middle}))
    assert "is added" in text and "count as 'lower half'" in text


# ------------------------------------------------------------------------------------------------------ train and apply


@pytest.mark.slow
def test_from_outlines_to_segmentations_of_other_scans(
    app: Any, widget: Any, scene: SimpleNamespace, tmp_path: Path
) -> None:
    """Two outlined CTs train a head with the shipped prior, which then outlines two others and survives a scene."""
    train(app, widget, scene, tmp_path)
    slicer, ui, view = app.slicer, widget.ui, widget.segmentView
    widget.ui.inputVolumeSelector.setCurrentNode(scene.cts[2])
    ui.runButton.click()
    app.wait(lambda: not widget.logic.running, 300)
    segmentation = slicer.util.getNode("CT 2 segmentation")
    assert segmentation.IsA("vtkMRMLSegmentationNode"), ui.runStatusLabel.text
    wanted = {name: (np.round(color, 2).tolist(), text) for name, (color, text) in LOOKS.items()}
    found = looks(segmentation)
    assert found["lungs"] == wanted["lungs"] and found["spine"][0] == wanted["spine"][0]
    for name, truth in outlined(app, scene.cts[2]).items():  # the spine is four working voxels wide
        least = {"lungs": 0.7, "spine": 0.35}[name]
        assert dice(mask_of(app, segmentation, name, scene.cts[2]), truth) > least, name
    assert segmentation.GetTransformNodeID() == scene.cts[2].GetTransformNodeID()
    assert segmentation.GetSegmentation().ContainsRepresentation("Closed surface")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    parents = [hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) for node in (segmentation, scene.cts[2])]
    assert parents[0] == parents[1]

    heat = foreground(app)
    assert heat.GetName() == "CT 2 uncertainty" and heat.GetDisplayNode().GetColorNodeID().endswith("Inferno.txt")
    assert heat.GetDisplayNode().GetApplyThreshold() and not segmentation.GetDisplayNode().GetVisibility2DFill()
    view.ui.uncertaintyCheckBox.click()
    assert foreground(app) is None and segmentation.GetDisplayNode().GetVisibility2DFill()
    view.ui.uncertaintyCheckBox.click()
    view.ui.uncertaintyComboBox.currentIndex = 1
    assert foreground(app).GetName() == "CT 2 uncertainty lungs"
    view.blink()
    assert foreground(app) is None and not segmentation.GetDisplayNode().GetVisibility()
    view.blink()
    view.ui.structuresTableWidget.selectRow(0)
    assert view.ui.structuresTableWidget.item(0, 0).text() == "lungs"
    many(app, widget, scene)
    saved_scene(app, widget, tmp_path)


def train(app: Any, widget: Any, scene: SimpleNamespace, tmp_path: Path) -> None:
    """The Train section; the Segment task says what it lacks until the head is there."""
    panel, ui = widget.trainingPanel, widget.ui
    widget.taskPanel.choose("segment")
    ui.inputVolumeSelector.setCurrentNode(scene.cts[2])
    assert not ui.runButton.enabled and ui.reasonLabel.text.startswith("Train a segmentation first")
    panel.ui.trainTaskComboBox.currentIndex = panel.ui.trainTaskComboBox.findData("segmentation")
    assert panel.ui.trainingIntroLabel.text.startswith("One to five")
    panel.ui.datasetPathLineEdit.currentPath = str(tmp_path / "set")
    for ct, segmentation in zip(scene.cts, scene.segmentations, strict=False):
        add_case(app, panel, ct, segmentation)
    panel.ui.runPathLineEdit.currentPath = str(tmp_path / "run")
    panel.ui.modelNameLineEdit.text = "lungs-spine"
    panel.start(panel.request(**SHORT))
    live = []
    app.wait(lambda: live.append(panel._chart.values("validation")) or not panel.isTraining(), 300)
    panel._onTick()
    log = (tmp_path / "run" / "training.log").read_text()
    assert max(len(values) for values in live) >= 2, log  # seen while it went on
    panel.ui.curveComboBox.currentIndex = 1
    assert panel.ui.curvePlotWidget.mrmlPlotViewNode().GetPlotChartNode().GetYAxisTitle() == "Dice"
    assert "lungs-spine" in panel.ui.trainingStatusLabel.text, log
    assert len(offered(widget)) == 2 and offered(widget)[0] == "latest: lungs-spine"
    assert ui.runButton.enabled and ui.reasonLabel.text == ""
    head_combo(widget).currentIndex = 1
    assert widget.taskPanel.choices().settings.parameters["head"] == "lungs-spine"


def many(app: Any, widget: Any, scene: SimpleNamespace) -> None:
    """Two more CTs and a volume that is none, one after the other; then from the console."""
    import qt

    slicer, ui = app.slicer, widget.ui
    bad = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    ui.inputVolumeSelector.setCurrentNode(scene.cts[0])
    for node in (scene.cts[1], bad):
        ui.alsoSelector.setCheckState(node, qt.Qt.Checked)
    assert ui.runButton.text == "Segment 3 CTs"
    ui.runButton.click()
    stages = set()
    app.wait(lambda: stages.add(ui.runStatusLabel.text[:6]) or widget.taskPanel._many is None, 300)
    assert {"1 of 3", "2 of 3"} <= stages
    assert ui.runStatusLabel.text.startswith("Done: 2 of 3 CTs. empty: This volume has no voxels.")
    combo = widget.segmentView.ui.segmentationComboBox
    names = [combo.itemText(index) for index in range(combo.count)]
    assert names == [f"CT {number} segmentation" for number in (2, 0, 1)]
    assert combo.currentText == names[2] and not slicer.util.getNode(names[1]).GetDisplayNode().GetVisibility()
    combo.currentIndex = 1
    assert foreground(app).GetName() == "CT 0 uncertainty"
    widget.segmentView.ui.segmentDiscardButton.click()
    assert slicer.mrmlScene.GetFirstNodeByName(names[1]) is None and combo.count == 2

    slicer.mrmlScene.RemoveNode(bad)
    runs = widget.logic.run("segment", scene.cts[:1], parameters={"head": "lungs-spine"}, device="cpu")
    assert [run.main.GetName() for run in runs] == ["CT 0 segmentation"]
    assert list(runs[0].volumes) == ["segmentation", "uncertainty", "uncertainty_lungs", "uncertainty_spine"]
    with pytest.raises(Exception, match="CT 0: .*another"):
        widget.logic.run("segment", scene.cts[:1], parameters={"head": "another"}, device="cpu")


def saved_scene(app: Any, widget: Any, tmp_path: Path) -> None:
    """What was not decided about comes back; accepted results are the user's."""
    view = widget.segmentView
    before = {row[1]: row[3:] for row in view.nodes.rows()}
    name = view.nodes.segmentation.GetName()
    scenes.save(tmp_path / "scene.mrb")
    scenes.load(tmp_path / "scene.mrb")
    widget.onSceneEndImport(None, None)
    assert view.nodes.segmentation.GetName() == name and widget.ui.segmentResultWidget.visible
    assert {row[1]: row[3:] for row in view.nodes.rows()} == before
    assert looks(view.nodes.segmentation)["lungs"][1] == TERMINOLOGY
    assert foreground(app).GetName() == name.replace("segmentation", "uncertainty")
    while widget.ui.segmentResultWidget.visible:
        view.ui.segmentAcceptButton.click()
    assert app.slicer.util.getNode(name).GetDisplayNode().GetVisibility()
    widget.exit()
    widget.enter()
    assert not widget.ui.segmentResultWidget.visible


# ------------------------------------------------------------------------------------------------------------ bad input


def test_a_head_of_another_prior_is_named(app: Any, widget: Any, scene: SimpleNamespace, own_models: Path) -> None:
    from MedDiffFMLib.models.catalogue import CatalogueEntry, list_models, register_model

    def register(name: str, kind: str, prior: str = "") -> CatalogueEntry:
        weights = own_models.parent / f"{name}.safetensors"
        weights.write_bytes(name.encode())
        digest = hashlib.sha256(name.encode()).hexdigest()
        entry = CatalogueEntry(name, name.title(), "", weights.name, digest, 1, "", "", 1, kind=kind, prior=prior)
        return register_model(entry, weights, "card")

    register("mine", "segmentation", next(entry.sha256 for entry in list_models("prior")))
    register("theirs", "segmentation", register("other", "prior").sha256)
    widget.taskPanel.choose("segment")
    widget.ui.inputVolumeSelector.setCurrentNode(scene.cts[0])
    widget.taskPanel.refreshModels()
    assert offered(widget) == ["latest: mine", "mine"] and widget.ui.runButton.enabled
    head_combo(widget).currentIndex = 1
    widget.ui.modelComboBox.currentIndex = widget.ui.modelComboBox.findData("other")
    assert "mine was trained with another model" in widget.ui.reasonLabel.text and not widget.ui.runButton.enabled
    assert offered(widget) == ["latest: theirs", "theirs", "mine"]
    head_combo(widget).currentIndex = 1
    assert widget.ui.reasonLabel.text == ""


def add_result(app: Any, ct: Any) -> Any:
    """What a run gave: a spine of 1234 ml, and how sure the head is."""
    from MedDiffFMGui.nodes import resultNodes

    array = outlined(app, ct)["spine"].astype(np.uint8)
    label = {"name": "spine", "color": [255, 0, 0], "terminology": "", "volume_ml": 1234.4, "uncertainty": 0.1}
    maps = {"uncertainty": np.full(array.shape, 0.2, np.float32)}
    result = SimpleNamespace(
        volumes={"segmentation": array, **maps},
        ijk_to_ras={},
        report={},
        tables={},
        texts={},
        facts={"labels": [{**label, "value": 1}]},
        warnings=["A warning."],
    )
    return resultNodes.addResult("segment", ct, result)


def test_views_belong_to_the_result_that_is_shown(app: Any, widget: Any, scene: SimpleNamespace) -> None:
    """Of two results the accepted one leaves no legend behind, and discarding the other gives the 3D view back."""
    slicer, view = app.slicer, widget.segmentView
    camera = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLCameraNode")
    camera.SetPosition(0, 5000, 0)
    camera.SetFocalPoint(0, 4000, 0)
    first, second = (add_result(app, ct) for ct in scene.cts[:2])
    widget.resultPanel.show(second)
    assert view.ui.structuresTableWidget.item(0, 1).text() == "1234"
    bounds = [0.0] * 6
    scene.cts[1].GetRASBounds(bounds)
    assert bounds[2] < camera.GetFocalPoint()[1] < bounds[3]
    legends = [slicer.modules.colors.logic().GetColorLegendDisplayNode(second.volumes["uncertainty"])]
    assert legends[0].GetVisibility()
    view.accept()
    assert not legends[0].GetVisibility() and view.nodes.segmentation is first.main
    view.discard()
    assert camera.GetFocalPoint() == (0, 4000, 0) and slicer.mrmlScene.IsNodePresent(second.main)


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "value"), [("QUICK_VOXELS", 1000), ("QUICK_BORDERS", 10)])
def test_surfaces_of_a_large_or_speckled_result_wait_until_they_are_wanted(
    app: Any, widget: Any, scene: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    from MedDiffFMGui.nodes import segmentNodes

    def add() -> Any:
        return add_result(app, scene.cts[0])

    def surfaces(run: Any) -> bool:
        return run.main.GetSegmentation().ContainsRepresentation("Closed surface")

    ui, box = widget.segmentView.ui, widget.segmentView.ui.segments3DCheckBox
    widget.resultPanel.show(add())
    assert box.checked and ui.segmentWarningLabel.text == "A warning." and not ui.segmentationComboBox.visible
    monkeypatch.setattr(segmentNodes, limit, value)
    large = add()
    widget.resultPanel.show(large)
    assert not box.checked and not surfaces(large) and not large.main.GetDisplayNode().GetVisibility3D()
    box.click()
    assert surfaces(large) and large.main.GetDisplayNode().GetVisibility3D()
    ui.segmentDiscardButton.click()
    ui.segmentDiscardButton.click()
    assert not app.slicer.util.getNodesByClass("vtkMRMLTextNode") and not widget.ui.resultCollapsibleButton.visible
    assert not [node for node in app.slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if "unc" in node.GetName()]
