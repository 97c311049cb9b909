"""Voxels that carry no tissue stay bit for bit in every task: padding, and what the network sees clipped only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from MedDiffFMLib.imaging.slice_averaging import average_blocks
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.models.checkpoint import FoundationModel, load_model
from MedDiffFMLib.tasks.anomaly.spec import Anomaly
from MedDiffFMLib.tasks.base import Case, Run
from MedDiffFMLib.tasks.denoise.spec import Denoise
from MedDiffFMLib.tasks.generate_lesion.spec import GenerateLesion
from MedDiffFMLib.tasks.inpaint.spec import Inpaint
from MedDiffFMLib.tasks.super_resolve.spec import SuperResolve
from MedDiffFMLib.training.pretrain.calibrate import CalibrationConfig, calibrate
from Testing.unit.tasks.test_generate_lesion import control as control

PADDING = -3024
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tiny_model_file: Path) -> FoundationModel:
    return load_model(str(tiny_model_file), device="cpu", precision="float32")


@pytest.fixture(scope="module")
def padded(small_ct: Volume) -> Volume:
    """The CT outside a cylinder as scanners pad it, with a hip implant in it."""
    j, i = np.ogrid[: small_ct.voxels.shape[1], : small_ct.voxels.shape[2]]
    outside = (j - 23.5) ** 2 + (i - 21.5) ** 2 > 21.5**2
    voxels = np.where(outside, PADDING, small_ct.voxels).astype(np.int16)
    voxels[18:24, 30:33, 20:24] = 3071
    return small_ct.with_voxels(voxels)


@pytest.fixture(scope="module")
def hole(padded: Volume) -> np.ndarray:
    """A mask over tissue, implant and padding."""
    mask = np.zeros(padded.voxels.shape, bool)
    mask[18:26, 30:, 18:26] = True
    return mask


@pytest.mark.parametrize("options", [{}, {"spacing": 4.0}, {"steps": 2}], ids=str)
def test_denoise(options: dict, model: FoundationModel, padded: Volume) -> None:
    result = Denoise(noise=20, **options).run(Case(padded), Run(model)).volumes
    carries_none = (padded.voxels < -1000) | (padded.voxels > 1000)
    assert np.array_equal(result["denoised"][carries_none], padded.voxels[carries_none])
    assert not result["noise"][carries_none].any() and result["noise"][~carries_none].any()


def test_anomaly(model: FoundationModel, padded: Volume, small_ct: Volume) -> None:
    config = CalibrationConfig(spacing=4.0, edges=(16.0,))
    calibrated = replace(model, calibration=calibrate(model.engine, [(small_ct, None, None)], config))
    healthy = Anomaly(threshold=0.5).run(Case(padded), Run(calibrated)).volumes["healthy"]
    carries_none = (padded.voxels < -1000) | (padded.voxels > 1000)
    assert np.array_equal(healthy[carries_none], padded.voxels[carries_none])
    assert (healthy != padded.voxels).any()


def test_inpaint_fills_the_implant_but_not_the_padding(
    model: FoundationModel, padded: Volume, hole: np.ndarray
) -> None:
    filling = Inpaint(steps=2, samples=1, spacing=3.0, feather=0.0)
    result = filling.run(Case(padded, mask=hole), Run(model)).volumes["inpainted"]
    keeps = ~hole | (padded.voxels == PADDING)
    assert np.array_equal(result[keeps], padded.voxels[keeps])
    implant = hole & (padded.voxels == 3071)
    assert implant.any() and result[implant].max() <= 1500


def test_generate_lesion(model: FoundationModel, control: Path, padded: Volume, hole: np.ndarray) -> None:
    lesion = np.zeros_like(hole)
    lesion[20:24, 33:, 18:26] = True
    wish = GenerateLesion(mean=60.0, steps=2, rim=8.0, control=str(control))
    result = wish.run(Case(padded, mask=lesion), Run(model)).volumes["with_lesion"]
    keeps = (padded.voxels == PADDING) | ((padded.voxels > 1000) & ~lesion)
    assert np.array_equal(result[keeps], padded.voxels[keeps]) and (result != padded.voxels)[lesion].any()


def test_super_resolve(model: FoundationModel, padded: Volume) -> None:
    thick = average_blocks(padded.voxels[:, :, :].astype(np.float32), (4, 1, 1)).round().astype(np.int16)
    matrix = padded.ijk_to_ras @ np.diag([1.0, 1.0, 4.0, 1.0])
    finer = SuperResolve(control="none", steps=1).run(Case(Volume(thick, matrix)), Run(model)).volumes["fine"]
    repeated = np.repeat(thick, 4, axis=0)
    assert np.array_equal(finer[repeated == PADDING], repeated[repeated == PADDING])
    assert finer[repeated != PADDING].min() >= -1300, "padding casts no shadow into the image beside it"
