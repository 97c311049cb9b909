"""Errors that forgive a rigid shift of some voxels between a result and a truth that was aligned to it."""

from __future__ import annotations

from itertools import product

import torch

REACH = 2
"""Voxels along each axis by which the truth may be moved."""


def best_shift(image: torch.Tensor, truth: torch.Tensor, weight: torch.Tensor, reach: int = REACH) -> tuple[int, ...]:
    """Shift (k, j, i) of the truth that makes the mean absolute difference least; (1, D, H, W) each."""
    inner = shifted(image, (0, 0, 0), reach)
    best: tuple[int, ...] = (0, 0, 0)
    least = float("inf")
    for shift in product(range(-reach, reach + 1), repeat=3):
        there, share = shifted(truth, shift, reach), shifted(weight, shift, reach)
        total = share.sum()
        if total <= 0:
            continue
        error = float(((inner - there).abs() * share).sum() / total) + 1e-4 * sum(map(abs, shift))
        if error < least:
            best, least = shift, error
    return best


def shifted(volume: torch.Tensor, shift: tuple[int, ...], reach: int = REACH) -> torch.Tensor:
    """The inner voxels of a volume (..., D, H, W) seen from ``shift`` away; ``reach`` fewer at each side."""
    for axis, step in zip((-3, -2, -1), shift, strict=True):
        volume = volume.narrow(axis, reach + step, volume.shape[axis] - 2 * reach)
    return volume
