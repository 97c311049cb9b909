"""Control input of lesion generation: the mask and the lesion's mean intensity."""

from __future__ import annotations

import torch

MASKS = 2


def lesion_control(share: torch.Tensor, mean: float) -> torch.Tensor:
    """Control channels (2, D, H, W): share of lesion in each voxel, and the lesion's mean there.

    Args:
        share: (D, H, W) in [0, 1].
        mean: mean of the lesion in the network's range.
    """
    return torch.stack([share, share * mean])


def lesion_guess(around: torch.Tensor, share: torch.Tensor, mean: float) -> torch.Tensor:
    """First guess (D, H, W): a flat lesion of that mean in the smooth continuation of what lies around it."""
    return around + share * (mean - around)
