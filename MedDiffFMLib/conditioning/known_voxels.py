"""Known voxels around an inpainting mask, and the biharmonic initialization inside it, as input channels."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as functional

from ..imaging.biharmonic import biharmonic_interpolation
from ..imaging.haar import haar_forward

CONTEXT_CHANNELS = 9


def push_pull_fill(image: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
    """Fill a hole with the average of ever wider surroundings (the push-pull pyramid of Gortler et al. 1996).

    Args:
        image: (D, H, W); what lies in the hole is ignored.
        hole: (D, H, W) in [0, 1].

    Returns:
        (D, H, W): the image outside the hole, smooth inside.
    """
    value, weight = [(image * (1 - hole))[None, None]], [(1 - hole)[None, None]]
    while max(value[-1].shape) > 1:
        padding = [n % 2 if n > 1 else 0 for n in reversed(value[-1].shape[2:])]
        pad = [part for extra in padding for part in (0, extra)]
        kernel = [min(2, n) for n in value[-1].shape[2:]]
        # Padded voxels weigh nothing, so edges of odd length are averages of what is there.
        value.append(functional.avg_pool3d(functional.pad(value[-1], pad), kernel))
        weight.append(functional.avg_pool3d(functional.pad(weight[-1], pad), kernel))
    guess = value[-1] / weight[-1].clamp(min=1e-6)
    for v, w in zip(reversed(value[:-1]), reversed(weight[:-1]), strict=True):
        wider = functional.interpolate(guess, size=v.shape[2:], mode="trilinear", align_corners=False)
        share = w.clamp(max=1.0)
        guess = v + (1 - share) * wider
    return guess[0, 0]


def biharmonic_init(image: torch.Tensor, hole: torch.Tensor, spacing: tuple[float, float, float]) -> torch.Tensor:
    """``image`` (D, H, W) with the surface of least bending in its hole; the network corrects it.

    Args:
        hole: (D, H, W), above 0 where the image is not known.
        spacing: voxel size (k, j, i) in mm.
    """
    start = push_pull_fill(image, hole)
    k, j, i = spacing
    filled = biharmonic_interpolation(image.numpy(), hole.numpy() > 0, start.numpy(), (i, j, k))
    return torch.from_numpy(filled.astype(np.float32))


def encode_context(known: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
    """Image with its hole initialized, and the hole, (D, H, W) -> (9, D/2, H/2, W/2).

    Eight Haar bands of the image and the share of known voxels, which is above zero somewhere as a sign that there is
    a hole at all.
    """
    bands = haar_forward(known[None, None])[0]
    return torch.cat([bands, functional.avg_pool3d((1 - hole)[None], 2)])
