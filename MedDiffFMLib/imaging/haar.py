"""Haar stem: a lossless orthonormal 2x2x2 transform, one channel to eight at half the resolution.

The network then works on an eighth of the voxels. Orthonormal means that white noise stays white with the same
standard deviation, so diffusion in Haar space is diffusion in voxel space.

Both directions leave autocast: a difference of two neighbors rounded to bfloat16 beforehand would be off by several
HU.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional

HAAR_BANDS = 8
"""Channels of the transform of one: a scaled mean and seven details."""


def haar_kernel(dtype: torch.dtype = torch.float32, device: torch.device | str | None = None) -> torch.Tensor:
    """The eight orthonormal 2x2x2 Haar filters, shape (8, 1, 2, 2, 2); the first is the scaled mean.

    Made where they are needed: numbers from Python would have to be copied, and each copy waits for the GPU.
    """
    pair = torch.ones((2, 2), dtype=dtype, device=device)
    pair[1, 1].neg_()
    pair = pair / 2**0.5
    k, j, i = (pair.reshape([2 if n in (axis, axis + 3) else 1 for n in range(6)]) for axis in range(3))
    return (k * j * i).reshape(8, 1, 2, 2, 2)


def haar_forward(x: torch.Tensor) -> torch.Tensor:
    """(B, 1, D, H, W) with even D, H, W -> (B, 8, D/2, H/2, W/2)."""
    with torch.autocast(x.device.type, enabled=False):
        return functional.conv3d(x, haar_kernel(x.dtype, x.device), stride=2)


def haar_inverse(y: torch.Tensor) -> torch.Tensor:
    """(B, 8, d, h, w) -> (B, 1, 2d, 2h, 2w); the transpose of :func:`haar_forward` and its inverse."""
    with torch.autocast(y.device.type, enabled=False):
        return functional.conv_transpose3d(y, haar_kernel(y.dtype, y.device), stride=2)
