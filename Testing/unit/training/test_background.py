"""Training in a process of its own: request, lock, progress, pause, and going on after the starting program ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.core.file_lock import locked
from MedDiffFMLib.datasets.dataset_folder import Dataset
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.training.finetune import background
from MedDiffFMLib.training.finetune.background import LOCK_FILE, ProgressTail, Request, is_running, state_of
from MedDiffFMLib.worker.client import worker_environment


@pytest.fixture(autouse=True)
def leave_no_model(own_models: Path):
    """A model that is registered here must not be found by the tests that follow."""
    yield
    for file in own_models.iterdir():
        file.unlink()


@pytest.fixture(scope="module")
def dataset(small_ct: Volume, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two patients."""
    folder = tmp_path_factory.mktemp("data") / "cases"
    cases = Dataset.create(folder)
    for number, shift in enumerate((0, 7)):
        voxels = small_ct.voxels + np.random.default_rng(number).integers(0, 9, small_ct.voxels.shape, dtype=np.int16)
        cases.add(f"p{number}", Volume(np.roll(voxels, shift, 2), small_ct.ijk_to_ras), patient=f"p{number}")
    cases.split(0.5)
    return folder


def request(dataset: Path, model: Path, name: str = "tiny-sr", **changes: object) -> Request:
    settings = {"steps": 4, "batch": 1, "window": 16, "validate_every": 2, "checkpoint_every": 1, **changes}
    return Request(str(dataset), "super-resolution", "small", str(model), name, accelerator="cpu", changes=settings)


def begin(folder: Path, asked: Request) -> subprocess.Popen[bytes]:
    return background.start(folder, asked, sys.executable, worker_environment(os.environ))


def ended(process: subprocess.Popen[bytes], seconds: float = 120) -> int:
    return process.wait(timeout=seconds)


def write_lines(folder: Path, *lines: dict[str, object]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "progress.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.slow
def test_a_run_is_paused_goes_on_and_becomes_a_model(
    dataset: Path, tiny_model_file: Path, tmp_path: Path, own_models: Path
) -> None:
    """Pause at the first chance, resume in a second process, end where it is: the steps are not done twice."""
    folder = tmp_path / "run"
    process = begin(folder, request(dataset, tiny_model_file, steps=1000))
    while state_of(folder).step < 2 and process.poll() is None:
        time.sleep(0.05)
    assert is_running(folder) and state_of(folder).state == "running"
    with pytest.raises(InputError, match="going on"):
        begin(folder, request(dataset, tiny_model_file))
    background.pause(folder)
    assert ended(process) == 130, (folder / "training.log").read_text()
    paused = state_of(folder)
    assert paused.state == "paused" and paused.step >= 2 and not is_running(folder)

    asked = background.request_of(folder)
    assert asked is not None
    process = begin(folder, background.finish_request(folder))
    assert ended(process) == 0, (folder / "training.log").read_text()
    finished = state_of(folder)
    assert (finished.state, finished.model, finished.step) == ("finished", "tiny-sr", paused.step)
    assert (own_models / "tiny-sr.json").exists()


@pytest.mark.slow
def test_the_process_outlives_the_program_that_started_it(dataset: Path, tiny_model_file: Path, tmp_path: Path) -> None:
    """The starting program is killed with its whole process group, as a closed terminal does."""
    folder = tmp_path / "run"
    asked = vars(request(dataset, tiny_model_file, "tiny-orphan", steps=900))
    code = (
        "import os, sys, time; from MedDiffFMLib.training.finetune import background\n"
        f"background.start({str(folder)!r}, background.Request(**{asked!r}),"
        " sys.executable, os.environ); print('started', flush=True); time.sleep(60)"
    )
    environment = worker_environment(os.environ)
    parent = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, start_new_session=True
    )
    assert parent.stdout is not None and parent.stdout.readline() == b"started\n"
    if os.name == "nt":
        parent.kill()
    else:
        os.killpg(parent.pid, 9)
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 120
    while state_of(folder).step < 1:
        time.sleep(0.05)
        assert time.monotonic() < end, (folder / "training.log").read_text()
    assert is_running(folder)
    while is_running(folder):
        background.pause(folder)
        time.sleep(0.05)
        assert time.monotonic() < end
    assert state_of(folder).state == "paused"


@pytest.mark.slow
def test_data_that_cannot_be_trained_on_are_said(dataset: Path, tiny_model_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = begin(folder, request(tmp_path / "nothing", tiny_model_file, "tiny-none"))
    assert ended(process) not in (0, 130)
    found = state_of(folder)
    assert found.state == "failed" and "nothing" in found.message


def test_a_python_that_cannot_train_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "request.json").write_text(json.dumps({"data": "x", "task": "lesion"}))
    (folder / "training.log").write_text("Traceback\nModuleNotFoundError: No module named 'torch'\n")
    found = state_of(folder)
    assert found.state == "failed" and "torch" in found.message


def test_states_without_a_process(tmp_path: Path) -> None:
    assert state_of(tmp_path / "new").state == "none"
    killed = tmp_path / "killed"
    write_lines(killed, {"state": "training", "step": 7, "steps": 50}, {"state": "training", "step": 8})
    assert (state_of(killed).state, state_of(killed).step, state_of(killed).steps) == ("paused", 8, 50)
    with pytest.raises(InputError, match="No checkpoint"):
        background.finish_request(killed)
    asked = background.Request(data="cases", task="segmentation", changes={"batch": 1})
    (killed / "request.json").write_text(json.dumps(asdict(asked)))
    assert background.finish_request(killed).changes == {"batch": 1, "steps": 9}  # a step whose end is validated
    (killed / "best.safetensors").touch()
    assert background.finish_request(killed).changes["steps"] == 8


def test_lock_is_free_after_its_holder(tmp_path: Path) -> None:
    assert not is_running(tmp_path)
    with locked(tmp_path, LOCK_FILE):
        assert is_running(tmp_path)
        with pytest.raises(BlockingIOError), locked(tmp_path, LOCK_FILE, seconds=0.1):
            pass
    assert not is_running(tmp_path)


def test_tail_gives_new_lines_once_and_sees_a_new_beginning(tmp_path: Path) -> None:
    tail = ProgressTail(tmp_path)
    assert tail.new() == ([], False)
    path = tmp_path / "progress.jsonl"
    path.write_text('{"step": 1}\n{"step": 2')
    assert tail.new() == ([{"step": 1}], True)
    with open(path, "a") as stream:
        stream.write("}\n")
    assert tail.new() == ([{"step": 2}], False)
    assert tail.new() == ([], False)
    (tmp_path / "other").write_text('{"step": 1}\n')
    os.replace(tmp_path / "other", path)
    assert tail.new() == ([{"step": 1}], True)
