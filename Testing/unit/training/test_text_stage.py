"""The stage that reads facts, by its command, on six small patients: whole, again, refused, and what it then says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import MedDiffFMLib as mdf
from MedDiffFMLib.cli import main
from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.core.file_hash import file_sha256
from MedDiffFMLib.datasets.prepared_cases import Case, Level
from MedDiffFMLib.multimodal.fact_reader import load_reader
from MedDiffFMLib.training.loss_plot import read_table
from MedDiffFMLib.training.multimodal import align, box_pool, text, whole_mrs

PATIENTS = "ABCDEF"


def leg(patient: str) -> Case:
    """A leg of 140 mm with a rim of fat and a bone, on voxels of 4 mm."""
    j, i = (4.0 * (np.arange(40) - 19.5)[:, None], 4.0 * (np.arange(40) - 19.5)[None])
    plane = np.full((40, 40), -1000.0)
    for radius, value in ((70, -100), (52, 50), (14, 700)):
        plane[i**2 + j**2 < radius**2] = value
    hounsfield = plane + np.random.default_rng(0).normal(0, 8, (36, 40, 40))
    level = Level(np.rint(hounsfield).astype(np.int16), None, np.full(3, 4.0), np.zeros(3))
    return Case(patient, patient, "", (level,), (np.zeros(3), np.array(hounsfield.shape) * 4.0))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run with the boxes and MRs of one leg, kept as those of six patients: making them takes longest."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(box_pool, "BOXES", (4, 4))
        boxes = box_pool.boxes_of_case(leg("A"), folder / "made")
    mr, *_ = whole_mrs.whole_mrs([leg("A")], folder / "mrs")
    for name in PATIENTS:
        box_pool._store(folder / "boxes" / name, replace(boxes, name=name, patient=name))
        whole_mrs._store(folder / "mrs" / f"{name}.npz", [replace(mr, name=name, patient=name)])
    return folder


@pytest.fixture(autouse=True)
def cases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five patients to train on, one who judges."""

    def opened(cache: Path, split: str) -> list[Case]:
        few = {"training": PATIENTS[: 4 if cache.name == "few" else 5], "validation": PATIENTS[5:]}
        return [leg(name) for name in few[split]]

    monkeypatch.setattr(text, "open_cases", opened)
    monkeypatch.setattr(align, "open_cases", opened)


def command(run: Path, *more: str, cache: str = "cache") -> int:
    return main(
        ["multimodal", "train", cache, "-o", str(run), "--stage", "text", "--steps", "4", "--batch", "4", *more]
    )


@pytest.mark.slow
def test_the_command_trains_calibrates_and_says_nothing_of_five_patients(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(run, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    path = run / "text" / "model.safetensors"
    assert answer["sha256"] == file_sha256(path) and answer["steps"] == 4
    assert np.isfinite(read_table(run / "text" / "losses.csv")["loss"]).all()
    figures = json.loads((run / "text" / "reading.json").read_text())
    row = figures["calibration"]["mr"]["gas"]
    assert (row["images"], row["patients"], row["said"]) == (5, 5, 0)
    assert figures["calibration"]["xray"]["body_mass.mass"]["images"] == 5 * 4 * 3, "three views"
    assert figures["validation"]["xray"]["gas"]["patients"] == 1 and len(figures["halves"]["mr"]) == 2
    reader = load_reader(path)
    assert not any((*rules.words, *rules.numbers) for rules in reader.rules.values()), "five are too few"

    assert command(run) == 0, "the same command again"
    again = load_reader(path)
    assert again.rules == reader.rules and again.standing.as_record() == reader.standing.as_record()
    for name, tensor in reader.network.state_dict().items():
        assert torch.equal(tensor, again.network.state_dict()[name]), "makes the same reader"
    assert command(run, "--seed", "1") == InputError.exit_code, "another run's folder"

    pixels = np.zeros((1, 100, 100), np.float32)
    pixels[0, 20:80, 20:80] = 3.0
    said = mdf.describe(mdf.Volume(pixels, np.diag([-1.0, -1, 1, 1]), "XR"), modality="xray", reader=str(path))
    assert not said.facts["facts"] and len(said.facts["not_assessed"]) == 9


@pytest.mark.slow
def test_fewer_patients_than_folds_are_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("boxes", "mrs"):
        (tmp_path / name).symlink_to(run / name)
    assert command(tmp_path, cache="few") == InputError.exit_code
    assert "has 4 training patients; 5 are the fewest" in capsys.readouterr().err
    assert not (tmp_path / "text" / "model.safetensors").exists()
