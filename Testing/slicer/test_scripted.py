"""Runs from the Python console: blocking, with a callback, over a sequence and over a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def logic(app: Any, module: Any, fake_python: Path) -> Iterator[Any]:
    """A logic without a panel, with the fake worker."""
    from MedDiffFMGui.worker.workerPython import WorkerPython

    choice = WorkerPython()
    choice.useOther, choice.otherPath = True, str(fake_python)
    made = module.MedDiffFMLogic()
    yield made
    made.stop()


def array(app: Any, node: Any) -> np.ndarray:
    return app.slicer.util.arrayFromVolume(node)


@pytest.mark.slow
def test_blocking_run_gives_nodes_and_turns_the_event_loop(app: Any, logic: Any, ct: Any) -> None:
    from PySide6 import QtCore

    ticks: list[int] = []
    timer = QtCore.QTimer()
    timer.timeout.connect(lambda: ticks.append(1))
    timer.start(20)
    run = logic.run("denoise", ct)
    timer.stop()
    assert np.array_equal(array(app, run.volumes["denoised"]), array(app, ct) * 0.5)
    assert list(run.volumes) == ["denoised", "noise"] and run.main.GetName() == "thorax denoised"
    assert run.reportNode.GetText().startswith("{") and run.seconds > 0
    assert len(ticks) > 5


@pytest.mark.slow
def test_a_failure_is_raised_and_the_next_run_works(app: Any, logic: Any, ct: Any) -> None:
    from MedDiffFMLib.core.errors import Cancelled, MedDiffFMError

    with pytest.raises(MedDiffFMError, match="crashed"):
        logic.run("denoise", ct, parameters={"behave": "crash"})
    outcomes: list[Any] = []
    assert logic.run("denoise", ct, callback=outcomes.append) is None
    with pytest.raises(MedDiffFMError, match="Another run"):
        logic.run("denoise", ct)
    logic.cancel()
    app.wait(lambda: outcomes)
    assert isinstance(outcomes[0], Cancelled)
    logic.run("denoise", ct, callback=outcomes.append)
    app.wait(lambda: len(outcomes) == 2)
    assert outcomes[1].main.GetName() == "thorax denoised"


@pytest.mark.slow
def test_sequence_gives_a_sequence(app: Any, logic: Any, ct: Any) -> None:
    """Each item in its turn; nothing else stays in the scene."""
    slicer = app.slicer
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "breathing")
    sequence.SetIndexName("phase")
    for phase in (0, 50):
        item = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "item")
        item.CopyOrientation(ct)
        slicer.util.updateVolumeFromArray(item, array(app, ct) + phase)
        sequence.SetDataNodeAtValue(item, str(phase))
        slicer.mrmlScene.RemoveNode(item)
    results = logic.run("denoise", sequence)
    assert results.GetNumberOfDataNodes() == 2 and results.GetIndexName() == "phase"
    for index, phase in enumerate((0, 50)):
        assert results.GetNthIndexValue(index) == str(phase)
        assert np.array_equal(array(app, results.GetNthDataNode(index)), (array(app, ct) + phase) * 0.5)
    names = [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")]
    assert names == ["thorax"]
    assert not slicer.util.getNodesByClass("vtkMRMLTextNode")


@pytest.mark.slow
def test_a_list_gives_a_list(app: Any, logic: Any, ct: Any) -> None:
    """One after the other; a CT that cannot be done does not stop the others, and cancelling ends all."""
    from MedDiffFMLib.core.errors import Cancelled, MedDiffFMError

    slicer = app.slicer
    second = slicer.util.addVolumeFromArray(array(app, ct) + 50, name="second")
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "nothing")
    runs = logic.run("denoise", [ct, second])
    assert [run.main.GetName() for run in runs] == ["thorax denoised", "second denoised"]
    assert np.array_equal(array(app, runs[1].main), array(app, second) * 0.5)
    with pytest.raises(MedDiffFMError, match="nothing: This volume has no voxels"):
        logic.run("denoise", [empty, ct])
    assert slicer.mrmlScene.GetFirstNodeByName("thorax denoised_1")
    outcomes: list[Any] = []
    assert logic.run("denoise", [ct, second], callback=outcomes.append) is None
    logic.cancel()
    app.wait(lambda: outcomes)
    assert isinstance(outcomes[0], Cancelled) and not logic.running
    logic.run("denoise", [ct, second], callback=outcomes.append)
    logic.stop()  # Slicer ends: no other run begins
    for _ in range(20):
        slicer.app.processEvents()
    assert logic._worker is None


@pytest.mark.slow
def test_folder_to_folder(
    app: Any, module: Any, small_ct_file: Path, tiny_model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library's batch in a process of its own; a case that cannot be done is named."""
    import json
    import shutil

    from MedDiffFMLib.core.errors import MedDiffFMError

    monkeypatch.setattr(app.slicer.packaging, "pip_check", lambda requirement: True)
    logic, lines = module.MedDiffFMLogic(), []
    source, target = tmp_path / "cases", tmp_path / "results"
    source.mkdir()
    shutil.copy(small_ct_file, source / "chest.nrrd")
    choices = {"model": str(tiny_model_file), "parameters": {"strength": 0.5}, "device": "cpu"}
    choices |= {"precision": "float32", "threads": 1}
    logic.runFolder("denoise", source, target, onLine=lines.append, **choices)
    assert (target / "chest_denoise.nrrd").exists() and (target / "chest_denoise.json").exists()
    report = json.loads((target / "chest_denoise.json").read_text())
    assert report["precision"] == "float32" and report["threads"] == 1
    (source / "broken.nrrd").write_text("no image")
    with pytest.raises(MedDiffFMError, match="could be done"):
        logic.runFolder("denoise", source, target, onLine=lines.append, **choices)
    assert any("broken" in line for line in lines)


def test_what_was_mistyped_is_answered_with_what_there_is(app: Any, logic: Any, ct: Any) -> None:
    from MedDiffFMLib.core.errors import InputError

    with pytest.raises(InputError, match="no task 'denois'. Known are: anomaly, denoise"):
        logic.run("denois", ct)
    with pytest.raises(InputError, match="takes no 'sead'. It takes mask, .*seed"):
        logic.run("denoise", ct, sead=1)
    with pytest.raises(InputError, match="mask=getNode"):
        logic.run("inpaint", ct)


def test_help_lists_tasks_and_parameters(logic: Any, capsys: Any) -> None:
    from MedDiffFMLib.tasks.registry import TASKS

    logic.help()
    listed = capsys.readouterr().out
    assert all(name in listed for name in TASKS)
    logic.help("inpaint")
    said = capsys.readouterr().out
    assert "mask: segmentation node, required" in said and "feather = 1.5 (0 to 20 mm)" in said and "seed = 0" in said


@pytest.mark.slow
def test_progress_is_told_and_ends(app: Any, logic: Any, ct: Any) -> None:
    told: list[tuple[float, str]] = []
    logic.run("denoise", ct, progress=lambda fraction, stage, left: told.append((fraction, stage)))
    assert ("reconstructing") in {stage for _, stage in told} and [f for f, _ in told] == sorted(f for f, _ in told)
    count = len(told)
    outcomes: list[Any] = []
    logic.run("denoise", ct, callback=outcomes.append, progress=lambda *given: told.append(given[:2]))
    app.wait(lambda: outcomes)
    assert len(told) > count and len(logic._listeners) == 0


@pytest.mark.slow
def test_a_second_logic_takes_the_first_one_s_idle_worker(app: Any, module: Any, logic: Any, ct: Any) -> None:
    logic.run("denoise", ct)
    process = logic._worker.processId
    with module.MedDiffFMLogic() as other:
        other.run("denoise", ct)
        assert other._worker.processId == process and logic._worker is None
    app.wait(lambda: logic.run("denoise", ct) is not None)
