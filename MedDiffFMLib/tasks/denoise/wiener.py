"""Empirical Wiener filter: the detail that the network took for noise is given back where it stands out.

In blocks of 8 x 8 x 8 voxels (fewer of thick slices) a pilot tells how strong each frequency of the tissue is, and what
it left out tells the noise's spectrum, which no network needs to be told. Each frequency of what was removed is given
back by the share that tissue has in it: the second stage of BM3D (Dabov et al. 2007, IEEE Transactions on Image
Processing 16:2080, equation 9) without the matching, with the network's result in the pilot.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

import torch

from ...inference.window_plan import reflected_range
from .blocks import (
    EDGE,
    STEP,
    Band,
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
    window,
    without_mean,
)


def returned_detail(
    noisy: torch.Tensor, clean: torch.Tensor, strength: float = 1.0, depth: int = EDGE
) -> Iterator[torch.Tensor]:
    """What is to be added to each plane of ``clean``, first to last, (H, W).

    A plane of either image is not looked at any more once the details of eight more have come: until then blocks at the
    end may, which continue the image by reflection.

    Args:
        noisy, clean: (D, H, W) on the CPU, network range.
        strength: of the noise, over what was removed; more gives back less.
        depth: slices of a block.
    """
    noise = noise_power(noisy, clean, depth) * strength**2
    heard = level(noise)
    sums = PlaneSums(clean.shape, depth)
    for first in layers(len(clean), depth):
        for band in bands(clean.shape, first, depth):
            before, after, kept = _filled_blocks(noisy, clean, band, heard)
            if len(after):
                tissue = power(transformed(without_mean(after, after.mean((1, 2, 3)))))
                share = tissue / (tissue + noise)
                sums.add(band, band.placed(scaled(transformed(before - after), share), kept))
        yield from sums.finished(first)[0]


def noise_power(noisy: torch.Tensor, clean: torch.Tensor, depth: int = EDGE) -> torch.Tensor:
    """(depth, 8, 5): mean power of what was removed in each frequency, in the flatter half of the soft tissue.

    Where hardly any block is soft tissue, in the flatter half of all that is not air.
    """
    places = [band for first in sampled_layers(len(clean), depth) for band in bands(clean.shape, first, depth)]
    known = []
    for band in places:
        _, after, kept = _filled_blocks(noisy, clean, band)
        mean = after.mean((1, 2, 3))
        known.append((torch.nonzero(kept)[:, 0], mean.abs(), _detail(after, mean)))
    mean, detail = (torch.cat(part) for part in list(zip(*known, strict=True))[1:])
    if not len(mean):
        return torch.full((depth, EDGE, EDGE // 2 + 1), torch.inf)
    limit = soft_limit(mean)
    flat = detail[mean < limit].median()
    total, count = torch.zeros(depth, EDGE, EDGE // 2 + 1), 0
    for band, (filled, mean, detail) in zip(places, known, strict=True):
        chosen = filled[(mean < limit) & (detail <= flat)]
        removed = transformed(band.cut(noisy)[chosen] - band.cut(clean)[chosen])
        total, count = total + power(removed).sum(0), count + len(chosen)
    return (total / count).clamp_min(1e-12)


def given_power(white: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """White noise (D, H, W) of variance 1 -> noise with about these powers, (depth, 8, 5), in blocks."""
    depth = len(wanted)
    steps = (depth // 2, STEP, STEP)
    before = tuple(-(-n // step) * step + 2 * step for n, step in zip(white.shape, steps, strict=True))
    sums = torch.zeros(before)
    lines = [reflected_range(-step, n, size) for step, n, size in zip(steps, before, white.shape, strict=True)]
    for first in range(0, before[0] - depth + 1, steps[0]):
        band = Band(0, (before[1], before[2]), (lines[0][first : first + depth], lines[1], lines[2]))
        scale = wanted * depth * EDGE**2 / window(depth).square().sum()
        colored = scaled(transformed(band.cut(white)), scale.sqrt())
        sums[first : first + depth] += band.placed(colored, torch.ones(len(colored), dtype=torch.bool))
    return sums[tuple(slice(step, step + n) for step, n in zip(steps, white.shape, strict=True))]


def _filled_blocks(
    noisy: torch.Tensor, clean: torch.Tensor, band: Band, heard: float = inf
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Those blocks (n, depth, 8, 8) of both images that are not empty (:func:`.blocks.is_empty`) in the noisy one, and
    which of the band's blocks they are (N,).

    Args:
        heard: level of the noise; without it all air counts as empty.
    """
    before = band.cut(noisy)
    kept = ~is_empty(before, heard)
    return before[kept], band.cut(clean)[kept], kept


def _detail(blocks: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """(n,): power of blocks without their mean."""
    return power(transformed(without_mean(blocks, mean))).sum((1, 2, 3))
