"""Thick slices and thin ones: what was measured is kept."""

import numpy as np
import pytest
import torch

from MedDiffFMLib.diffusion.data_consistency import BlockAverages, WeightedMean
from MedDiffFMLib.imaging.slice_averaging import average_blocks, repeat_blocks, smooth_blocks

FACTORS = [(5, 1, 1), (1, 3, 1), (1, 1, 6), (2, 2, 2)]


@pytest.fixture(scope="module")
def thick():
    return np.random.default_rng(1).normal(0, 300, (6, 5, 7)).astype(np.float32)


@pytest.mark.parametrize("factors", FACTORS)
def test_smooth_and_repeated_slices_have_the_measured_averages(thick, factors):
    for thin in (smooth_blocks(thick, factors), repeat_blocks(thick, factors)):
        assert thin.shape == tuple(n * f for n, f in zip(thick.shape, factors, strict=True))
        assert np.abs(average_blocks(thin, factors) - thick).max() < 1e-3


def test_smooth_slices_follow_a_curve_better_than_a_cubic_through_the_centers():
    """A sine of 16 thin slices' period in thick slices of 5, ends left out."""
    from scipy.interpolate import CubicSpline

    curve = np.sin(np.arange(60) * 2 * np.pi / 16)
    measured = curve.reshape(12, 5).mean(1)
    ours = smooth_blocks(measured[:, None, None], (5, 1, 1))[:, 0, 0]
    through_centers = CubicSpline(np.arange(12) * 5 + 2, measured)(np.arange(60))
    inner = slice(10, 50)
    errors = [np.abs(guess[inner] - curve[inner]).mean() for guess in (ours, through_centers)]
    assert errors[0] < 0.7 * errors[1]


def test_one_slice_is_repeated():
    assert np.array_equal(smooth_blocks(np.full((1, 2, 2), 7.0), (3, 1, 1)), np.full((3, 2, 2), 7.0))


@pytest.mark.parametrize("factors", FACTORS)
def test_noise_free_averages_are_met_exactly_and_nothing_else_changes(thick, factors):
    measured = torch.from_numpy(thick)[None, None]
    x0 = torch.randn(2, 1, *(n * f for n, f in zip(thick.shape, factors, strict=True)), dtype=torch.float64)
    corrected = BlockAverages(measured.double(), factors)(x0, 0.1)
    pooled = torch.nn.functional.avg_pool3d(corrected, factors)
    assert torch.allclose(pooled, measured.double().expand_as(pooled), atol=1e-9)
    for sample in range(2):
        change = (corrected - x0)[sample, 0].numpy()
        assert np.allclose(change, repeat_blocks(average_blocks(change, factors), factors), atol=1e-6)


def test_noisy_averages_solve_the_proximal_problem():
    """Against a dense solution of min |y - A x|^2 / rho + |x - x0|^2."""
    torch.manual_seed(0)
    factors, noise, sigma, strength = (3, 1, 1), 0.02, 0.05, 2.0
    x0, measured = torch.randn(1, 1, 6, 1, 1, dtype=torch.float64), torch.randn(1, 1, 2, 1, 1, dtype=torch.float64)
    averaging = torch.kron(torch.eye(2), torch.full((1, 3), 1 / 3)).double()
    rho = strength * (noise / sigma) ** 2
    left = averaging.T @ averaging / rho + torch.eye(6, dtype=torch.float64)
    right = averaging.T @ measured.flatten() / rho + x0.flatten()
    found = BlockAverages(measured, factors, noise, strength)(x0, sigma)
    assert torch.allclose(found.flatten(), torch.linalg.solve(left, right))


def test_the_mean_of_a_region_is_met_and_its_outside_untouched():
    weight = torch.zeros(1, 1, 4, 4, 4)
    weight[..., 1:3, 1:3, 1:3] = torch.rand(2, 2, 2)
    x0 = torch.randn(1, 1, 4, 4, 4)
    changed = WeightedMean(weight, 0.03)(x0, 1.0)
    assert (weight * changed).sum() / weight.sum() == pytest.approx(0.03, abs=1e-6)
    assert torch.equal(changed[weight == 0], x0[weight == 0])
