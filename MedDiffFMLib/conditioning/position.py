"""Sinusoidal encoding of position in the body and of voxel size.

Coordinates run from -1 to 1 along each axis of the body box (paper: position inside the whole volume). They are
separable on a grid that is aligned with the box, so three 1-D arrays hold them; the channels are broadcast from those.
"""

from __future__ import annotations

import math

import torch

FREQUENCIES = 4
POSITION_CHANNELS = 3 * (1 + 2 * FREQUENCIES)
REFERENCE_SPACING_MM = 1.5


def encode_axis(coordinates: torch.Tensor) -> torch.Tensor:
    """(n,) in [-1, 1] -> (1 + 2 F, n): the value itself, then sin and cos of 2^f pi times the value."""
    scaled = coordinates[None] * (math.pi * 2.0 ** torch.arange(FREQUENCIES, device=coordinates.device))[:, None]
    return torch.cat([coordinates[None], scaled.sin(), scaled.cos()])


def encode_position(k: torch.Tensor, j: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
    """Coordinates of the half-resolution voxels along each axis -> (27, len(k), len(j), len(i))."""
    shape = (len(k), len(j), len(i))
    parts = []
    for axis, coordinates in enumerate((k, j, i)):
        view = [1, 1, 1, 1]
        view[axis + 1] = shape[axis]
        parts.append(encode_axis(coordinates).reshape(-1, *view[1:]).expand(-1, *shape))
    return torch.cat(parts)


def encode_spacing(spacing_kji: torch.Tensor) -> torch.Tensor:
    """(3,) voxel size in mm -> (3,) octaves above 1.5 mm, the scale at which the window is seen."""
    return torch.log2(spacing_kji / REFERENCE_SPACING_MM)
