"""The network's result, non-local means and the detail given back, as one image."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import TYPE_CHECKING

import torch

from .non_local_means import non_local_planes
from .wiener import returned_detail

if TYPE_CHECKING:
    from ...core.progress import ProgressMeter


def combined_planes(
    noisy: torch.Tensor,
    clean: torch.Tensor,
    sigma: float,
    shares: tuple[float, float],
    strength: float = 1.0,
    meter: ProgressMeter | None = None,
) -> Iterator[torch.Tensor]:
    """Planes (H, W) of the result, first to last; a plane of either image is not looked at any more once it is there.

    Args:
        noisy, clean: (D, H, W) on the CPU, network range; the scan and the network's result.
        sigma: noise level.
        shares: of the network's result and of non-local means the mean is taken by the first, of that and of the
            network's result with its detail back by the second.
        strength: see :func:`.wiener.returned_detail`.
        meter: advanced by one for non-local means.
    """
    share, detail = shares
    smooth_planes = non_local_planes(noisy.numpy(), sigma, meter=meter) if share > 0 else repeat(None, len(noisy))
    detail_planes = returned_detail(noisy, clean, strength) if detail > 0 else repeat(None, len(noisy))
    for after, smooth, fine in zip(clean, smooth_planes, detail_planes, strict=True):
        result = after if smooth is None else after.lerp(torch.from_numpy(smooth), share * (1 - detail))
        yield result if fine is None else result + detail * fine
