"""Noise of a scan itself, told from the one image, against noise of known level and spectrum over anatomy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from MedDiffFMLib.evaluation.quality.added_noise import ramp_noise
from MedDiffFMLib.evaluation.quality.own_noise import own_noise

SHAPE, SPACING = (12, 96, 96), (1.0, 1.0, 2.0)


def white(fold: int = 1) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((SHAPE[0], SHAPE[1] * fold, SHAPE[2] * fold), dtype=np.float32)


SPECTRA: dict[str, Callable[[], np.ndarray]] = {
    "white": white,
    "ramp": lambda: ramp_noise(white(), SPACING),
    "ramp on pixels of half the edge, every second taken": lambda: ramp_noise(white(2), SPACING)[:, ::2, ::2],
    "smoothed ramp": lambda: gaussian_filter(ramp_noise(white(), SPACING), (0, 0.6, 0.6)),
    "ramp that neighboring slices share": lambda: gaussian_filter(ramp_noise(white(), SPACING), (0.7, 0, 0)),
}


@pytest.mark.parametrize("level", [8.0, 40.0])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_noise_is_told_whatever_its_spectrum(spectrum, level):
    """Vessels within organs, which go on from slice to slice, are no noise."""
    noise = SPECTRA[spectrum]()
    noise *= level / noise.std()
    k, j, i = np.indices(SHAPE)
    organs = np.where((j // 32 + i // 32) % 2, 60.0, -20.0) + 80 * (np.hypot(j % 32 - 16, i % 32 - 16) < 2)
    inside = (np.abs(j % 32 - 16) < 12) & (np.abs(i % 32 - 16) < 12)
    assert own_noise(np.rint(organs + noise), inside) == pytest.approx(level, rel=0.1)


def test_two_slices_tell_noise_of_a_ramp_filter():
    noise = ramp_noise(white(), SPACING)[:2]
    assert own_noise(20 * noise / noise.std(), np.ones(noise.shape, bool)) == pytest.approx(20, rel=0.05)
