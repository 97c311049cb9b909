"""A task that the library gets is in the panel: a toy with a CT, an MR and a text in; a radiograph and a text out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from Testing.slicer.test_panel import composite, press
from Testing.unit.tasks.test_contract import toy_python
from Testing.unit.tasks.toy.spec import Toy


@pytest.fixture
def widget(app: Any, module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module's widget with the toy in the table, and a real worker that knows it."""
    from MedDiffFMGui.worker.workerPython import WorkerPython

    from MedDiffFMLib.tasks.registry import TASKS

    monkeypatch.setitem(TASKS, "toy", Toy)
    choice = WorkerPython()
    choice.useOther, choice.otherPath = True, str(toy_python(tmp_path))
    opened = app.open_widget(module)
    yield opened
    opened.cleanup()


@pytest.fixture
def mr(app: Any) -> Any:
    voxels = np.random.default_rng(1).integers(0, 400, (9, 12, 10)).astype(np.int16)
    voxels[4, 6, 3] = 900
    return app.slicer.util.addVolumeFromArray(voxels, np.diag([-6.0, -7.0, 5.0, 1.0]), "T1")


@pytest.mark.slow
def test_a_task_with_several_inputs_from_its_button_to_its_nodes(
    app: Any, widget: Any, small_ct: Any, mr: Any, tiny_model_file: Path
) -> None:
    slicer, ui = app.slicer, widget.ui
    ct = slicer.util.addVolumeFromArray(small_ct.voxels, small_ct.ijk_to_ras, "chest")
    ui.inputVolumeSelector.setCurrentNode(ct)
    widget.logic.getParameterNode().model = str(tiny_model_file)
    press(app, widget, "toy")
    assert (ui.taskSentenceLabel.text, ui.runButton.text) == (Toy.sentence, "Play")
    named = widget.taskPanel._forms["toy"].named
    assert ui.reasonLabel.text == "MR: Choose an MR volume first."
    named._selectors["mr"].setCurrentNode(ct)
    assert "do not look like MR" in ui.reasonLabel.text and not ui.runButton.enabled
    named._selectors["mr"].setCurrentNode(mr)
    assert ui.reasonLabel.text == "Write the text first: Prompt."
    named._edits["prompt"].text = "Spot"
    assert ui.runButton.enabled, ui.reasonLabel.text
    press(app, widget, "denoise")
    press(app, widget, "toy")
    assert named.texts() == {"prompt": "Spot"} and named.scans() == {"mr": mr}

    runs: list[Any] = []
    widget.logic.addListener(type("Heard", (), {"onFinished": lambda self, run: runs.append(run)})())
    ui.runButton.click()
    app.wait(lambda: not widget.logic.running, 60)
    assert runs, ui.runStatusLabel.text
    (run,) = runs
    shadow, bright = (slicer.util.arrayFromVolume(run.volumes[name]) for name in ("shadow", "bright"))
    assert np.array_equal(shadow, small_ct.voxels.mean(axis=1, dtype=np.float32)[None])
    assert run.main.GetImageData().GetDimensions()[2] == 1
    assert np.allclose(run.main.GetOrigin(), small_ct.ijk_to_ras[:3, 3])
    assert bright.max() == 1800 and run.volumes["bright"].GetName() == "chest bright"
    assert run.others["answer"].GetText() == run.texts["answer"] == "Spot is at R -18.0, A -42.0, S 20.0."
    assert run.texts["answer"] in ui.resultFactsLabel.text
    points = run.others["places"]
    assert points.GetNthControlPointLabel(0) == "Spot" and points.GetNthControlPointDescription(0) == "signal 900.0"
    assert points.GetNthControlPointPosition(0)[:] == (-18.0, -42.0, 20.0)
    assert composite(app).GetForegroundVolumeID() == run.main.GetID()
    ui.discardButton.click()
    gone = [*run.nodes, run.reportNode]
    assert not any(slicer.mrmlScene.IsNodePresent(node) for node in gone)


@pytest.mark.slow
def test_inputs_are_saved_with_the_scene(app: Any, widget: Any, ct: Any, mr: Any, tmp_path: Path) -> None:
    """And a scene of a version without them opens."""
    press(app, widget, "toy")
    named = widget.taskPanel._forms["toy"].named
    named._selectors["mr"].setCurrentNode(mr)
    named._edits["prompt"].text = "Spot"
    node = widget.logic.getParameterNode().parameterNode
    widget.exit()
    named._edits["prompt"].text, node_text = "", node.GetParameter("toy.prompt")
    assert node_text == "Spot" and node.GetNodeReference("toy.mr") is mr
    widget.enter()
    assert named.texts() == {"prompt": "Spot"} and named.scans() == {"mr": mr}


@pytest.mark.slow
def test_an_output_called_difference_is_the_one_that_is_shown(app: Any, widget: Any, ct: Any) -> None:
    """The view makes a difference only for a task that gives none."""
    from MedDiffFMGui.nodes.resultNodes import addResult

    from MedDiffFMLib.worker.exchange import WorkerResult

    half = app.slicer.util.arrayFromVolume(ct).astype(np.float32) / 2
    run = addResult("deblur", ct, WorkerResult({"deblurred": half, "difference": half.copy()}, {}, {}, {}, [], {}))
    widget.resultPanel.show(run)
    count = len(app.slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"))
    widget.compareView._choices["difference"].click()
    app.qt.processEvents()
    assert composite(app).GetForegroundVolumeID() == run.volumes["difference"].GetID()
    assert len(app.slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")) == count
    widget.resultPanel.clear()
