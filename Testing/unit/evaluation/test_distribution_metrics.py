"""Distances between sets of features against closed forms, loops and MONAI."""

from __future__ import annotations

import numpy as np
import pytest

from MedDiffFMLib.evaluation.quality.distribution_metrics import coverage, frechet, mmd


def gaussian(count, features=1, mean=0.0, seed=0):
    return np.random.default_rng(seed).normal(mean, 1, (count, features))


def third_moment(a, b):
    """E (x y + 1)^3 for independent x ~ N(a, 1), y ~ N(b, 1)."""
    return (a**3 + 3 * a) * (b**3 + 3 * b) + 3 * (a**2 + 1) * (b**2 + 1) + 3 * a * b + 1


def test_discrepancy_of_shifted_gaussians_is_the_closed_form():
    expected = third_moment(0, 0) + third_moment(1, 1) - 2 * third_moment(0, 1)
    found = [mmd(gaussian(400, seed=2 * n), gaussian(400, mean=1.0, seed=2 * n + 1)) for n in range(30)]
    assert np.mean(found) == pytest.approx(expected, rel=0.1)


def test_discrepancy_of_equal_distributions_is_unbiased():
    found = [mmd(gaussian(12, 4, seed=2 * n), gaussian(9, 4, seed=2 * n + 1)) for n in range(800)]
    assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(len(found))
    assert min(found) < 0 < max(found)


def test_discrepancy_is_the_mean_over_pairs_of_different_samples():
    x, y = gaussian(5, 6), gaussian(7, 6, 0.4, 1)

    def kernel(a, b):
        return (a @ b / 6 + 1) ** 3

    within = [np.mean([kernel(a, b) for n, a in enumerate(z) for m, b in enumerate(z) if n != m]) for z in (x, y)]
    across = np.mean([kernel(a, b) for a in x for b in y])
    assert mmd(x, y) == pytest.approx(sum(within) - 2 * across, rel=1e-9)


def test_discrepancy_needs_two_samples():
    with pytest.raises(ValueError, match="two samples"):
        mmd(gaussian(1, 3), gaussian(5, 3))


def test_coverage_of_identical_disjoint_and_half_sets():
    x = gaussian(50, 3)
    assert coverage(x, x) == 1
    assert coverage(x, x + 100) == coverage(x + 100, x) == 0
    assert coverage(np.concatenate([x, x + 100]), x) == 0.5


def test_coverage_tells_lost_modes_from_bad_samples():
    real = np.concatenate([gaussian(60, 2), gaussian(60, 2, 20.0, 1)])
    one_mode = gaussian(60, 2, seed=2)
    assert coverage(one_mode, real) > 0.9
    assert coverage(real, one_mode) == pytest.approx(0.5, abs=0.05)


def test_balls_reach_to_the_third_neighbor():
    line = np.array([[0.0], [1.0], [3.0], [6.0]])
    near, far = np.array([[-6.0]]), np.array([[-6.01]])
    assert coverage(near, line) == 1  # the ball around 0 reaches to 6
    assert coverage(far, line) == 0


def test_frechet_distance_of_two_gaussians_is_the_closed_form():
    rng = np.random.default_rng(0)
    x = rng.normal(0, [1.0, 2.0], (6000, 2))
    y = rng.normal([3.0, 0.0], [1.0, 1.0], (6000, 2))
    assert frechet(x, y) == pytest.approx(9 + (2 - 1) ** 2, rel=0.05)
    assert frechet(x, x) == pytest.approx(0, abs=1e-6)


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")
def test_frechet_distance_with_fewer_samples_than_features_is_that_of_monai():
    import scipy
    import torch
    from monai.metrics import FIDMetric

    if tuple(map(int, scipy.__version__.split(".")[:2])) >= (1, 18):
        pytest.skip("MONAI's FIDMetric does not run with this SciPy")
    x, y = gaussian(12, 40), gaussian(15, 40, 0.3, 1)
    assert frechet(x, y) == pytest.approx(float(FIDMetric()(torch.from_numpy(x), torch.from_numpy(y))), rel=1e-4)
