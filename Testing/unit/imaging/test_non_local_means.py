"""Non-local means against scikit-image's fast mode and a double-precision reference."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from skimage.restoration import denoise_nl_means

from MedDiffFMLib.imaging import non_local_means as module
from MedDiffFMLib.imaging.non_local_means import non_local_means

SIGMA = 30.0


def noisy(shape: tuple[int, int, int]) -> np.ndarray:
    """Waves and an edge of 400 HU with white noise, HU."""
    _, j, i = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    clean = 60 * np.sin(j / 7) * np.cos(i / 5) - 400 * (i > 0.7 * shape[2])
    return (clean + SIGMA * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)


def reference(plane: np.ndarray, strength: float) -> np.ndarray:
    """The definition, place by place, in float64."""
    rows, columns = plane.shape
    padded = np.pad(plane.astype(float), 8, mode="reflect")

    def moved(j: int, i: int) -> np.ndarray:
        return padded[8 + j : 8 + j + rows, 8 + i : 8 + i + columns]

    total, weighted = np.zeros(plane.shape), np.zeros(plane.shape)
    for j, i in product(range(-6, 7), repeat=2):
        near = product(range(-1, 3), repeat=2)
        squares = sum((moved(b, a) - moved(b + j, a + i)) ** 2 - 2 * SIGMA**2 for b, a in near)
        distance = np.maximum(squares, 0) / (25 * (strength * SIGMA) ** 2)
        weight = np.exp(-distance) * (distance <= 5)
        total, weighted = total + weight, weighted + weight * moved(j, i)
    return weighted / total


@pytest.mark.parametrize("strength", [0.6, 1.0, 1.7])
@pytest.mark.parametrize("shape", [(2, 40, 56), (1, 11, 9), (1, 3, 70)])
def test_it_is_the_definition_and_nearly_scikit_images(shape: tuple[int, int, int], strength: float) -> None:
    image = noisy(shape)
    cleaned = non_local_means(image, SIGMA, strength)
    exact = np.stack([reference(plane, strength) for plane in image])
    # A weight at the cutoff may fall to either side of it in float32; one of 170 then changes a pixel by little.
    assert cleaned.dtype == np.float32 and np.percentile(np.abs(cleaned - exact), 99) < 0.003
    assert np.abs(cleaned - exact).max() < 0.3
    theirs = [
        denoise_nl_means(plane, patch_size=5, patch_distance=6, h=strength * SIGMA, sigma=SIGMA, fast_mode=True)
        for plane in image
    ]
    assert np.sqrt(np.mean((cleaned - theirs) ** 2)) < 0.01 * SIGMA < 0.5 * np.std(image - cleaned)


def test_strips_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    image = noisy((2, 61, 33))
    whole = non_local_means(image, SIGMA)
    monkeypatch.setattr(module, "STRIP", 400)  # eight rows each
    assert np.array_equal(whole, non_local_means(image, SIGMA))
