"""Samplers against a Gaussian prior, whose denoiser and probability-flow trajectories are known in closed form."""

import pytest
import torch

from MedDiffFMLib.diffusion.data_consistency import DiffPIR, RePaint
from MedDiffFMLib.diffusion.samplers import SAMPLERS, dpm_solver_pp_2m, heun, karras_sigmas

MEAN, WIDTH = 0.3, 0.4


def gaussian_denoiser(x, sigma):
    """E[x0 | x] for x0 ~ N(MEAN, WIDTH^2) and x = x0 + sigma n."""
    return (WIDTH**2 * x + sigma**2 * MEAN) / (WIDTH**2 + sigma**2)


def exact_end(x, sigma):
    """End of the probability-flow ODE: (x - mean) shrinks as the marginal's width does."""
    return MEAN + (x - MEAN) * WIDTH / (WIDTH**2 + sigma**2) ** 0.5


@pytest.mark.parametrize(("name", "tolerance"), [("heun", 6e-3), ("dpm-solver++", 6e-3)])
def test_sampler_follows_the_exact_trajectory(name, tolerance):
    sigmas = karras_sigmas(60, 20.0)
    start = MEAN + 20.0 * torch.randn(1000, dtype=torch.float64)
    end = SAMPLERS[name](gaussian_denoiser, start, sigmas)
    assert (end - exact_end(start, 20.0)).abs().max() < tolerance


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_sampler_is_of_second_order(name):
    """Twice the steps, about a quarter of the error."""
    start = torch.tensor([5.0, -3.0, 1.0], dtype=torch.float64)

    def error(steps):
        # A ladder that is uniform in log sigma and stops above zero, so that the last step is an ordinary one.
        sigmas = torch.logspace(0.5, -1.5, steps + 1, dtype=torch.float64).tolist()
        end = SAMPLERS[name](gaussian_denoiser, start, sigmas)
        scale = ((WIDTH**2 + sigmas[-1] ** 2) / (WIDTH**2 + sigmas[0] ** 2)) ** 0.5
        return (end - (MEAN + (start - MEAN) * scale)).abs().max().item()

    assert error(80) < error(40) / 3


def test_samples_have_the_distribution_of_the_prior():
    generator = torch.Generator().manual_seed(1)
    start = 30.0 * torch.randn(40_000, generator=generator, dtype=torch.float64)
    churned = heun(gaussian_denoiser, start, karras_sigmas(40, 30.0), churn=0.2, generator=generator)
    plain = dpm_solver_pp_2m(gaussian_denoiser, start, karras_sigmas(40, 30.0))
    for end in (churned, plain):
        assert end.mean().item() == pytest.approx(MEAN, abs=0.02)
        assert end.std().item() == pytest.approx(WIDTH, rel=0.03)


def test_network_evaluations_are_as_documented():
    calls = []

    def counted(x, sigma):
        calls.append(sigma)
        return gaussian_denoiser(x, sigma)

    heun(counted, torch.zeros(1), karras_sigmas(7, 5.0))
    assert len(calls) == 13
    calls.clear()
    dpm_solver_pp_2m(counted, torch.zeros(1), karras_sigmas(7, 5.0))
    assert len(calls) == 7


def test_diffpir_is_the_posterior_mode_of_two_gaussians():
    """Prior N(x0, sigma^2 / lambda), measurement N(y, noise^2): the mode weighs both by their precision."""
    x0, y, sigma, noise, strength = torch.tensor(0.2), torch.tensor(0.8), 0.3, 0.1, 2.0
    precision_prior, precision_data = strength / sigma**2, 1 / noise**2
    expected = (precision_prior * x0 + precision_data * y) / (precision_prior + precision_data)
    assert torch.allclose(DiffPIR(y, noise, strength)(x0, sigma), expected)


def test_diffpir_sampling_lands_between_measurement_and_prior():
    y = torch.full((2000,), 1.0, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    start = y + 0.4 * torch.randn(2000, generator=generator, dtype=torch.float64)
    end = dpm_solver_pp_2m(gaussian_denoiser, start, karras_sigmas(30, 0.4, 0.01), DiffPIR(y, 0.4, 1.0))
    assert MEAN < end.mean().item() < 1.0


def test_repaint_returns_known_voxels_exactly_and_fills_the_hole():
    known = torch.linspace(-1, 1, 50, dtype=torch.float64)
    hole = torch.zeros_like(known)
    hole[20:30] = 1
    start = known * (1 - hole) + 10.0 * torch.randn(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    end = dpm_solver_pp_2m(gaussian_denoiser, start, karras_sigmas(80, 10.0), RePaint(known, hole))
    assert torch.equal(end[hole == 0], known[hole == 0])
    assert torch.allclose(end[hole == 1], exact_end(start, 10.0)[hole == 1], atol=0.02)


def test_karras_levels_fall_to_zero():
    sigmas = karras_sigmas(10, 5.0, 0.01)
    assert sigmas[0] == pytest.approx(5.0) and sigmas[-2] == pytest.approx(0.01) and sigmas[-1] == 0.0
    assert all(a > b for a, b in zip(sigmas[:-1], sigmas[1:], strict=True))
    assert karras_sigmas(1, 0.3) == [0.3, 0.0]
