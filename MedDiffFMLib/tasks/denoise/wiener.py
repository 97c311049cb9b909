"""Empirical Wiener filter: the detail that the network took for noise is given back where it stands out.

In blocks of 8 x 8 x 8 voxels (fewer of thick slices) a pilot tells how strong each frequency of the tissue is, and what
it left out tells the noise's spectrum, which no network needs to be told. Each frequency of what was removed is given
back by the share that tissue has in it: the second stage of BM3D (Dabov et al. 2007, IEEE Transactions on Image
Processing 16:2080, equation 9) without the matching, with the network's result in the pilot.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .blocks import EDGE, HALF, PlaneSums, energy, layers, level, power, sampled_blocks, soft_limit


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
    for (first, before), (_, after) in zip(layers(noisy, depth), layers(clean, depth), strict=True):
        filled = ~before.is_empty(heard)
        for band in before.bands:
            blocks = torch.nonzero(filled[band])[:, 0] + band.start
            if len(blocks):
                estimate = after.coefficients(blocks)
                removed = before.coefficients(blocks).sub_(estimate)
                tissue = power(after.less_mean(estimate, blocks))
                sums.add(blocks, removed.mul_(tissue.div_(tissue + noise[:, None])))
        yield from sums.finished(first)[0]


def noise_power(noisy: torch.Tensor, clean: torch.Tensor, depth: int = EDGE) -> torch.Tensor:
    """(depth, 40): mean power of what was removed in each frequency, in the flatter half of the soft tissue.

    Where hardly any block is soft tissue, in the flatter half of all that is not air.
    """
    before, after = sampled_blocks(depth, noisy, clean)
    if not len(mean := after.mean.abs()):
        return torch.full((depth, HALF), torch.inf)
    every = torch.arange(len(mean))
    estimate = after.coefficients(every)
    removed = before.coefficients(every).sub_(estimate)
    detail = power(after.less_mean(estimate, every)).sum((0, 2))
    soft = mean < soft_limit(mean)
    flat = soft & (detail <= detail[soft].median())
    return power(removed[:, :, flat]).mean(1).clamp_min(1e-12)


def given_power(white: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """White noise (D, H, W) of variance 1 -> noise with about these powers, (depth, 40), in blocks."""
    depth = len(wanted)
    scale = (wanted * depth * EDGE**2 / energy(depth)).sqrt()[:, None]
    sums, planes = PlaneSums(white.shape, depth), []
    for first, layer in layers(white, depth):
        for band in layer.bands:
            places = torch.arange(band.start, band.stop)
            sums.add(places, layer.coefficients(places).mul_(scale))
        planes.append(sums.finished(first)[0])
    return torch.cat(planes)
