"""The Train section: cases, a training in its own process with the real library, its curve, pause, resume, model."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from Testing.harness import pythonqt

ROOT = Path(__file__).resolve().parents[2]
UI_FILE = ROOT / "MedDiffFM" / "Resources" / "UI" / "Training.ui"
SHORT = {"steps": 1, "batch": 1, "window": 32, "validate_every": 1, "checkpoint_every": 1}


@pytest.fixture(autouse=True)
def leave_no_model(own_models: Path):
    """A model that is registered here must not be found by the tests that follow."""
    yield
    for file in own_models.iterdir():
        file.unlink()


@pytest.fixture
def host(app: Any, module: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A widget that the panel fills, and a logic that says which Python works."""
    from MedDiffFMGui.worker.workerPython import WorkerPython
    from PySide6 import QtWidgets

    monkeypatch.setattr(app.slicer.packaging, "pip_check", lambda requirement: True)
    widget = QtWidgets.QWidget()
    widget.setLayout(QtWidgets.QVBoxLayout())
    logic = SimpleNamespace(workerPython=WorkerPython())
    return SimpleNamespace(widget=widget, parent=pythonqt.wrap(widget), logic=logic)


@pytest.fixture
def panel(host: Any) -> Iterator[Any]:
    from MedDiffFMGui.panels.trainingPanel import TrainingPanel

    host.added = []
    made = TrainingPanel(host.parent, host.logic, lambda: host.added.append(True))
    made.ui.trainTaskComboBox.currentIndex = made.ui.trainTaskComboBox.findData("super-resolution")
    yield made
    made.stop()


@pytest.fixture
def scene(app: Any, small_ct: Any) -> SimpleNamespace:
    """Two CTs of two patients, and a segmentation of two segments on the first."""
    nodes = []
    for number in range(2):
        voxels = np.roll(small_ct.voxels, 5 * number, 2) + np.random.default_rng(number).integers(0, 9, (40, 48, 44))
        nodes.append(app.slicer.util.addVolumeFromArray(voxels.astype(np.int16), small_ct.ijk_to_ras, f"CT {number}"))
    segmentation = app.slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "marks")
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(nodes[0])
    for number, corner in enumerate((10, 20)):
        mask = np.zeros((40, 48, 44), np.uint8)
        mask[corner : corner + 6, 20:26, 10:16] = 1
        name = segmentation.GetSegmentation().AddEmptySegment(f"s{number}")
        app.slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, name, nodes[0])
    return SimpleNamespace(cts=nodes, mask=segmentation)


@pytest.fixture
def dataset(scene: SimpleNamespace, tmp_path: Path) -> Path:
    """The two CTs as a dataset, one patient for validation."""
    from MedDiffFMGui.nodes.volumeNodes import volumeFromNode

    from MedDiffFMLib.datasets.dataset_folder import Dataset

    cases = Dataset.create(tmp_path / "cases")
    for number, node in enumerate(scene.cts):
        volume = volumeFromNode(node)
        cases.add(f"p{number}", volume.with_voxels(volume.voxels.copy()), patient=f"p{number}")
    cases.split(0.5)
    return tmp_path / "cases"


def texts(panel: Any) -> list[list[str]]:
    table = panel.ui.casesTableWidget
    return [[table.item(row, column).text() for column in range(5)] for row in range(table.rowCount)]


def wait_for_cases(app: Any, panel: Any) -> None:
    app.wait(lambda: not panel._cases.busy, 120)


# ------------------------------------------------------------------------------------------------------------ the panel


def test_ui_file_names_only_what_slicer_has(app: Any) -> None:
    assert app.widgets.ui_problems(UI_FILE) == []


def test_nothing_chosen_is_said_in_words(panel: Any) -> None:
    ui = panel.ui
    assert not ui.startTrainingButton.enabled and not ui.pauseTrainingButton.enabled
    assert "dataset" in ui.startReasonLabel.text == ui.startTrainingButton.toolTip
    assert [ui.trainTaskComboBox.itemData(n) for n in range(3)] == ["segmentation", "super-resolution", "lesion"]
    assert "memory" in ui.recipeSentenceLabel.text
    assert not ui.addFromSceneButton.enabled
    assert pythonqt.refused_connections == []


def test_a_bad_name_and_a_shared_folder_are_refused(panel: Any, dataset: Path) -> None:
    panel.ui.datasetPathLineEdit.currentPath = str(dataset)
    assert "folder for the training" in panel.reason()
    panel.ui.runPathLineEdit.currentPath = str(dataset)
    assert "of its own" in panel.reason()
    panel.ui.runPathLineEdit.currentPath = str(dataset.parent / "run")
    assert panel.reason() == "" and panel.ui.startTrainingButton.enabled
    panel.ui.modelNameLineEdit.text = "My Model"
    assert "lower-case" in panel.ui.startReasonLabel.text and not panel.ui.startTrainingButton.enabled
    panel.ui.modelNameLineEdit.text = "starter-ct"
    assert "starter-ct already" in panel.ui.startReasonLabel.text and not panel.ui.startTrainingButton.enabled


# ---------------------------------------------------------------------------------------------------------------- cases


@pytest.mark.slow
def test_cases_from_the_scene_keep_grid_and_labels(
    app: Any, panel: Any, scene: SimpleNamespace, tmp_path: Path
) -> None:
    from MedDiffFMGui.nodes.volumeNodes import volumeFromNode

    from MedDiffFMLib.imaging.io import read_volume

    ui = panel.ui
    ui.datasetPathLineEdit.currentPath = str(tmp_path / "new set")
    ui.caseImageSelector.setCurrentNode(scene.cts[0])
    ui.caseMaskSelector.setCurrentNode(scene.mask)
    ui.casePatientLineEdit.text = "patient A"
    ui.addFromSceneButton.click()
    assert not ui.addFromSceneButton.enabled and panel._cases.busy
    wait_for_cases(app, panel)
    assert texts(panel) == [["CT-0", "patient A", "training", "Segment_1, Segment_2", ""]], ui.datasetStatusLabel.text
    stored = read_volume(tmp_path / "new set" / "cases" / "CT-0" / "image.nrrd")
    original = volumeFromNode(scene.cts[0])
    assert stored.same_geometry(original, tolerance=1e-6) and np.array_equal(stored.voxels, original.voxels)
    assert not list(tmp_path.glob("meddifffm-case-*"))

    ui.addFromSceneButton.click()
    wait_for_cases(app, panel)
    assert "already" in ui.datasetStatusLabel.text and len(texts(panel)) == 1
    ui.casesTableWidget.selectRow(0)
    ui.removeCaseButton.click()
    wait_for_cases(app, panel)
    assert texts(panel) == [] and not ui.removeCaseButton.enabled


@pytest.mark.slow
def test_one_patient_s_scans_are_asked_about_and_the_verdict_is_in_sight(
    app: Any, host: Any, panel: Any, scene: SimpleNamespace, tmp_path: Path
) -> None:
    """Two CTs of the scene with almost the same name and no patient; the check's square stands before each name."""
    ui = panel.ui
    ui.datasetPathLineEdit.currentPath = str(tmp_path / "cases")
    ui.runPathLineEdit.currentPath = str(tmp_path / "run")
    for number, node in enumerate(scene.cts, start=1):
        node.SetName(f"thorax_{number}")
        ui.caseImageSelector.setCurrentNode(node)
        ui.addFromSceneButton.click()
        wait_for_cases(app, panel)
    assert "same patient as thorax_1" in ui.datasetStatusLabel.text
    ui.checkButton.click()
    wait_for_cases(app, panel)
    host.widget.resize(455, 900)  # as wide as Slicer makes the panel
    host.widget.show()
    app.qt.processEvents()
    table = ui.casesTableWidget
    assert [row[0] for row in texts(panel)] == ["thorax_1", "thorax_2"]
    assert not any(table.item(row, 0).icon().isNull() for row in range(2))
    assert sum(table.columnWidth(column) for column in range(5)) <= table.viewport().width


@pytest.mark.slow
def test_check_says_what_is_wrong_and_forbids_the_start(app: Any, panel: Any, dataset: Path) -> None:
    panel.ui.datasetPathLineEdit.currentPath = str(dataset)
    panel.ui.runPathLineEdit.currentPath = str(dataset.parent / "run")
    panel.ui.trainTaskComboBox.currentIndex = panel.ui.trainTaskComboBox.findData("lesion")
    panel.ui.checkButton.click()
    wait_for_cases(app, panel)
    assert all(row[4].startswith("It has no mask.") for row in texts(panel)) and len(texts(panel)) == 2
    assert "error" in panel.ui.datasetStatusLabel.text
    assert not panel.ui.startTrainingButton.enabled and "no mask" in panel.ui.startReasonLabel.text


# ------------------------------------------------------------------------------------------------------------- training


@pytest.mark.slow
def test_train_pause_resume_after_slicer_was_closed_and_use(
    app: Any, host: Any, panel: Any, dataset: Path, tmp_path: Path, own_models: Path
) -> None:
    """With the shipped weights: begins, is paused, a new panel finds it, resumes, draws, lists the model."""
    from MedDiffFMGui.panels.trainingPanel import TrainingPanel

    from MedDiffFMLib.training.finetune.background import is_running, state_of

    run = tmp_path / "run"
    panel.ui.datasetPathLineEdit.currentPath = str(dataset)
    panel.ui.runPathLineEdit.currentPath = str(run)
    panel.ui.modelNameLineEdit.text = "from-panel"
    panel.start(panel.request(**SHORT))
    assert panel.isTraining() and panel.ui.pauseTrainingButton.enabled and not panel.ui.startTrainingButton.enabled
    panel.ui.pauseTrainingButton.click()
    assert panel.ui.trainingStatusLabel.text == "Saving..."
    app.slicer.mrmlScene.Clear(0)  # a training outlives the scene
    app.wait(lambda: not panel.isTraining(), 900)
    panel._onTick()
    assert state_of(run).state == "paused" and panel.ui.startTrainingButton.text == "Resume"
    panel.stop()

    again = TrainingPanel(host.parent, host.logic, lambda: host.added.append(True))
    try:
        assert again.folder == str(run) and again.ui.modelNameLineEdit.text == "from-panel"
        assert again.ui.startTrainingButton.text == "Resume" and again.ui.startTrainingButton.enabled
        again.enter()
        again.ui.startTrainingButton.click()
        app.wait(lambda: again.ui.pauseTrainingButton.enabled, 30)
        app.wait(lambda: not again.isTraining(), 900)
        assert state_of(run).state == "finished", (run / "training.log").read_text()
        app.wait(lambda: host.added == [True], 10)
        app.wait(lambda: "from-panel" in again.ui.trainingStatusLabel.text, 30)
        assert [step for step, _ in again._chart.values("validation")] == [0, 1]
        assert (own_models / "from-panel.json").exists()
        assert not is_running(run)
    finally:
        again.stop()


def test_float32_is_asked_for_and_shown_again(panel: Any, dataset: Path, tmp_path: Path) -> None:
    from MedDiffFMLib.training.finetune.background import REQUEST_FILE

    ui = panel.ui
    ui.datasetPathLineEdit.currentPath = str(dataset)
    assert panel.request().bfloat16
    ui.float32CheckBox.checked = True
    request = panel.request()
    assert not request.bfloat16
    (tmp_path / REQUEST_FILE).write_text(json.dumps(asdict(request)))
    ui.float32CheckBox.checked = False
    ui.runPathLineEdit.currentPath = str(tmp_path)
    panel._showRequest()
    assert ui.float32CheckBox.checked


def test_curve_follows_the_file(app: Any, panel: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    lines = [
        '{"state": "validated", "step": 0, "metric": "gain_over_cubic_db", "value": 0.0}',
        '{"state": "training", "step": 1, "steps": 9, "loss": 0.5}',
        '{"state": "training", "step": 2, "steps": 9, "loss": 0.25}',
    ]
    (run / "progress.jsonl").write_text("\n".join(lines) + "\n")
    panel.ui.runPathLineEdit.currentPath = str(run)
    panel.enter()
    view = panel.ui.curvePlotWidget.mrmlPlotViewNode()
    chart = view.GetPlotChartNode()
    series = chart.GetNthPlotSeriesNode(0)
    table = series.GetTableNode().GetTable()
    assert [[table.GetValue(r, c).ToDouble() for c in range(2)] for r in range(2)] == [[1, 0.5], [2, 0.375]]
    assert chart.GetXAxisTitle() == "step" and not chart.GetSaveWithScene()
    assert series.GetMarkerStyle() == series.MarkerStyleNone
    panel.ui.curveComboBox.currentIndex = 1
    assert view.GetPlotChartNode().GetYAxisTitle() == "gain over cubic db"
    assert panel.ui.trainingStatusLabel.text.startswith("Paused after step 2.")
    app.slicer.mrmlScene.Clear(0)
    panel.enter()
    assert panel.ui.curvePlotWidget.mrmlPlotViewNode().GetPlotChartNode() is not None


def test_a_chart_has_no_curve_before_its_first_point(app: Any, panel: Any, tmp_path: Path) -> None:
    """VTK writes an error into Slicer's log at each repaint of a line without points."""
    run = tmp_path / "run"
    run.mkdir()
    progress = run / "progress.jsonl"
    progress.write_text('{"state": "validated", "step": 0, "metric": "dice", "value": 0.0}\n')
    panel.ui.runPathLineEdit.currentPath = str(run)
    panel.enter()
    chart = panel.ui.curvePlotWidget.mrmlPlotViewNode().GetPlotChartNode()
    assert chart.GetNumberOfPlotSeriesNodes() == 0
    with progress.open("a") as file:
        file.write('{"state": "training", "step": 1, "steps": 9, "loss": 0.5}\n')
    panel.enter()
    series = chart.GetNthPlotSeriesNode(0)
    assert chart.GetNumberOfPlotSeriesNodes() == 1 and series.GetMarkerStyle() == series.MarkerStyleCircle, "one point"
    panel._chart.clear()
    assert chart.GetNumberOfPlotSeriesNodes() == 0


def test_another_training_does_not_show_the_picture_of_the_one_before(panel: Any, tmp_path: Path) -> None:
    from MedDiffFMGui.panels.previewPicture import PREVIEW_FILE

    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    (first / PREVIEW_FILE).write_bytes((ROOT / "Resources" / "Icons" / "MedDiffFM.png").read_bytes())
    panel.ui.runPathLineEdit.currentPath = str(first)
    assert not panel.ui.previewLabel.pixmap.isNull()
    panel.ui.runPathLineEdit.currentPath = str(second)
    assert panel.ui.previewLabel.pixmap.isNull() and not panel.ui.previewLabel.isVisible()


def test_a_failed_training_says_why(panel: Any, tmp_path: Path) -> None:
    (tmp_path / "progress.jsonl").write_text('{"state": "failed", "message": "The {disk} is full. Free some space."}\n')
    panel.ui.runPathLineEdit.currentPath = str(tmp_path)
    assert panel.ui.trainingStatusLabel.text == "It ended: The {disk} is full. Free some space."


# ------------------------------------------------------------------------------------------------------------- quitting


@pytest.mark.parametrize(
    "decision, closes, paused", [("keep", True, False), ("pause", True, True), ("stay", False, False)]
)
def test_closing_slicer_asks(
    app: Any, panel: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decision: str, closes: bool, paused: bool
) -> None:
    from MedDiffFMLib.core.file_lock import locked
    from MedDiffFMLib.training.finetune.background import LOCK_FILE

    asked: list[str] = []
    panel.ui.runPathLineEdit.currentPath = str(tmp_path)
    panel._closeQuestion._ask = lambda: asked.append(decision) or decision
    window = app.main_window
    window.show()
    assert window.close() and not asked  # nothing goes on: no question
    window.show()
    with locked(tmp_path, LOCK_FILE):
        assert window.close() is closes
    assert asked == [decision]
    assert (tmp_path / "stop").exists() is paused


@pytest.mark.slow
def test_the_question_has_three_answers(app: Any, module: Any) -> None:
    from MedDiffFMGui.panels import closeQuestion
    from PySide6 import QtCore, QtWidgets

    answers = []
    for text in ("Keep training", "Stop, resume later", "Cancel"):

        def click(text: str = text) -> None:
            box = QtWidgets.QApplication.activeModalWidget()
            assert isinstance(box, QtWidgets.QMessageBox)
            next(button for button in box.buttons() if button.text().replace("&", "") == text).click()

        QtCore.QTimer.singleShot(200, click)
        answers.append(closeQuestion.askUser())
    assert answers == [closeQuestion.KEEP, closeQuestion.PAUSE, closeQuestion.STAY]


def test_time_is_given_back(app: Any, panel: Any) -> None:
    """A look at a training takes no noticeable time in Slicer's own thread."""
    begin = time.process_time()
    panel._onTick()
    assert time.process_time() - begin < 0.1


def test_the_curve_of_a_long_training_costs_no_time(app: Any, panel: Any) -> None:
    """Ten thousand steps are drawn as a thousand points, and the next one is there at once."""
    import time

    losses = np.random.default_rng(0).normal(1, 0.3, 10_000) + np.linspace(1, 0, 10_000)
    lines = [{"state": "training", "step": step, "loss": loss} for step, loss in enumerate(losses.tolist())]
    chart = panel._chart
    chart.add(lines[:-1])
    chart.show("loss", panel.ui.curvePlotWidget)
    view = panel.ui.curvePlotWidget.plotView()._target
    view.ranges = [(0, 1), (0, 1)]  # as the first points have left them
    begin = time.thread_time()
    chart.add(lines[-1:])
    chart.show("loss", panel.ui.curvePlotWidget)
    assert time.thread_time() - begin < 0.05
    assert view.ranges is None  # fitted anew
    points = chart.values("loss")
    assert 500 <= len(points) <= 1000 and [step for step, _ in points] == sorted({step for step, _ in points})
    assert points[-1] == (9999, pytest.approx(np.median(losses[-25:])))
    assert points[0][1] == pytest.approx(np.median(losses[max(points[0][0] - 24, 0) : points[0][0] + 1]))


def test_more_changes_what_is_trained_and_names_that_look_alike_are_asked_about(
    app: Any, panel: Any, dataset: Path
) -> None:
    from MedDiffFMLib.training.finetune.config import settings

    panel.ui.datasetPathLineEdit.currentPath = str(dataset)
    assert panel.request().changes == {}
    panel.ui.trainStepsSpinBox.value = 700
    panel.ui.learningRateSpinBox.value = 2e-4
    panel.ui.flipCheckBox.checked = True  # of a segmentation, which is not chosen yet
    assert panel.request(batch=1).changes == {"steps": 700, "learning_rate": 2e-4, "batch": 1}
    panel.ui.trainTaskComboBox.currentIndex = panel.ui.trainTaskComboBox.findData("segmentation")
    changes = panel.request().changes
    assert settings("segmentation", "small", **changes).options["flip"] and changes["steps"] == 700
    assert panel._cases._alike("p7") == [] == panel._cases._alike("other")  # too short to tell
    names = ["thorax_1", "thorax_2"]
    panel._cases._scan = lambda: ([SimpleNamespace(name=names[0])], {})
    assert "same patient as thorax_1" in panel._cases._alike(names[1])[0]


@pytest.mark.slow
def test_trainings_are_listed_and_a_finished_segmentation_is_tried(panel: Any, dataset: Path, tmp_path: Path) -> None:
    from dataclasses import asdict

    from MedDiffFMLib.training.finetune.background import Request

    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        asked = Request(data=str(dataset), task="segmentation", name=name)
        (tmp_path / name / "request.json").write_text(json.dumps(asdict(asked)))
        done = {"state": "done", "step": 3, "steps": 3, "model": f"{name}-model"}
        (tmp_path / name / "progress.jsonl").write_text(json.dumps(done) + "\n")
        panel.ui.runPathLineEdit.currentPath = str(tmp_path / name)
    combo = panel.ui.trainingsComboBox
    assert [combo.itemText(n) for n in range(combo.count)] == ["another training", "first", "second"]
    combo.currentIndex = 1
    assert panel.folder == str(tmp_path / "first") and panel.ui.modelNameLineEdit.text == "first"
    tried: list[str] = []
    panel.onTry = tried.append
    assert not panel.ui.tryModelButton.isHidden()
    panel.ui.tryModelButton.click()
    assert tried == ["first-model"]


@pytest.mark.slow
def test_while_a_training_goes_on_its_progress_is_on_top(panel: Any, dataset: Path, monkeypatch: Any) -> None:
    from MedDiffFMGui.panels.trainingWords import runningText

    panel.ui.datasetPathLineEdit.currentPath = str(dataset)
    assert panel.ui.casesTableWidget.visible or not panel.ui.casesTableWidget.isHidden()
    monkeypatch.setattr(panel, "isTraining", lambda: True)
    panel.update()
    assert panel.ui.casesTableWidget.isHidden() and panel.ui.recipeWidget.isHidden()
    line = {"state": "training", "step": 4, "figures": {"dice": 0.8, "dice_lung": 0.91}}
    assert "not validated yet" in runningText(line) and "lung: 0.91" in runningText(line)
    monkeypatch.undo()
    panel.update()
    assert not panel.ui.casesTableWidget.isHidden()
