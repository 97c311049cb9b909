"""Block thresholding: tissue is what stands out of the noise in the frequencies of small blocks.

The first stage of BM3D (Dabov et al. 2007, IEEE Transactions on Image Processing 16:2080) in blocks of three
dimensions and without the matching. The spectrum of the noise is measured in the scan, and its strength in each place.
It errs otherwise than the network, which knows tissue, so that their mean is a better pilot for the Wiener filter than
either.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as functional

from .blocks import (
    EDGE,
    HALF,
    LINE,
    PlaneSums,
    layer_starts,
    layers,
    level,
    power,
    sampled_blocks,
    soft_limit,
)

if TYPE_CHECKING:
    from ...core.progress import ProgressMeter

ALONE, BESIDE_NETWORK = 2.0, 3.0
"""Thresholds over the root of the noise's power: one coefficient of noise in 55, and one in 8000, stays. The network
keeps faint detail, so that blocks beside it may leave all noise out."""
AIR_WEIGHT = 1e-3
"""Of empty blocks, whose mean is taken: next to nothing beside others."""
COEFFICIENTS, QUANTILE = 64, 0.25
"""The noise's power in a block of eight slices is told by a quantile of so many coefficients, those in which noise is
strongest: tissue makes few of them large and hardly moves it."""
NEIGHBORS, LEAST = 1, 1.86
"""Rows and columns of blocks to either side; the power of noise over the least of so many measurements of it."""
POWERS = (1.0, 4.0)
"""Limits of the noise's power in a block over that of the spectrum, which is measured where the scan is quiet."""


def thresholded_planes(
    image: torch.Tensor,
    threshold: float,
    depth: int = EDGE,
    limits: tuple[float, float] = (0.0, math.inf),
    meter: ProgressMeter | None = None,
) -> Iterator[torch.Tensor]:
    """Planes (H, W) of the thresholded image, first to last; a plane is not looked at any more once eight more came.

    Args:
        image: (D, H, W) on the CPU, network range.
        threshold: over the root of the noise's power; more smooths more.
        depth: slices of a block.
        limits: between which the level of the noise lies, network range; it is measured.
        meter: advanced by one for the whole image.

    Raises:
        Cancelled: seen between layers of blocks.
    """
    noise = spectrum(image, depth)
    # Blocks without their mean lack the more of the noise the smaller they are: its level is told by the large ones.
    measured = level(noise if depth == EDGE else spectrum(image))
    if math.isfinite(measured):
        noise = noise * (min(max(measured, limits[0]), limits[1]) / measured) ** 2
    heard = level(noise)
    strongest = noise.reshape(-1).topk(COEFFICIENTS * depth // EDGE).indices
    sums = PlaneSums(image.shape, depth, 2)
    parts = len(layer_starts(len(image), depth))
    for first, layer in layers(image, depth):
        filled = ~layer.is_empty(heard)
        weight = torch.full_like(layer.mean, AIR_WEIGHT)
        for band in layer.bands:
            kept = filled[band]
            places = torch.nonzero(kept)[:, 0]
            if not len(places):
                continue
            blocks = places + band.start
            coefficients = layer.less_mean(layer.coefficients(blocks), blocks)
            strengths = power(coefficients)
            local = _quietest_nearby(_powers(strengths, noise, strongest), kept, layer.columns)
            tissue = strengths > (threshold**2 * noise)[:, None] * local[:, None]
            # Sparser blocks, whose result holds less noise, count more (equation 10).
            wanted = 1 / (1 + tissue.sum(0, dtype=torch.uint8).sum(1))
            weight[blocks] = wanted
            sums.add(blocks, coefficients.mul_(tissue * wanted[:, None]))
        sums.spread(0, weight * layer.mean)
        sums.spread(1, weight)
        planes, means, weights = sums.finished(first)
        yield from (planes + means) / weights
        if meter is not None:
            meter.advance(1 / parts)


def spectrum(image: torch.Tensor, depth: int = EDGE) -> torch.Tensor:
    """(depth, 40): power of the noise in each frequency, by its median in the flatter half of the soft tissue.

    Flat is told by the lowest frequencies within slices. Where hardly any block is soft tissue, all that is no air
    counts; infinite where there is nothing else.
    """
    (blocks,) = sampled_blocks(depth, image)
    if not len(mean := blocks.mean):
        return torch.full((depth, HALF), torch.inf)
    every = torch.arange(len(mean))
    strength = power(blocks.less_mean(blocks.coefficients(every), every))
    soft = strength[:, mean.abs() < soft_limit(mean.abs())]
    slow = soft.unflatten(2, (EDGE, LINE))[:, :, [0, 1, EDGE - 1], :2].sum((0, 2, 3))
    # The power of noise has an exponential distribution, whose median is log 2 of its mean.
    return (soft[:, slow <= slow.median()].median(1).values / math.log(2)).clamp_min(1e-12)


def _powers(strengths: torch.Tensor, noise: torch.Tensor, strongest: torch.Tensor) -> torch.Tensor:
    """(n,): power of the noise in each block over that of the spectrum."""
    chosen = strengths.transpose(0, 1).flatten(1).index_select(1, strongest) / noise.reshape(-1)[strongest]
    place = round(QUANTILE * len(strongest)) - 1
    # An eighth of the time of torch's kthvalue.
    return torch.from_numpy(np.partition(chosen.numpy(), place, axis=1)[:, place]) / -math.log(1 - QUANTILE)


def _quietest_nearby(powers: torch.Tensor, kept: torch.Tensor, columns: int) -> torch.Tensor:
    """The least power (n,) of a block and its neighbors: noise changes slowly, and texture only adds to it."""
    grid = torch.full((1, 1, len(kept) // columns, columns), -math.inf)
    grid.view(-1)[kept] = -powers
    near = -functional.max_pool2d(grid, 2 * NEIGHBORS + 1, 1, NEIGHBORS)
    return (LEAST * near.view(-1)[kept]).clamp(*POWERS)
