"""Control inputs of the ControlNets: what super-resolution and lesion generation are steered by."""

from __future__ import annotations

import torch

IMAGES = 2
"""Channels of super-resolution."""


def interpolated_control(
    guess: torch.Tensor, factors: tuple[int, int, int], first: tuple[int, int, int] = (0, 0, 0)
) -> torch.Tensor:
    """Control channels (2, D, H, W): the image and the position of its voxels.

    Detail is known best in the middle of a thick slice and worst between two. The position is 0 in the middle of a
    measured voxel, -1 and 1 at its borders, summed over the axes whose resolution is raised; its steps tell how many
    voxels a measured one holds.

    Args:
        guess: (D, H, W) in the network's range.
        factors: voxels in a measured voxel along (k, j, i).
        first: index of the first voxel within its measured voxel.
    """
    position = torch.zeros_like(guess)
    for axis, (factor, start) in enumerate(zip(factors, first, strict=True)):
        if factor > 1:
            index = (torch.arange(guess.shape[axis], device=guess.device) + start) % factor
            line = (2 * index + 1) / factor - 1
            position += line.reshape([-1 if n == axis else 1 for n in range(3)])
    return torch.stack([guess, position])


MASKS = 2
"""Channels of lesion generation."""


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
