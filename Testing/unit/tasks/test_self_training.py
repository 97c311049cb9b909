"""Thin slices learned from the scan's own: nearer to the truth, with the measured averages, or not used."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.core.progress import ProgressMeter
from MedDiffFMLib.imaging.slice_averaging import average_blocks, smooth_blocks
from MedDiffFMLib.tasks.super_resolve import self_training
from MedDiffFMLib.tasks.super_resolve.self_training import hindrance, learn_from_itself
from MedDiffFMLib.tasks.super_resolve.spec import SuperResolve

FACTORS = (4, 1, 1)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_training, "STEPS", 120)


def tissue(shape: tuple[int, int, int]) -> np.ndarray:
    """Two tissues with sharp borders between them, the same along all axes."""
    field = gaussian_filter(np.random.default_rng(5).standard_normal(shape), 4)
    return np.where(field > 0, 60, -900).astype(np.float32)


def learned(thick: np.ndarray, seed: int = 0) -> self_training.SelfTrained:
    return learn_from_itself(thick, FACTORS, seed, torch.device("cpu"), ProgressMeter(1))


@pytest.mark.slow
def test_sharp_borders_are_learned_from_within_the_slices() -> None:
    """A decibel and more nearer to the truth than the smooth curve; averages stay; the same seed, the same bits."""
    truth = tissue((80, 80, 80))
    thick = average_blocks(truth, FACTORS)
    smooth, found = smooth_blocks(thick, FACTORS), learned(thick)
    assert found.detail is not None
    errors = [float(np.square(image - truth).mean()) for image in (smooth, smooth + found.detail)]
    assert 10 * np.log10(errors[0] / errors[1]) > 1 and found.gain > 1
    assert np.abs(average_blocks(found.detail, FACTORS)).max() < 0.01
    assert np.array_equal(found.detail, learned(thick).detail)


@pytest.mark.slow
def test_what_the_smooth_curve_has_already_is_left_alone() -> None:
    """Whatever a network answers can only be wrong where nothing changes."""
    found = learned(np.full((16, 64, 64), -300, np.float32))
    assert found.detail is None and found.gain <= 0


@pytest.mark.parametrize(
    ("spacing", "factors", "shape", "words"),
    [
        ((5.0, 0.8, 0.8), (6, 1, 1), (40, 256, 256), ""),
        ((0.9, 5.0, 0.8), (1, 6, 1), (256, 40, 256), ""),
        ((5.0, 0.8, 0.8), (2, 2, 2), (40, 256, 256), "not halved voxels"),
        ((5.0, 2.0, 2.0), (5, 1, 1), (40, 256, 256), "do not show what slices of 1 mm look like"),
        ((5.0, 0.8, 0.8), (6, 1, 1), (40, 20, 256), "too small"),
    ],
)
def test_scans_that_cannot_teach_themselves_are_told_why(
    spacing: tuple[float, float, float], factors: tuple[int, int, int], shape: tuple[int, int, int], words: str
) -> None:
    said = hindrance(spacing, factors, shape)
    assert words in said and bool(said) == bool(words)


@pytest.mark.parametrize("more", [{"mode": "isotropic"}, {"steps": 5}])
def test_tuning_is_refused_where_it_means_nothing(more: dict[str, object]) -> None:
    with pytest.raises(InputError):
        SuperResolve(tune=True, **more).check_together()  # type: ignore[arg-type]
