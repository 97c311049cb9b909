"""Estimates about MRs and X-rays: only what was calibrated is said, and nothing of images that are unlike those."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import MedDiffFMLib as mdf
from MedDiffFMLib.core.errors import InputError, ModelError
from MedDiffFMLib.core.file_hash import file_sha256
from MedDiffFMLib.core.resources import resource_folder
from MedDiffFMLib.models.catalogue import list_models
from MedDiffFMLib.multimodal.fact_flow import FactFlow
from MedDiffFMLib.multimodal.fact_reader import FactReader, Rules, load_reader, save_reader
from MedDiffFMLib.multimodal.fact_slots import NUMBERS, READ, Standing
from MedDiffFMLib.multimodal.facts.grammar import read
from MedDiffFMLib.multimodal.facts.kinds import EXPOSURE, LARGE, STRANGE

THIGH = resource_folder() / "SampleData" / "thigh_sts001_mrT1.nrrd"


@pytest.fixture
def reader(tmp_path: Path) -> Path:
    """One that was never trained, with rules that let it speak of gas and fat alone."""
    torch.manual_seed(0)
    rules = Rules({("gas", ""): 0.5}, {("fat", "share"): 0.01})
    standing = Standing({key: np.linspace(1, 90, 33) for key in NUMBERS})
    (encoders,) = list_models("encoders")
    path = tmp_path / "reader.safetensors"
    save_reader(path, FactReader(FactFlow(), standing, {"mr": rules, "xray": rules}, encoders.sha256), {})
    return path


@pytest.mark.slow
def test_of_an_mr_only_what_is_calibrated_is_said(reader: Path) -> None:
    found = mdf.describe(THIGH, modality="mr", reader=str(reader))
    assert {row["fact"] for row in found.facts["facts"]} == {"gas", "fat"}
    fat = next(row for row in found.facts["facts"] if row["fact"] == "fat")
    low, high = fat["interval"]["share"]
    assert (
        low <= fat["values"]["share"] <= high and fat["estimated"] and f"({low:.0f} to {high:.0f})" in fat["sentence"]
    )
    lines = found.texts["description"].splitlines()[2:]
    assert all(line.startswith("Estimated: ") or read(line) for line in lines)
    assert {row["fact"] for row in found.facts["not_assessed"]} >= {"region", "lungs", "bone"}
    body = np.asarray(found.volumes["evidence"].voxels)
    assert set(np.unique(body)) == {0, 1} and 0.2 < body.mean() < 0.95
    assert not mdf.describe(THIGH, modality="mr", reader=str(reader), certainty=0.95).facts["facts"]
    assert found.facts["reader"] == {"name": "reader", "sha256": file_sha256(reader)}


@pytest.mark.slow
def test_an_mr_of_another_kind_is_not_read(reader: Path) -> None:
    thigh = mdf.read_volume(THIGH, modality="MR")
    inverted = thigh.with_voxels(np.where(thigh.voxels > 0, thigh.voxels.max() - thigh.voxels, 0))
    found = mdf.describe(inverted, modality="mr", reader=str(reader))
    assert not found.facts["facts"] and {row["reason"] for row in found.facts["not_assessed"]} == {STRANGE}


@pytest.mark.parametrize("scale, pixel, reason", [(3.0, 1.0, ""), (200.0, 1.0, EXPOSURE), (3.0, 4.0, LARGE)])
def test_an_xray_is_read_where_it_is_one_of_a_piece(reader: Path, scale: float, pixel: float, reason: str) -> None:
    pixels = np.zeros((1, 160, 160), np.float32)
    pixels[0, 40:120, 50:110] = scale
    picture = mdf.Volume(pixels, np.diag([-pixel, -pixel, 1.0, 1.0]), "XR")
    found = mdf.describe(picture, modality="xray", reader=str(reader))
    assert bool(found.facts["facts"]) == (not reason)
    assert {row["reason"] for row in found.facts["not_assessed"]} == {reason or "the estimate is too uncertain"}


def test_what_cannot_be_estimated_is_refused(reader: Path, small_ct: mdf.Volume) -> None:
    with pytest.raises(InputError, match="marked as CT"):
        mdf.describe(small_ct, modality="mr", reader=str(reader))
    with pytest.raises(ModelError, match="no model called 'nobody'"):
        mdf.describe(THIGH, modality="mr", reader="nobody")


@pytest.mark.slow
def test_the_reader_that_ships_says_of_a_leg_and_of_a_block_what_it_may() -> None:
    """Of a real thigh nothing, which it was found not to know; of a block of water its mass, and nothing else."""
    shipped = next(iter(list_models("facts")))
    rules = load_reader(shipped.path).rules
    assert set(rules["mr"].words) == {("gas", "")} and not rules["mr"].numbers, "what its card says"
    assert set(rules["xray"].numbers) == {("body_mass", "mass")} and not rules["xray"].words
    thigh = mdf.describe(THIGH, modality="mr")
    assert not thigh.facts["facts"] and thigh.facts["strangeness"] < 1
    assert thigh.facts["reader"] == {"name": "facts-reader", "sha256": file_sha256(shipped.path)}
    assert {row["fact"] for row in thigh.facts["not_assessed"]} == {key[0] for key in READ["mr"]}

    block = np.full((44, 44, 44), -1000, np.int16)
    block[8:36, 8:36, 8:36] = 0  # 112 mm of water: 1.40 kg
    ct = mdf.Volume(block, np.diag([-4.0, -4.0, 4.0, 1.0]))
    for view in ("ap", "lat"):  # at their detectors, across the patient's axes
        (picture,) = mdf.radiograph(ct, views=view).volumes.values()
        found = mdf.describe(picture, modality="xray")
        (said,) = found.facts["facts"]
        low, high = said["interval"]["mass"]
        assert said["fact"] == "body_mass" and low <= 1.405 <= high and high - low <= 0.9
        assert found.volumes["evidence"].voxels.shape == picture.voxels.shape
