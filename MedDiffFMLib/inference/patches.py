"""Where windows lie and how they are blended; plain geometry, no network."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch

Box = tuple[slice, slice, slice]


def reflected_range(first: int, count: int, available: int) -> np.ndarray:
    """Indices first .. first + count - 1, folded back at the ends of 0 .. available - 1."""
    if available == 1:
        return np.zeros(count, dtype=int)
    period = 2 * (available - 1)
    index = np.mod(np.arange(first, first + count), period)
    return np.where(index >= available, period - index, index)


def window_starts(length: int, window: int, overlap: int) -> list[int]:
    """First voxels of windows that cover ``length`` evenly with at least ``overlap`` voxels in common."""
    if length <= window:
        return [0]
    count = int(np.ceil((length - overlap) / (window - overlap)))
    return [round(n * (length - window) / (count - 1)) for n in range(count)]


def ramp(window: int, overlap: int) -> torch.Tensor:
    """Blending weight along one axis: 1 in the middle, a raised cosine over the overlap at both ends, never 0."""
    position = torch.arange(window) + 0.5
    edge = torch.minimum(position, window - position) / max(overlap, 1)
    return 0.5 - 0.5 * torch.cos(torch.pi * edge.clamp(max=1.0)) + 1e-3


@dataclass(frozen=True)
class WindowPlan:
    """Windows over a box of voxels.

    Attributes:
        shape: (D, H, W) that the windows cover: the box, continued by reflection to what the network accepts.
        window: (d, h, w) of each window.
        boxes: where they lie.
        weights: three 1-D blending weights.
        total: three 1-D sums of weights; the full sum is their outer product.
    """

    shape: tuple[int, int, int]
    window: tuple[int, int, int]
    boxes: tuple[Box, ...]
    weights: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    total: tuple[torch.Tensor, torch.Tensor, torch.Tensor]

    def weight(self) -> torch.Tensor:
        """(d, h, w) blending weight of one window."""
        return torch.einsum("k,j,i->kji", *self.weights)

    def normaliser(self) -> torch.Tensor:
        """(D, H, W) sum of the weights of all windows."""
        return torch.einsum("k,j,i->kji", *self.total)


def plan_windows(shape: tuple[int, int, int], window: int, overlap: int, divisor: int) -> WindowPlan:
    """Lay windows of at most ``window`` voxels over ``shape``; edges are multiples of ``divisor``."""
    size = [min(window, -(-n // divisor) * divisor) for n in shape]
    full = [max(n, w) for n, w in zip(shape, size, strict=True)]
    starts = [window_starts(n, w, min(overlap, w // 2)) for n, w in zip(full, size, strict=True)]
    weights = [ramp(w, min(overlap, w // 2)) for w in size]
    total = []
    for axis in range(3):
        line = torch.zeros(full[axis])
        for start in starts[axis]:
            line[start : start + size[axis]] += weights[axis]
        total.append(line)
    boxes = tuple(
        tuple(slice(start, start + w) for start, w in zip(corner, size, strict=True)) for corner in product(*starts)
    )
    return WindowPlan(tuple(full), tuple(size), boxes, tuple(weights), tuple(total))  # type: ignore[arg-type]


def extend(x: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """Continue the last three axes by reflection up to ``shape``."""
    for axis, length in zip((-3, -2, -1), shape, strict=True):
        if x.shape[axis] < length:
            index = torch.from_numpy(reflected_range(0, length, x.shape[axis])).to(x.device)
            x = x.index_select(axis, index)
    return x
