"""The contract of tasks: what the table declares fits together, and all of it reaches every door.

A toy takes a CT, an MR on a grid of its own and a text, and gives a radiograph (a plane that stands in space), an MR,
points and a text.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import MedDiffFMLib as mdf
from MedDiffFMLib.cli import main
from MedDiffFMLib.runner.case import load_case
from MedDiffFMLib.runner.case_files import CaseFiles
from MedDiffFMLib.runner.settings import RunSettings
from MedDiffFMLib.tasks.base import Case, Run, Task
from MedDiffFMLib.tasks.parameters import describe
from MedDiffFMLib.tasks.registry import TASKS
from MedDiffFMLib.worker.exchange import RunRequest
from MedDiffFMLib.worker.transport import WorkerClient
from Testing.unit.tasks.toy.recipe import toy
from Testing.unit.tasks.toy.spec import Toy

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "toy", Toy)


@pytest.fixture(scope="module")
def mr() -> mdf.Volume:
    """Signal on an oblique grid of its own, one voxel brighter than all others."""
    voxels = np.random.default_rng(1).integers(0, 400, (9, 12, 10)).astype(np.int16)
    voxels[4, 6, 3] = 900
    matrix = np.array([[-6.0, 0, 0, 40], [0, 0, -7.0, 30], [0, 5.0, 0, -240], [0, 0, 0, 1]])
    return mdf.Volume(voxels, matrix, "MR")


@pytest.fixture(scope="module")
def mr_file(mr: mdf.Volume, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mr") / "chest.nrrd"
    mdf.write_volume(mr, path)
    return path


@pytest.fixture(scope="module")
def expected(small_ct: mdf.Volume, mr: mdf.Volume) -> Any:
    """What the recipe itself gives; it asks no model."""
    return toy(Toy(gain=2.0), Case(small_ct, scans={"mr": mr}, texts={"prompt": "Größe"}), Run(None))  # type: ignore[arg-type]


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_declaration_fits_together(task: type[Task]) -> None:
    """No name stands for two things; every default is allowed; outputs of tables have columns, and only they."""
    own = [field.name for field, _ in describe(task)]
    reserved = ["model", "seed", "region", "progress", "cancel", "device", "precision", "threads", "whole", "input"]
    named = [*own, *task.inputs.modalities, *(text.name for text in task.inputs.texts), *reserved]
    assert len(set(named)) == len(named)
    assert len({output.name for output in task.outputs}) == len(task.outputs)
    assert all(bool(output.columns) == (output.kind.suffix == ".csv") for output in task.outputs)
    assert dataclasses.asdict(task()) == {field.name: field.default for field, _ in describe(task)}
    assert task.needs is None or task.needs.parameter in own
    assert task.__module__.endswith(f"{task.name}.spec")


def test_a_value_outside_its_limits_makes_no_task() -> None:
    with pytest.raises(mdf.InputError, match="gain is 11"):
        Toy(gain=11.0)


@pytest.mark.slow
def test_command_line_batch_and_repeat(
    expected: Any,
    small_ct_file: Path,
    mr_file: Path,
    tiny_model_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Files for all that the toy gives, the plane where it stands; a list of cases with a text each; the same again."""
    common = ["--gain", "2", "--model", str(tiny_model_file), "--device", "cpu", "--quiet"]
    inputs = ["--mr", str(mr_file), "--prompt", "Größe"]
    assert main(["toy", str(small_ct_file), *inputs, "-o", str(tmp_path), *common]) == 0
    plane = mdf.read_volume(tmp_path / "chest_toy.nrrd", "XR")
    assert plane.voxels.shape[0] == 1 and np.array_equal(plane.voxels, expected.volumes["shadow"])
    assert np.allclose(plane.ijk_to_ras, expected.ijk_to_ras["shadow"])
    assert (tmp_path / "chest_toy_answer.txt").read_text(encoding="utf-8") == expected.texts["answer"]
    with open(tmp_path / "chest_toy_places.csv", encoding="utf-8") as stream:
        assert [row["name"] for row in csv.DictReader(stream)] == ["Größe"]
    report = json.loads((tmp_path / "chest_toy.json").read_text(encoding="utf-8"))
    assert report["texts"] == {"prompt": "Größe"} and set(report["inputs"]) == {"volume", "mr"}
    assert list(report["outputs"]) == ["shadow", "bright", "places", "answer", "shadow_png"]
    assert main(["repeat", str(tmp_path / "chest_toy.json")]) == 0

    (tmp_path / "list.csv").write_text(f"input,mr,prompt\n{small_ct_file},{mr_file},A\n", encoding="utf-8")
    batch = ["toy", "--batch", str(tmp_path / "list.csv"), "-o", str(tmp_path / "out"), *common, "--json"]
    for status in ("done", "skipped"):
        capsys.readouterr()
        assert main(batch) == 0 and json.loads(capsys.readouterr().out)["cases"][0]["status"] == status
    assert (tmp_path / "out" / "chest_toy_answer.txt").read_text().startswith("A is at")
    folders = ["--mr", str(mr_file.parent), "--prompt", "B", "--overwrite"]
    assert main(["toy", "--batch", str(small_ct_file), "-o", str(tmp_path / "out"), *folders, *common]) == 0
    assert (tmp_path / "out" / "chest_toy_answer.txt").read_text().startswith("B is at")


def test_python(expected: Any, small_ct: mdf.Volume, mr_file: Path, tiny_model_file: Path) -> None:
    result = mdf.toy(small_ct, tiny_model_file, mr=mr_file, prompt="Größe", gain=2.0)  # type: ignore[attr-defined]
    assert np.array_equal(result.volumes["shadow"].voxels, expected.volumes["shadow"])
    assert (result.volumes["shadow"].modality, result.volumes["bright"].modality) == ("XR", "MR")
    assert np.array_equal(result.volumes["bright"].ijk_to_ras, expected.ijk_to_ras["bright"])
    assert result.texts == expected.texts and result.table == expected.tables["places"]
    assert "prompt: What to call the brightest place." in (mdf.toy.__doc__ or "")  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs a program that is a script")
def test_worker(expected: Any, small_ct: mdf.Volume, mr: mdf.Volume, tiny_model_file: Path, tmp_path: Path) -> None:
    """Over a pipe and files, in another process; what is refused there is refused in the same words."""
    with WorkerClient(str(toy_python(tmp_path))) as worker:
        settings = RunSettings("toy", {"gain": 2.0}, model=str(tiny_model_file), device="cpu")
        scans, texts = {"mr": (mr.voxels, mr.ijk_to_ras)}, {"prompt": "Größe"}
        result = worker.run(RunRequest(settings, small_ct.voxels, small_ct.ijk_to_ras, scans=scans, texts=texts))
        for name, array in expected.volumes.items():
            assert np.array_equal(result.volumes[name], array)
            assert np.allclose(result.ijk_to_ras[name], expected.ijk_to_ras[name])
        assert (result.texts, result.tables) == (expected.texts, expected.tables)
        assert set(result.report["inputs"]) == {"volume", "mr"}
        with pytest.raises(mdf.InputError, match=r"toy needs an MR \(mr\). Give one with --mr."):
            worker.run(RunRequest(settings, small_ct.voxels, small_ct.ijk_to_ras, texts=texts))


def toy_python(folder: Path) -> Path:
    """A program that takes a worker's arguments and knows the toy."""
    program, worker = folder / "python", ROOT / "Testing" / "unit" / "tasks" / "toy" / "worker.py"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" "{worker}"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


@pytest.mark.parametrize(
    "given, words",
    [
        ({}, "missing a required argument: 'mr'"),
        ({"mr": None, "prompt": "x"}, r"toy needs an MR \(mr\)"),
        ({"mr": "ct", "prompt": "x"}, "do not look like MR"),
        ({"mr": "mr"}, "missing a required argument: 'prompt'"),
        ({"mr": "mr", "prompt": 3}, "prompt is 3. Give a text."),
        ({"mr": "mr", "prompt": "x", "old_ct": "mr"}, "marked as MR, not as CT"),
        ({"mr": "mr", "prompt": "x", "mask": 1}, "no parameter 'mask'"),
    ],
)
def test_inputs_are_checked_by_their_modality(given: dict[str, Any], words: str, small_ct: Any, mr: Any) -> None:
    volumes = {"ct": dataclasses.replace(small_ct, modality="MR"), "mr": mr}
    with pytest.raises(mdf.InputError, match=words):
        mdf.toy(small_ct, **{name: volumes.get(value, value) for name, value in given.items()})  # type: ignore[attr-defined]


def test_an_input_that_a_task_does_not_know_is_refused(small_ct_file: Path) -> None:
    with pytest.raises(mdf.InputError, match="denoise has no input 'mr'. Known are: volume, anatomy."):
        load_case(CaseFiles(small_ct_file, scans={"mr": small_ct_file}), "denoise")
