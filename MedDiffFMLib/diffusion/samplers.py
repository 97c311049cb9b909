"""Samplers, one short function each, over ``denoise(x, sigma) -> x0``.

``correct(x0, sigma) -> x0`` is the consistency hook (see consistency.py). Any shape, any device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

Denoise = Callable[[torch.Tensor, float], torch.Tensor]
Correct = Callable[[torch.Tensor, float], torch.Tensor]


def karras_sigmas(steps: int, sigma_max: float, sigma_min: float = 0.002, rho: float = 7.0) -> list[float]:
    """Falling noise levels, ``steps`` of them and a final 0 (arXiv 2206.00364, equation 5)."""
    if steps == 1:
        return [sigma_max, 0.0]
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return [(high + n / (steps - 1) * (low - high)) ** rho for n in range(steps)] + [0.0]


def _same(x0: torch.Tensor, sigma: float) -> torch.Tensor:
    return x0


def heun(
    denoise: Denoise,
    x: torch.Tensor,
    sigmas: Sequence[float],
    correct: Correct = _same,
    churn: float = 0.0,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """EDM's stochastic second-order sampler (arXiv 2206.00364, algorithm 2).

    Args:
        x: start, clean image plus noise of sigmas[0].
        churn: fraction by which the noise is raised before each step, at most sqrt(2) - 1; 0 is deterministic. With a
            RePaint hook this plays the part of RePaint's resampling: it lets filled and known voxels agree.
        generator: source of the churn noise, on the CPU so that a seed gives the same picture on every device.

    Network evaluations: 2 (len(sigmas) - 1) - 1.
    """
    for sigma, target in zip(sigmas[:-1], sigmas[1:], strict=True):
        if churn > 0 and target > 0:
            raised = sigma * (1 + min(churn, 2**0.5 - 1))
            x = x + (raised**2 - sigma**2) ** 0.5 * noise_like(x, generator)
            sigma = raised
        slope = (x - correct(denoise(x, sigma), sigma)) / sigma
        step = x + (target - sigma) * slope
        if target > 0:
            slope_there = (step - correct(denoise(step, target), target)) / target
            step = x + (target - sigma) * 0.5 * (slope + slope_there)
        x = step
    return x


def dpm_solver_pp_2m(
    denoise: Denoise, x: torch.Tensor, sigmas: Sequence[float], correct: Correct = _same
) -> torch.Tensor:
    """DPM-Solver++ 2M (arXiv 2211.01095, algorithm 2) in the variance-exploding form, lambda = -log sigma.

    Network evaluations: len(sigmas) - 1.
    """
    previous: torch.Tensor | None = None
    last_step = 0.0
    for sigma, target in zip(sigmas[:-1], sigmas[1:], strict=True):
        x0 = correct(denoise(x, sigma), sigma)
        if target == 0:
            return x0
        step = torch.tensor(sigma / target).log().item()
        estimate = x0
        if previous is not None:
            ratio = last_step / step
            estimate = (1 + 1 / (2 * ratio)) * x0 - 1 / (2 * ratio) * previous
        x = target / sigma * x + (1 - target / sigma) * estimate
        previous, last_step = x0, step
    return x


def noise_like(x: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """White noise of x's shape and type, drawn on the CPU so that a seed means the same on every device."""
    return torch.randn(x.shape, generator=generator, dtype=torch.float32).to(x)


SAMPLERS = {"heun": heun, "dpm-solver++": dpm_solver_pp_2m}
