"""The network's result, thresholded blocks and the detail given back, as one image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import repeat
from math import inf
from typing import TYPE_CHECKING

import torch

from .blocks import EDGE
from .thresholding import ALONE, BESIDE_NETWORK, thresholded_planes
from .wiener import returned_detail

if TYPE_CHECKING:
    from ...core.progress import ProgressMeter


def combined_planes(
    noisy: torch.Tensor,
    clean: torch.Tensor,
    shares: tuple[float, float],
    strength: float = 1.0,
    limits: tuple[float, float] = (0.0, inf),
    depth: int = EDGE,
    meter: ProgressMeter | None = None,
    alone: float = 0.0,
) -> Iterator[torch.Tensor]:
    """Planes (H, W) of the result, first to last; a plane of either image is looked at until eight more have come.

    Args:
        noisy, clean: (D, H, W) on the CPU, network range; the scan and the network's result, which becomes the pilot of
            the Wiener filter.
        shares: of thresholded blocks in the pilot, 1 where there is no network; of the detail that comes back.
        strength: of the noise over what is measured; more smooths more.
        limits: between which the level of the noise lies, network range.
        depth: slices of a block, see :func:`.blocks.block_depth`.
        meter: advanced by one for the blocks.
        alone: share, in the result, of the network's as it is given.
    """
    blocks, detail = shares
    # Halves: 0.06 HU of soft tissue, for half of the memory.
    given = clean.half() if alone > 0 and blocks > 0 else clean
    if blocks > 0:
        threshold = strength * (ALONE if blocks == 1 else BESIDE_NETWORK)
        for pilot, plane in zip(clean, thresholded_planes(noisy, threshold, depth, limits, meter), strict=True):
            pilot.lerp_(plane, blocks)
    details: Iterable[torch.Tensor | float]
    details = returned_detail(noisy, clean, strength, depth) if detail > 0 else repeat(0.0, len(clean))
    for pilot, fine, estimate in zip(clean, details, given, strict=True):
        filtered = pilot + detail * fine
        yield filtered.lerp_(estimate.float(), alone) if alone > 0 else filtered
