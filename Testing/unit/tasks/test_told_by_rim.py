"""What a hole holds, told from its rim: exact where the scan has a law, and nearer to the truth than bending."""

from __future__ import annotations

import numpy as np

from MedDiffFMLib.imaging.biharmonic import biharmonic_interpolation
from MedDiffFMLib.tasks.inpaint.told_by_rim import RIM, RimPredictor

SPACING = (1.0, 1.0, 2.0)


def ball(shape: tuple[int, int, int], radius: float) -> np.ndarray:
    index = np.stack(np.indices(shape)) - np.array(shape).reshape(3, 1, 1, 1) // 2
    return (index**2).sum(0) <= radius**2


def told(scan: np.ndarray, hole: np.ndarray) -> np.ndarray | None:
    predictor = RimPredictor.learned(np.where(hole, 5000, scan), hole, hole, SPACING, np.random.default_rng(0))
    return None if predictor is None else predictor.told()


def test_a_pattern_that_the_scan_repeats_is_continued_exactly() -> None:
    """Waves obey a linear law, which bending does not know; the truth in the hole is never looked at."""
    shape = (24, 40, 40)
    k, j, i = np.indices(shape)
    scan = 100 * np.sin(2 * np.pi * i / 7) + 60 * np.cos(2 * np.pi * (j + k) / 9) + 30
    hole = ball(shape, 4)
    bent = biharmonic_interpolation(scan, hole, np.where(hole, 30, scan), SPACING)[hole]
    found = told(scan, hole)
    assert found is not None
    assert np.abs(found - scan[hole]).mean() < 0.15 * np.abs(bent - scan[hole]).mean()


def test_correlated_tissue_is_told_nearly_as_well_as_can_be() -> None:
    """A Gaussian field of known covariance: simple kriging with that covariance is the best there is."""
    from scipy.ndimage import binary_dilation, gaussian_filter

    random, width, hole = np.random.default_rng(1), 1.2, ball((20, 36, 36), 3)
    rim = np.argwhere(binary_dilation(hole, iterations=RIM) & ~hole)
    inside = np.argwhere(hole)

    def covariance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / (4 * width**2))

    best = covariance(inside, rim) @ np.linalg.inv(covariance(rim, rim) + 1e-6 * np.eye(len(rim)))
    errors = []
    for _ in range(4):
        field = gaussian_filter(random.standard_normal(hole.shape), width, mode="wrap")
        scan = 40 + 50 * field / field.std()
        found = told(scan, hole)
        assert found is not None
        bent = biharmonic_interpolation(scan, hole, np.where(hole, 40, scan), SPACING)[hole]
        ideal = 40 + best @ (scan[tuple(rim.T)] - 40)
        errors.append([np.square(guess - scan[hole]).mean() for guess in (found, bent, ideal)])
    found_error, bent_error, ideal_error = np.sqrt(np.mean(errors, axis=0))
    assert found_error < 0.7 * bent_error and found_error < 1.5 * ideal_error


def test_it_says_so_where_it_cannot_tell() -> None:
    scan = np.random.default_rng(0).normal(0, 30, (24, 40, 40))
    assert told(scan[:10, :12, :12], ball((10, 12, 12), 4)) is None  # no room for other places
    hole = ball(scan.shape, 3)
    both = hole | np.roll(hole, 8, axis=2)
    assert RimPredictor.learned(scan, hole, both, SPACING, np.random.default_rng(0)) is None  # its rim is unknown
