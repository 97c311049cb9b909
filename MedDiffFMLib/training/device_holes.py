"""The masks of many holes at once, on any device: what :mod:`.holes` makes of one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .holes import Hole, Lattice

MOST_BLOBS = 3


def pack_holes(holes: Sequence[Hole]) -> dict[str, np.ndarray]:
    """The numbers of m holes as arrays for :func:`hole_masks`."""
    m = len(holes)
    lattice = np.zeros((m, 5), dtype=np.int64)  # edge, period (0: no lattice), shift along each axis
    blobs = np.zeros((m, MOST_BLOBS, 7))  # center, radius, kind (0: none, 1: ellipsoid, 2: box)
    blobs[:, :, 3:6] = 1
    for row, hole in enumerate(holes):
        if isinstance(hole, Lattice):
            lattice[row] = (hole.edge, hole.edge + hole.gap, *hole.shift)
        else:
            n = len(hole.centers)
            blobs[row, :n] = np.column_stack([hole.centers, hole.radii, np.where(hole.round, 1, 2)])
    return {"lattice": lattice, "blobs": blobs}


def hole_masks(lattice: torch.Tensor, blobs: torch.Tensor, size: int) -> torch.Tensor:
    """bool (m, size, size, size), none of them empty."""
    edge, period = (lattice[:, n, None, None] for n in (0, 1))
    lines = (torch.arange(size, device=lattice.device) + lattice[:, 2:, None]) % period.clamp(min=1) < edge
    mask = _product(lines & (period > 0))
    line = torch.arange(size, dtype=torch.float64, device=blobs.device) * (1 / max(size - 1, 1))
    line = line.float().double()  # as numpy.linspace in float32
    for center, radius, kind in ((blobs[:, n, :3], blobs[:, n, 3:6], blobs[:, n, 6]) for n in range(blobs.shape[1])):
        offset = (line - center[:, :, None]) / radius[:, :, None]
        k, j, i = offset.square().unbind(1)
        ball = (k[:, :, None, None] + j[:, None, :, None]) + i[:, None, None, :] < 1
        kinds = kind[:, None, None, None]
        mask |= (ball & (kinds == 1)) | (_product(offset.abs() < 0.8) & (kinds == 2))
    middle = size // 2
    mask[:, middle, middle, middle] |= ~mask.flatten(1).any(1)
    return mask


def _product(lines: torch.Tensor) -> torch.Tensor:
    """bool lines (m, 3, size) along each axis -> (m, size, size, size)."""
    return lines[:, 0, :, None, None] & lines[:, 1, None, :, None] & lines[:, 2, None, None, :]
