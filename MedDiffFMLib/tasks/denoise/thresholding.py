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

import torch
import torch.nn.functional as functional

from .blocks import (
    AIR,
    EDGE,
    PlaneSums,
    bands,
    is_empty,
    layers,
    level,
    power,
    sampled_layers,
    scaled,
    soft_limit,
    transformed,
    without_mean,
)

if TYPE_CHECKING:
    from ...core.progress import ProgressMeter

ALONE, BESIDE_NETWORK = 2.0, 3.0
"""Thresholds over the root of the noise's power: one coefficient of noise in 55, and one in 8000, stays. The network
keeps faint detail, so that blocks beside it may leave all noise out."""
AIR_WEIGHT = 1e-3
"""Of empty blocks, whose mean is taken: next to nothing beside others."""
MOST_BLOCKS = 4096
"""From which the spectrum is measured."""
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
    starts = layers(len(image), depth)
    for first in starts:
        for band in bands(image.shape, first, depth):
            blocks = band.cut(image)
            mean = blocks.mean((1, 2, 3))
            kept = ~is_empty(blocks, heard)
            weight = torch.full_like(mean, AIR_WEIGHT)
            if kept.any():
                coefficients = transformed(without_mean(blocks[kept], mean[kept]))
                strengths = power(coefficients)
                local = _quietest_nearby(_powers(strengths, noise, strongest), kept, band.blocks)
                tissue = strengths > threshold**2 * noise * local[:, None, None, None]
                # Sparser blocks, whose result holds less noise, count more (equation 10).
                weight[kept] = 1 / (1 + tissue.sum((1, 2, 3)))
                wanted = scaled(coefficients, tissue * weight[kept][:, None, None, None])
                sums.add(band, band.placed(wanted, kept))
            sums.add(band, band.spread(weight * mean))
            sums.add(band, band.spread(weight), 1)
        planes, weights = sums.finished(first)
        yield from planes / weights
        if meter is not None:
            meter.advance(1 / len(starts))


def spectrum(image: torch.Tensor, depth: int = EDGE) -> torch.Tensor:
    """(depth, 8, 5): power of the noise in each frequency, by its median in the flatter half of the soft tissue.

    Flat is told by the lowest frequencies within slices. Where hardly any block is soft tissue, all that is no air
    counts; infinite where there is nothing else.
    """
    known = []
    places = [band for first in sampled_layers(len(image), depth) for band in bands(image.shape, first, depth)]
    for band in places:
        blocks = band.cut(image)
        mean = blocks.mean((1, 2, 3))
        chosen = torch.nonzero(mean > AIR)[:, 0]
        chosen = chosen[:: max(1, math.ceil(len(chosen) * len(places) / (2 * MOST_BLOCKS)))]
        known.append((mean[chosen], power(transformed(without_mean(blocks[chosen], mean[chosen])))))
    mean, strengths = (torch.cat(part) for part in zip(*known, strict=True))
    if not len(mean):
        return torch.full((depth, EDGE, EDGE // 2 + 1), torch.inf)
    soft = strengths[mean.abs() < soft_limit(mean.abs())]
    slow = soft[:, :, [0, 1, EDGE - 1], :2].sum((1, 2, 3))
    # The power of noise has an exponential distribution, whose median is log 2 of its mean.
    return (soft[slow <= slow.median()].median(0).values / math.log(2)).clamp_min(1e-12)


def _powers(strengths: torch.Tensor, noise: torch.Tensor, strongest: torch.Tensor) -> torch.Tensor:
    """(n,): power of the noise in each block over that of the spectrum."""
    ratio = strengths.flatten(1)[:, strongest] / noise.reshape(-1)[strongest]
    return ratio.kthvalue(round(QUANTILE * len(strongest)), dim=1).values / -math.log(1 - QUANTILE)


def _quietest_nearby(powers: torch.Tensor, kept: torch.Tensor, blocks: tuple[int, int]) -> torch.Tensor:
    """The least power (n,) of a block and its neighbors: noise changes slowly, and texture only adds to it."""
    grid = torch.full((1, 1, *blocks), -math.inf)
    grid.view(-1)[kept] = -powers
    near = -functional.max_pool2d(grid, 2 * NEIGHBORS + 1, 1, NEIGHBORS)
    return (LEAST * near.view(-1)[kept]).clamp(*POWERS)
