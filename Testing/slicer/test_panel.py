"""The Input, Task and Result sections, used as a user would, with a worker process that computes no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedDiffFMLib.imaging.modality import CT
from MedDiffFMLib.tasks.registry import TASKS
from Testing.harness import application, pythonqt
from Testing.slicer.paint import paint_ball

TASK_NAMES = [name for name in TASKS if name != "segment"]  # which has a file of its own, as the views of others have


def press(app: Any, widget: Any, task: str) -> None:
    import qt

    widget.ui.taskButtonsWidget.findChild(qt.QToolButton, f"{task}TaskButton").click()
    app.qt.processEvents()


def editors(widget: Any) -> dict[str, Any]:
    return widget.taskPanel._forms[widget.taskPanel.task].widgets._editors


def composite(app: Any, view: str = "Red") -> Any:
    return app.slicer.app.layoutManager().sliceWidget(view).mrmlSliceCompositeNode()


def denoised(app: Any, widget: Any, ct: Any) -> Any:
    """A finished run; gives its main node."""
    app.slicer.util.setSliceViewerLayers(background=ct, foreground=None, foregroundOpacity=0.3)
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    widget.ui.runButton.click()
    app.wait(lambda: not widget.logic.running)
    return app.slicer.util.getNode("thorax denoised")


# ------------------------------------------------------------------------------------------------------------- tasks


def test_choices_are_those_of_the_library(module: Any, widget: Any) -> None:
    from MedDiffFMGui.nodes.parameterNode import Precision, Region

    from MedDiffFMLib.conditioning.regions import REGION_CHOICES
    from MedDiffFMLib.core.precision import PRECISIONS
    from MedDiffFMLib.models.names import DEFAULT_MODEL

    assert [precision.value for precision in Precision] == list(PRECISIONS)
    assert [region.value for region in Region] == ["", *REGION_CHOICES]
    assert widget.logic.getParameterNode().model == DEFAULT_MODEL
    widget.ui.precisionComboBox.currentIndex = 1
    assert widget.taskPanel.choices().settings.precision == "float32"


@pytest.mark.parametrize("task", TASK_NAMES)
def test_each_task_shows_its_own_parameters_and_fits_the_panel(app: Any, widget: Any, ct: Any, task: str) -> None:
    from MedDiffFMLib.tasks.parameters import describe

    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    press(app, widget, task)
    assert widget.logic.getParameterNode().task == task
    assert widget.ui.taskSentenceLabel.text == f"{TASKS[task].sentence} {TASKS[task].caveat}".strip()
    expected = describe(TASKS[task])
    assert list(editors(widget)) == [field.name for field, _info in expected]
    for field, info in expected:
        tooltip = editors(widget)[field.name].widget.toolTip
        assert info.help in tooltip
    shown = [name for name, form in widget.taskPanel._forms.items() if form._holders[0].isVisibleTo(form._holders[0])]
    assert task in shown
    panel = widget.parent.panel
    widget.ui.moreCollapsibleButton.collapsed = False
    app.qt.processEvents()
    assert panel.minimumSizeHint().width() <= application.PANEL_WIDTH
    widget.ui.moreCollapsibleButton.collapsed = True


def test_values_are_kept_for_each_task_and_only_where_they_differ(app: Any, widget: Any, ct: Any) -> None:
    import json

    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    press(app, widget, "inpaint")
    editors(widget)["steps"].widget.value = 8
    press(app, widget, "denoise")
    editors(widget)["noise"].widget.value = 25.0
    assert json.loads(widget.logic.getParameterNode().parameters) == {
        "inpaint": {"steps": 8},
        "denoise": {"noise": 25.0},
    }
    assert widget.taskPanel.choices().settings.parameters == {"noise": 25.0}
    press(app, widget, "inpaint")
    assert editors(widget)["steps"].widget.value == 8
    editors(widget)["steps"].widget.value = 1
    assert json.loads(widget.logic.getParameterNode().parameters)["inpaint"] == {}


@pytest.mark.slow
def test_every_parameter_reaches_the_library_as_it_wants_it(app: Any, widget: Any, ct: Any) -> None:
    """Each widget moved to another value gives parameters that the library's own check accepts."""
    from MedDiffFMLib.tasks.parameters import from_dict

    app.slicer.mrmlScene.AddNewNodeByClass("vtkMRMLCameraNode")
    for task in TASK_NAMES:
        press(app, widget, task)
        for name, editor in editors(widget).items():
            before = editor.value()
            numbers = getattr(editor, "_numbers", [editor])
            for number in numbers:
                box = getattr(number, "boxes", {}).get("mr")
                _move(box or getattr(number, "button", None) or getattr(number, "line", None) or number.widget)
            assert editor.value() != before, f"{task}.{name}"
            values = {name: editor.value(), **({"views": "camera"} if name == "camera" else {})}
            values |= {name: "2026-01-31"} if name.endswith("_date") else {}  # other texts are refused
            if (task, name) != ("synthesize", "size"):  # the smallest size is refused with words of its own
                from_dict(TASKS[task], values)
            editor.setValue(before)
            assert editor.value() == before


def _move(shown: Any) -> None:
    kind = shown._class
    if kind == "QComboBox":
        shown.currentIndex = (shown.currentIndex + 1) % shown.count
    elif kind in ("QCheckBox", "QPushButton"):
        shown.checked = not shown.checked
    elif kind == "QLineEdit":
        shown.text = "pa,lat"
    else:
        step = shown.singleStep if shown.value < shown.maximum else -shown.singleStep
        shown.value = shown.value + step


def test_a_task_without_its_controlnet_says_so(app: Any, widget: Any, ct: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from MedDiffFMLib.models import catalogue

    real = catalogue.list_models
    monkeypatch.setattr(catalogue, "list_models", lambda kind=None: [] if kind == "control" else real(kind))
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    press(app, widget, "generate_lesion")
    assert not widget.ui.runButton.enabled and "ControlNet for lesion" in widget.ui.reasonLabel.text


def test_synthesis_needs_no_ct_and_values_that_do_not_fit_are_named(app: Any, widget: Any) -> None:
    press(app, widget, "synthesize")
    assert widget.ui.runButton.enabled
    widget.taskPanel._forms["synthesize"].widgets.setValues({"size": [2000.0, 2000.0, 2000.0], "spacing": 0.5})
    widget.taskPanel._onValuesChanged()
    assert not widget.ui.runButton.enabled and widget.ui.reasonLabel.text


def test_unreadable_parameters_of_an_edited_scene_do_no_harm(app: Any, widget: Any, ct: Any) -> None:
    node = widget.logic.getParameterNode()
    node.parameters, node.task, node.model = "{not json", "nonsense", "gone"
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    assert widget.taskPanel.task == "anomaly"
    assert widget.taskPanel.choices().settings.parameters == {}


# ---------------------------------------------------------------------------------------------------------- painting


@pytest.mark.slow
def test_mask_is_made_for_the_ct_and_can_be_undone(app: Any, widget: Any, ct: Any) -> None:
    slicer = app.slicer
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    assert not slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    press(app, widget, "inpaint")
    mask = widget.logic.getParameterNode().mask
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    assert mask.GetNodeReference(role) is ct
    assert not widget.ui.runButton.enabled and "Paint" in widget.ui.reasonLabel.text
    editor = widget.maskPanel.editor
    brush = editor.mrmlSegmentEditorNode()  # a click makes a ball
    assert brush.GetAttribute("BrushSphere") == "1" and brush.GetAttribute("BrushAbsoluteDiameter") == "12"
    editor.setActiveEffectByName("Paint")
    assert editor.activeEffect() and editor._target.shortcuts_installed
    paint_ball(app, widget, (10, 12, 14), 4.0)
    assert widget.ui.runButton.enabled
    editor.undo()
    app.qt.processEvents()
    assert not widget.ui.runButton.enabled
    editor.redo()
    press(app, widget, "denoise")
    assert not widget.ui.maskWidget.visible and editor.activeEffect() is None
    assert not editor._target.shortcuts_installed
    press(app, widget, "generate_lesion")
    assert widget.logic.getParameterNode().mask is not mask  # what was filled is no place for a lesion
    press(app, widget, "inpaint")
    assert widget.logic.getParameterNode().mask is mask
    widget.exit()
    assert not editor._target.shortcuts_installed


@pytest.mark.slow
def test_only_the_neighborhood_travels(app: Any, widget: Any, module: Any) -> None:
    """Of a large CT the mask and as much around it as texture may come from is sent, and pasted back where it was."""
    from MedDiffFMGui.nodes.resultNodes import addResult, pasting
    from MedDiffFMGui.runs.runRequest import makeRequest
    from MedDiffFMGui.worker.eventLoopTasks import drained

    from MedDiffFMLib.worker.exchange import WorkerResult

    voxels = np.random.default_rng(1).integers(-1000, 200, (90, 140, 150)).astype(np.int16)
    ct = app.slicer.util.addVolumeFromArray(voxels, np.diag([-1, -1, 1.5, 1.0]), "thorax")
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    press(app, widget, "inpaint")
    inside = paint_ball(app, widget, (50, 60, 70), 8.0)
    request, piece = drained(makeRequest(ct, widget.taskPanel.choices()))
    assert request.voxels.shape == request.mask.shape and request.voxels.size < voxels.size / 4
    assert np.array_equal(request.voxels, voxels[piece]) and np.array_equal(request.mask, inside[piece])
    assert request.mask.sum() == inside.sum()
    whole = drained(pasting(request.voxels + 1, piece, ct))
    result = WorkerResult({"inpainted": whole}, {}, {}, {}, [], {"device": "cpu"})
    pasted = app.slicer.util.arrayFromVolume(addResult("inpaint", ct, result).main)
    assert np.array_equal(pasted[piece], voxels[piece] + 1)
    pasted = pasted.copy()
    pasted[piece] -= 1
    assert np.array_equal(pasted, voxels)


@pytest.mark.parametrize("task", [name for name in TASK_NAMES if name not in ("synthesize", "describe")])
def test_outputs_look_as_their_kind_says(app: Any, module: Any, ct: Any, task: str) -> None:
    """A CT has the window of the input CT, nothing else has; masks are label maps; titles are those of the table."""
    from MedDiffFMGui.nodes.resultNodes import addResult

    from MedDiffFMLib.tasks.output_kinds import OutputKind
    from MedDiffFMLib.worker.exchange import WorkerResult

    ct.GetDisplayNode().SetAutoWindowLevel(False)
    ct.GetDisplayNode().SetWindowLevel(1234, -321)
    voxels = app.slicer.util.arrayFromVolume(ct)
    declared = TASKS[task].volumes()
    volumes = {output.name: voxels > 0 if output.kind is OutputKind.MASK else voxels.copy() for output in declared}
    run = addResult(task, ct, WorkerResult(volumes, {}, {}, {}, [], {}))
    for output in declared:
        node = run.volumes[output.name]
        assert node.GetName() == f"thorax {output.words}"
        assert node.IsA("vtkMRMLLabelMapVolumeNode") == (output.kind is OutputKind.MASK)
        if output.kind is not OutputKind.MASK:
            window = (node.GetDisplayNode().GetWindow(), node.GetDisplayNode().GetLevel())
            assert (window == (1234, -321)) == (output.kind is OutputKind.CT and TASKS[task].inputs.modality == CT)


@pytest.mark.slow
def test_a_run_that_cannot_be_sent_is_told(app: Any, widget: Any, ct: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from MedDiffFMLib.core.errors import OutputError

    def full(request: Any) -> None:
        raise OutputError("The temporary folder is full.", "Free some space.")

    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    widget.logic._warmWorker()
    app.wait(lambda: widget.logic._worker.session.state.value == "ready")
    with monkeypatch.context() as patch:
        patch.setattr(widget.logic._worker.session, "run", full)
        widget.ui.runButton.click()
        app.wait(lambda: not widget.logic.running)
    assert widget.ui.runStatusLabel.text == "The temporary folder is full. Free some space."
    assert denoised(app, widget, ct) is not None


# ------------------------------------------------------------------------------------------------- before and after


@pytest.mark.slow
def test_blink_blend_and_discard(app: Any, widget: Any, ct: Any) -> None:
    node = denoised(app, widget, ct)
    keys = widget.resultPanel._shortcuts._shortcuts
    assert [str(key.key.toString()) for key in keys] == ["K", "N", "P"]
    assert composite(app).GetForegroundVolumeID() == node.GetID() and composite(app).GetForegroundOpacity() == 1
    keys[0]._target.activated.emit()
    assert composite(app).GetForegroundOpacity() == 0
    keys[0]._target.activated.emit()
    assert composite(app).GetForegroundOpacity() == 1
    widget.ui.blendSlider.value = 0.4
    assert composite(app).GetForegroundOpacity() == pytest.approx(0.4)
    widget.exit()
    assert not widget.resultPanel._shortcuts._shortcuts
    widget.enter()
    widget.ui.discardButton.click()
    assert composite(app).GetBackgroundVolumeID() == ct.GetID() and not composite(app).GetForegroundVolumeID()
    assert composite(app).GetForegroundOpacity() == pytest.approx(0.3)
    assert [n.GetName() for n in app.slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")] == ["thorax"]
    assert not widget.ui.resultCollapsibleButton.visible


@pytest.mark.slow
def test_what_changed_is_not_hidden_by_its_mask(app: Any, widget: Any, ct: Any) -> None:
    """Its area is seen while it is painted, its outline with the result, and nothing of it in other tasks."""

    def fill() -> None:
        widget.ui.runButton.click()
        app.wait(lambda: not widget.logic.running)
        assert widget.ui.runStatusLabel.text.startswith("Done"), widget.ui.runStatusLabel.text

    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    press(app, widget, "inpaint")
    paint_ball(app, widget, (10, 12, 14), 4.0)
    display = widget.logic.getParameterNode().mask.GetDisplayNode()
    assert display.GetVisibility() and display.GetVisibility2DFill()
    fill()
    assert display.GetVisibility2DOutline() and not display.GetVisibility2DFill()
    paint_ball(app, widget, (10, 10, 14), 4.0)
    assert display.GetVisibility2DFill()
    fill()
    widget.ui.discardButton.click()
    assert display.GetVisibility2DFill()
    press(app, widget, "denoise")
    assert not display.GetVisibility()
    press(app, widget, "inpaint")
    assert display.GetVisibility()
    display.SetVisibility(False)  # the eye of the segment's row
    widget.exit()
    widget.enter()
    assert not display.GetVisibility()


@pytest.mark.slow
def test_each_ct_has_a_mask_that_leaves_the_views_with_it(app: Any, widget: Any, ct: Any) -> None:
    """Another CT, another task before Discard, and a mask that somebody removes."""
    slicer = app.slicer
    other = slicer.util.addVolumeFromArray(slicer.util.arrayFromVolume(ct).copy(), None, "other")
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    press(app, widget, "inpaint")
    paint_ball(app, widget, (10, 12, 14), 4.0)
    mask = widget.logic.getParameterNode().mask
    widget.ui.runButton.click()
    app.wait(lambda: not widget.logic.running)
    assert not mask.GetDisplayNode().GetVisibility2DFill()
    widget.ui.inputVolumeSelector.setCurrentNode(other)
    app.qt.processEvents()
    assert widget.logic.getParameterNode().mask is not mask and not mask.GetDisplayNode().GetVisibility()
    press(app, widget, "denoise")
    widget.ui.discardButton.click()
    assert mask.GetDisplayNode().GetVisibility2DFill()
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    press(app, widget, "inpaint")
    assert mask.GetDisplayNode().GetVisibility()
    widget.ui.runButton.click()
    app.wait(lambda: not widget.logic.running)
    slicer.mrmlScene.RemoveNode(mask)
    widget.ui.acceptButton.click()
    widget.exit()
    widget.enter()
    assert widget.logic.getParameterNode().mask is not None


@pytest.mark.slow
def test_a_result_outlives_its_worker_but_not_a_ct_of_another_shape(
    app: Any, widget: Any, ct: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker dies while its result is being read; the CT is cropped during a run."""
    from MedDiffFMGui.runs import taskRun

    from MedDiffFMLib.core.errors import MedDiffFMError

    def dying(array: Any) -> Any:
        if widget.logic._isReading:
            widget.logic._onWorkerError(MedDiffFMError("The worker was killed.", ""))
        yield
        return array.copy()

    with monkeypatch.context() as patch:
        patch.setattr(taskRun, "copying", dying)
        assert denoised(app, widget, ct) is not None
    assert widget.ui.runStatusLabel.text.startswith("Done") and "was killed" in widget.ui.logTextEdit.plainText
    widget.ui.runButton.click()
    voxels = app.slicer.util.arrayFromVolume(ct)[:-2].copy()
    app.slicer.util.updateVolumeFromArray(ct, voxels)
    app.wait(lambda: not widget.logic.running)
    assert "cropped or moved" in widget.ui.runStatusLabel.text


def test_a_lesion_is_seen_inside_its_outline(app: Any, widget: Any, ct: Any) -> None:
    from MedDiffFMGui.nodes.finishedRun import FinishedRun
    from MedDiffFMGui.nodes.volumeNodes import addLabelNode, addResultNode

    voxels = app.slicer.util.arrayFromVolume(ct)
    red = app.slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
    before = red.GetUseLabelOutline()
    red.SetUseLabelOutline(False)
    volumes = {"with_lesion": addResultNode(voxels + 9, ct, "made", True), "lesion": addLabelNode(voxels > 0, ct, "it")}
    report = app.slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode", "report")
    widget.resultPanel.show(FinishedRun("generate_lesion", ct, volumes, {}, report))
    assert composite(app).GetForegroundVolumeID() == volumes["with_lesion"].GetID()
    assert not composite(app).GetLabelVolumeID()  # first the lesion alone
    widget.ui.outlineCheckBox.click()
    assert red.GetUseLabelOutline() and composite(app).GetLabelVolumeID() == volumes["lesion"].GetID()
    widget.ui.discardButton.click()
    assert not red.GetUseLabelOutline()
    red.SetUseLabelOutline(before)


def test_five_outputs_widen_no_panel_and_figures_are_sentences(app: Any, widget: Any, ct: Any, tmp_path: Any) -> None:
    """A CT of three X-rays: its choices in rows; what it misses in words."""
    from MedDiffFMGui.nodes.finishedRun import FinishedRun
    from MedDiffFMGui.nodes.volumeNodes import addResultNode

    voxels = app.slicer.util.arrayFromVolume(ct).astype("float32")
    names = ("ct", "uncertainty", "residual", "residual_second", "residual_third")
    volumes = {name: addResultNode(voxels, ct, name, True) for name in names}
    report = app.slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode", "report")
    views = {"residual": {"missed_percent": 0.512}, "residual_second": {"missed_percent": 1.04}}
    run = FinishedRun("reconstruct", ct, volumes, {}, report, facts={"views": views, "spacing_mm": 4.0})
    widget.resultPanel.show(run)
    app.picture(widget, tmp_path / "panel.png")
    assert widget.ui.panelScrollArea.horizontalScrollBar().maximum == 0
    assert len(widget.compareView._choices) == 5 and not widget.ui.outlineCheckBox.visible
    missed = "Voxels of 4 mm. Its projections miss 0.51 % and 1 % of the X-rays."
    assert widget.ui.resultFactsLabel.text == missed
    widget.ui.discardButton.click()


def test_views_come_back_from_a_ct_of_nobody(app: Any, widget: Any, ct: Any) -> None:
    """It lies elsewhere than the patient; after it was discarded the views show the patient as before."""
    from MedDiffFMGui.nodes.finishedRun import FinishedRun
    from MedDiffFMGui.nodes.volumeNodes import addResultNode

    app.slicer.util.setSliceViewerLayers(background=ct, fit=True)
    red = app.slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
    before = red.GetSliceOffset(), red.GetFieldOfView(), app.slicer.util.arrayFromVTKMatrix(red.GetSliceToRAS())
    far = np.diag([-3, -3, 3, 1.0])
    far[:3, 3] = 700
    made = addResultNode(np.zeros((30, 60, 60), np.int16), None, "nobody", False, ijkToRAS=far.tolist())
    report = app.slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode", "report")
    widget.resultPanel.show(FinishedRun("synthesize", None, {"synthetic": made}, {}, report))
    assert red.GetSliceOffset() > 600
    widget.ui.discardButton.click()
    assert (red.GetSliceOffset(), red.GetFieldOfView()) == before[:2]
    assert np.array_equal(app.slicer.util.arrayFromVTKMatrix(red.GetSliceToRAS()), before[2])


@pytest.mark.slow
def test_side_by_side_and_the_way_back(app: Any, widget: Any, ct: Any) -> None:
    from MedDiffFMGui.views.sideBySide import VIEW_NAMES

    manager = app.slicer.app.layoutManager()
    manager.setLayout(2)
    node = denoised(app, widget, ct)
    widget.ui.sideBySideButton.click()
    first, second = (composite(app, name) for name in VIEW_NAMES)
    assert first.GetBackgroundVolumeID() == ct.GetID() and second.GetBackgroundVolumeID() == node.GetID()
    assert first.GetLinkedControl() and second.GetLinkedControl()
    left, right = (manager.sliceWidget(name).mrmlSliceNode() for name in VIEW_NAMES)
    assert left.GetViewGroup() == right.GetViewGroup() != manager.sliceWidget("Red").mrmlSliceNode().GetViewGroup()
    widget.ui.sideBySideButton.click()
    assert manager.layout == 2
    widget.ui.sideBySideButton.click()
    widget.ui.acceptButton.click()
    assert manager.layout == 2 and composite(app).GetBackgroundVolumeID() == node.GetID()
    assert app.slicer.mrmlScene.IsNodePresent(node)


@pytest.mark.slow
def test_result_and_report_lie_in_the_study_of_the_input(app: Any, widget: Any, ct: Any) -> None:
    slicer = app.slicer
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "CT of the chest")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(ct), study)
    denoised(app, widget, ct)
    for name in ("thorax denoised", "thorax noise", "thorax denoised report"):
        item = hierarchy.GetItemByDataNode(slicer.util.getNode(name))
        assert hierarchy.GetItemParent(item) == study


def test_time_is_estimated_from_the_run_before(app: Any, widget: Any, ct: Any) -> None:
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    assert "(estimated)" in widget.ui.estimateLabel.text
    from MedDiffFMGui.nodes.finishedRun import FinishedRun

    choices = widget.taskPanel.choices()
    widget.taskPanel._speed.remember(FinishedRun("denoise", ct, {}, {"seconds": 12.0}, None, choices=choices))
    widget.taskPanel.update()
    assert widget.ui.estimateLabel.text.startswith("About 12 s. ")


def test_the_first_estimate_goes_by_the_speed_of_the_computer(
    app: Any, widget: Any, ct: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured once; a computer of half the speed takes twice as long; of a GPU nothing is said before a run."""
    from MedDiffFMGui.runs import runtimeEstimate

    measured: list[float] = []

    def measure(speed: float) -> float:
        measured.append(speed)
        return speed

    def estimate(speed: float) -> float:
        monkeypatch.setattr(runtimeEstimate, "measuredSpeed", lambda: measure(speed))
        return widget.taskPanel._speed._expected(ct, widget.taskPanel.choices().settings)

    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    monkeypatch.setattr(runtimeEstimate, "workUnits", lambda *_: 1.0)
    import qt

    qt.QSettings().clear()
    fast = estimate(200.0)
    assert estimate(100.0) == fast and measured == [200.0]
    qt.QSettings().clear()
    assert estimate(100.0) == 2 * fast
    from MedDiffFMLib.runner.settings import RunSettings

    assert "first run" in widget.taskPanel._speed.sentence(ct, RunSettings("anomaly", device="cuda"))


def test_all_connections_exist_in_slicer(widget: Any) -> None:
    assert pythonqt.refused_connections == []


def test_each_task_has_an_icon_of_its_own(module: Any) -> None:
    folder = Path(module.__file__).parent / "Resources" / "Icons"
    icons = [task.icon for task in TASKS.values()]
    assert [icon for icon in icons if not (folder / icon).is_file()] == []
    assert len({(folder / icon).read_bytes() for icon in icons}) == len(icons)


@pytest.mark.slow
def test_closing_the_scene_while_a_mask_is_painted_and_a_result_is_shown(app: Any, widget: Any, ct: Any) -> None:
    denoised(app, widget, ct)
    press(app, widget, "inpaint")
    paint_ball(app, widget, (10, 12, 14), 4.0)
    app.slicer.mrmlScene.Clear(0)
    app.qt.processEvents()
    assert not widget.ui.resultCollapsibleButton.visible and not widget.ui.maskWidget.visible
    assert not widget.ui.runStatusLabel.text, "nothing is said of a result that is gone"
    assert not widget.maskPanel.editor._target.shortcuts_installed
    voxels = np.random.default_rng(2).integers(-1000, 200, (20, 24, 28)).astype(np.int16)
    other = app.slicer.util.addVolumeFromArray(voxels, name="next")
    widget.ui.inputVolumeSelector.setCurrentNode(other)
    press(app, widget, "inpaint")
    assert widget.logic.getParameterNode().mask.GetName() == "next mask (Fill)"
    paint_ball(app, widget, (10, 12, 14), 4.0)
    assert widget.ui.runButton.enabled


@pytest.mark.slow
def test_removing_what_is_shown_leaves_the_panel_usable(app: Any, widget: Any, ct: Any) -> None:
    """The user may delete any node in the Data module."""
    node = denoised(app, widget, ct)
    app.slicer.mrmlScene.RemoveNode(node)
    widget.ui.blinkButton.click()
    widget.ui.sideBySideButton.click()
    widget.ui.discardButton.click()
    assert not widget.ui.resultCollapsibleButton.visible
    denoised(app, widget, ct)
    app.slicer.mrmlScene.RemoveNode(ct)
    widget.ui.blinkButton.click()
    widget.ui.acceptButton.click()
    assert not widget.ui.runButton.enabled and "Choose a CT" in widget.ui.reasonLabel.text
