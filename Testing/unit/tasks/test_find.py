"""Search by words: a map on the scan's grid, places in patient coordinates, a ranking of a folder."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

import MedDiffFMLib as mdf
from MedDiffFMLib.cli import main
from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.multimodal.aligned import AlignedEncoders, save_encoders

PROMPT = "nodule in the right upper lobe"


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Untrained ones."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("encoders") / "encoders.safetensors"
    save_encoders(path, AlignedEncoders(), {})
    return str(path)


@pytest.mark.slow
def test_the_map_lies_on_the_scan_however_that_is_stored(small_ct: mdf.Volume, encoders: str) -> None:
    result = mdf.find(small_ct, prompt=PROMPT, places=2, encoders=encoders)
    turned = mdf.Volume(
        np.ascontiguousarray(small_ct.voxels.transpose(2, 0, 1)[::-1]), small_ct.ijk_to_ras @ _turn(small_ct)
    )
    again = mdf.find(turned, prompt=PROMPT, places=2, encoders=encoders)
    likeness = result.volumes["likeness"].voxels
    assert likeness.shape == small_ct.voxels.shape and float(np.abs(likeness).max()) <= 1
    assert np.allclose(again.volumes["likeness"].voxels, likeness.transpose(2, 0, 1)[::-1], atol=1e-4)
    assert again.tables["places"] == result.tables["places"]
    assert "right, upper third" in result.texts["understood"]


def _turn(volume: mdf.Volume) -> np.ndarray:
    """Index (i, j, k) of the turned copy -> index of the volume."""
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1
    matrix[1, 0] = 1  # new i was j
    matrix[2, 1] = 1  # new j was k
    matrix[0, 2], matrix[0, 3] = -1, volume.voxels.shape[2] - 1  # new k was i, reversed
    return matrix


@pytest.mark.slow
def test_a_folder_is_ranked(small_ct_file: Path, tmp_path: Path, encoders: str) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    for name in ("a", "b"):
        (scans / f"{name}{small_ct_file.suffix}").write_bytes(small_ct_file.read_bytes())
    arguments = ["find", "--batch", scans, "--prompt", PROMPT, "-o", tmp_path / "out", "--encoders", encoders]
    assert main([*map(str, arguments), "--device", "cpu", "--threads", "1"]) == 0
    with open(tmp_path / "out" / "ranking_find.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["rank"] for row in rows] == ["1", "2"] and {row["name"] for row in rows} == {"a", "b"}
    assert float(rows[0]["score"]) >= float(rows[1]["score"])


@pytest.mark.slow
def test_the_shipped_encoders_find_tissues(small_ct: mdf.Volume) -> None:
    """Where a text of fat or of lung is most likely, there is more of it than elsewhere in the body."""
    hounsfield = small_ct.voxels
    body = hounsfield > -950
    for prompt, low, high in (("60 % fat", -150, -50), ("right lung 2 l", -950, -500)):
        likeness = mdf.find(small_ct, prompt=prompt).volumes["likeness"].voxels
        best = body & (likeness >= np.quantile(likeness[body], 0.95))
        held = (hounsfield > low) & (hounsfield < high)
        assert held[best].mean() > held[body].mean() + 0.1, prompt


def test_words_that_no_fact_knows_are_not_looked_for(small_ct: mdf.Volume, encoders: str) -> None:
    with pytest.raises(InputError, match="Not understood: zebra"):
        mdf.find(small_ct, prompt="zebra", encoders=encoders)
