"""Descriptions through every door: text, table, label map and report agree, and nothing is written without evidence."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import MedDiffFMLib as mdf
from MedDiffFMLib.cli import main
from MedDiffFMLib.core.errors import Cancelled
from MedDiffFMLib.core.progress import CancelToken
from MedDiffFMLib.core.resources import resource_folder
from MedDiffFMLib.multimodal.facts.grammar import read, write
from MedDiffFMLib.tasks.describe.recipe import HEADING


def run(*arguments: str | Path) -> int:
    return main(["describe", *map(str, arguments), "--device", "cpu", "--threads", "1"])


def test_files_agree(small_ct_file: Path, small_mask_file: Path, tmp_path: Path) -> None:
    assert run(small_ct_file, "--mask", small_mask_file, "-o", tmp_path) == 0
    heading, *lines = (tmp_path / "chest_describe.txt").read_text(encoding="utf-8").split("\n")
    assert heading == HEADING
    said = [read(line) for line in lines if line]
    assert all(said) and [write(one) for one in said if one] == [line for line in lines if line]

    report = json.loads((tmp_path / "chest_describe.json").read_text())
    facts, missing = report["facts"]["facts"], report["facts"]["not_assessed"]
    assert [one.kind for one in said if one] == [row["fact"] for row in (*facts, *missing)]
    assert any(fact["fact"].endswith("finding") for fact in facts), "the mask marks a place"
    with open(tmp_path / "chest_describe_facts.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["sentence"] for row in rows] == [fact["sentence"] for fact in facts]
    for row, fact in zip(rows, facts, strict=True):
        assert [float(row[f"{axis}_mm"]) for axis in "ras"] == fact["evidence"]["point_ras_mm"]
        assert 0.7 <= fact["certainty"] <= 1 and ("Probably" in fact["sentence"]) == (fact["certainty"] < 0.95)

    evidence = mdf.read_volume(tmp_path / "chest_describe_evidence.nrrd", modality="mask")
    assert set(np.unique(evidence.voxels)) - {0} == {row["value"] for row in report["facts"]["labels"]}


@pytest.mark.slow
def test_the_sample_is_described_as_readers_describe_it() -> None:
    """LIDC-IDRI-0001: chest with contrast agent; four readers saw a nodule of 24.6 mm on the left."""
    sample = resource_folder() / "SampleData" / "thorax_lidc0001.nrrd"
    sentences = mdf.describe(sample).texts["description"]
    for sentence in (
        "The scan shows the chest.", "The scan was taken with intravenous contrast agent.",
        "The slices are of medium thickness, 2.50 mm apart.",
    ):  # fmt: skip
        assert sentence in sentences
    (nodule,) = (line for line in sentences.splitlines() if "nodule candidate" in line)
    said = read(nodule)
    assert said is not None and said.values["side"] == "left" and said.values["size"] == pytest.approx(24.6, abs=3)
    sure = mdf.describe(sample, certainty=0.95).texts["description"]
    assert "Probably" not in sure and "Not assessed: nodule candidate (the signs contradict each other)." in sure


def test_what_cannot_be_described_is_refused(
    small_ct: mdf.Volume, small_ct_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(small_ct_file, "-o", tmp_path / "out", "--certainty", "0.2") == 2
    assert "certainty is 0.2" in capsys.readouterr().err
    mdf.write_volume(small_ct.with_voxels(small_ct.voxels + 1024), tmp_path / "shifted.nrrd")
    assert run(tmp_path / "shifted.nrrd", "-o", tmp_path / "out") == 2
    assert "do not look like CT" in capsys.readouterr().err
    other = mdf.Volume(np.ones((4, 5, 6), np.uint8), small_ct.ijk_to_ras, "mask")
    mdf.write_volume(other, tmp_path / "other.nrrd", mask=True)
    assert run(small_ct_file, "--anatomy", tmp_path / "other.nrrd", "-o", tmp_path / "out") == 2
    assert "another grid" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*"))


def test_it_can_be_cancelled(small_ct: mdf.Volume) -> None:
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(Cancelled):
        mdf.describe(small_ct, cancel=cancel)
