"""CT from X-rays: the expected image of a prior under exact consistency.

Sampling a prior with a consistency hook gives one possible body whose error is larger than that of their mean. So at
each noise level several draws of noise are denoised, and their mean is made consistent and goes on to the next, lower
level: an annealed fixed point of "denoise, then meet the X-rays" (plug and play). On the coarsest grid a
network that knows whole bodies does so, and its first mean, from noise alone, is the average body in the box that
the shadows leave; the prior then betters the image on the grid of the result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from ...core.progress import ProgressMeter
from ...diffusion.samplers import dpm_solver_pp_2m, karras_sigmas
from ...multimodal.xray_consistency import AIR, XrayConsistency
from ...multimodal.xray_regression import ExpectedChest
from ..synthesize.cascade import upsample

FIRST_SIGMA, FIRST_STEPS = 80.0, 6
LEVELS = (3.0, 2.0, 1.5, 1.0, 0.7, 0.5, 0.35)
"""Noise levels of the coarse image, in units of 1000 HU; chosen on two validation chests."""
SPREAD_LEVEL = 2.0
"""Level whose draws are what the X-rays leave open."""
FINE_LEVEL, FINE_DRAWS = 1.0, 2
FIRST_ROUNDS, LAST_ROUNDS = 2, 4
"""Steps of consistency before the first and after the last level; one between."""
GUESS_SHARE, SURE_SHARE = 0.4, 0.8
"""Of a guess in the image where the body is improbable and where it is nearly certain; chosen on the same two chests,
as are:"""
UNSURE, SURE = 0.4, 0.9
"""Probabilities of the body between which the share rises."""
CERTAIN_BODY, SOFT_TISSUE = 0.3, 0.05
"""Probability of the body that densities are divided by at least; and the densest that a voxel becomes by being taken
for body alone, network range."""
LEAST_SPREAD = 0.03
"""How far any voxel may move, 30 HU, even where all draws agree."""

Denoise = Callable[[torch.Tensor, float], torch.Tensor]


@dataclass(frozen=True)
class Reconstruction:
    """Result of :func:`expected_image`, (k, j, i) in the network's range.

    Attributes:
        image: the expected body, consistent.
        spread: standard deviation of what the X-rays leave open.
    """

    image: torch.Tensor
    spread: torch.Tensor


def average_body(coarse: Denoise, shape: tuple[int, int, int], draws: int, seed: torch.Generator) -> torch.Tensor:
    """(draws, 1, k, j, i) bodies from noise alone, without a look at the X-rays."""
    start = FIRST_SIGMA * torch.randn((draws, 1, *shape), generator=seed)
    return dpm_solver_pp_2m(coarse, start, karras_sigmas(FIRST_STEPS, FIRST_SIGMA, 0.02))


def expected_image(
    bodies: torch.Tensor,
    coarse: Denoise,
    consistency: XrayConsistency,
    seed: torch.Generator,
    meter: ProgressMeter,
    guess: ExpectedChest | None = None,
) -> Reconstruction:
    """Expected image under the X-rays, by a denoiser on a coarser grid.

    Args:
        bodies: (draws, 1, k, j, i) of :func:`average_body`; where they differ much, voxels may move much.
        guess: what another method expects, of which the mean with this one is taken; voxels that it takes for air may
            then move most.
        meter: advanced by one for each level.
    """
    shape = consistency.grid.shape
    spread = upsample(bodies.std(0, keepdim=True), shape)[0, 0].clamp_min(LEAST_SPREAD)
    consistency.weight = spread * consistency.support
    image = consistency.meet(upsample(bodies.mean(0, keepdim=True), shape)[0, 0], FIRST_ROUNDS)
    for sigma in LEVELS:
        meter.check()
        start = functional.interpolate(image[None, None], bodies.shape[2:], mode="area").expand_as(bodies)
        drawn = coarse(start + sigma * torch.randn(bodies.shape, generator=seed), sigma)
        if sigma == SPREAD_LEVEL:
            spread = upsample(drawn.std(0, keepdim=True), shape)[0, 0].clamp_min(0)
        image = consistency.meet(upsample(drawn.mean(0, keepdim=True), shape)[0, 0], 1)
        meter.advance()
    if guess is not None:
        image = _mixed(image, guess, consistency)
    return Reconstruction(consistency.meet(image, LAST_ROUNDS), spread)


def _mixed(image: torch.Tensor, guess: ExpectedChest, consistency: XrayConsistency) -> torch.Tensor:
    """Mean of an image and a guess, each as if all were body, made consistent by what is most probably air."""
    share = GUESS_SHARE + (SURE_SHARE - GUESS_SHARE) * ((guess.body - UNSURE) / (SURE - UNSURE)).clamp(0, 1)
    image = (1 - share) * taken_for_body(image, guess.body) + share * guess.image
    return consistency.meet_by_air(image, guess.body, LAST_ROUNDS)


def taken_for_body(image: torch.Tensor, body: torch.Tensor) -> torch.Tensor:
    """What voxels of an expected image are if they belong to the body, which they do with probability ``body``.

    Their mean with air is the image; none becomes denser than soft tissue by it.
    """
    dense = AIR + (image - AIR) / body.clamp_min(CERTAIN_BODY)
    return torch.minimum(dense, image.clamp_min(SOFT_TISSUE))


def bettered(image: torch.Tensor, fine: Denoise, consistency: XrayConsistency, seed: torch.Generator) -> torch.Tensor:
    """Mean of an image and of what a denoiser on its own grid makes of it, consistent."""
    shape = (1, 1, *image.shape)
    draws = [
        fine(image[None, None] + FINE_LEVEL * torch.randn(shape, generator=seed), FINE_LEVEL) for _ in range(FINE_DRAWS)
    ]
    return consistency.meet((image + torch.stack(draws).mean(0)[0, 0]) / 2, LAST_ROUNDS)
