"""Window plan: positions and importance maps of sliding windows; plain geometry, no network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch

from ..core.async_copy import upload
from ..imaging.volume import Box

OVERLAP = 16
"""Voxels that neighboring windows share."""


def reflected_range(first: int, count: int, available: int) -> np.ndarray:
    """Indices first .. first + count - 1, folded back at the ends of 0 .. available - 1."""
    if available == 1:
        return np.zeros(count, dtype=int)
    period = 2 * (available - 1)
    index = np.mod(np.arange(first, first + count), period)
    return np.where(index >= available, period - index, index)


def window_starts(length: int, window: int, count: int) -> list[int]:
    """First voxels, even numbers, of ``count`` windows that cover an even ``length`` evenly."""
    return [2 * round(n * (length - window) / (count - 1) / 2) for n in range(count)] if count > 1 else [0]


def fewest_voxels(length: int, window: int, overlap: int, divisor: int) -> tuple[int, int]:
    """Number and edge of the windows along one axis whose voxels, those in common counted twice, are the fewest.

    Args:
        length: voxels to cover; one window does where it is long enough.
        window: longest edge. Edges are multiples of ``divisor``, and at least two thirds of the longest, so that every
            window sees about as much as the network was trained with.
    """
    window = max(window // divisor, 1) * divisor
    if length <= window:
        return 1, -(-length // divisor) * divisor
    even = length + length % 2
    best = (0, 0, 0)
    for edge in range(-(-2 * window // 3 // divisor) * divisor, window + 1, divisor):
        common = min(overlap, edge // 2)
        count = -(-(even - common) // (edge - common))
        if not best[0] or count * edge <= best[0]:
            best = (count * edge, count, edge)
    return best[1], best[2]


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
        offset: voxels along each axis by which that begins before the box.
        window: (d, h, w) of each window.
        boxes: where they lie.
        weights: three 1-D blending weights.
        total: three 1-D sums of weights; the full sum is their outer product, so that shares are products too.
    """

    shape: tuple[int, int, int]
    offset: tuple[int, int, int]
    window: tuple[int, int, int]
    boxes: tuple[Box, ...]
    weights: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    total: tuple[torch.Tensor, torch.Tensor, torch.Tensor]

    def importance_map(self, box: Box) -> torch.Tensor:
        """(d, h, w): what a window contributes to each of its voxels; the shares of all windows sum to one."""
        k, j, i = (weight / total[edge] for weight, total, edge in zip(self.weights, self.total, box, strict=True))
        return k[:, None, None] * j[:, None] * i

    def placed(self, box: Box, shape: tuple[int, int, int]) -> tuple[Box, Box, torch.Tensor]:
        """Place of a window in a volume, the part of it that does, and what it contributes there.

        Args:
            shape: (D, H, W) of the volume that was planned for.

        Returns:
            The volume's voxels, the window's, and the importance map of these.
        """
        place, part = inside(box, self.offset, shape)
        return place, part, self.importance_map(box)[part]

    def to(self, device: torch.device) -> WindowPlan:
        """The same with its lines on a device."""
        weights, total = ([upload(line, device) for line in lines] for lines in (self.weights, self.total))
        return replace(self, weights=tuple(weights), total=tuple(total))  # type: ignore[arg-type]


def plan_windows(
    shape: tuple[int, int, int], window: int, overlap: int, divisor: int, shifted: bool = False
) -> WindowPlan:
    """Lay windows of at most ``window`` voxels over ``shape``; edges are multiples of ``divisor``.

    The Haar stem takes voxels in pairs, and its error is larger between pairs than within. All windows of a plan
    therefore pair the same voxels.

    Args:
        shifted: pair voxels the other way along each axis that has several windows, in no more windows.
    """
    tiled = [fewest_voxels(n, window, overlap, divisor) for n in shape]
    count, size = [n for n, _ in tiled], [w for _, w in tiled]
    common = [min(overlap, w // 2) for w in size]
    # With two voxels more, windows overlap by up to four less; they are as many.
    offset = [int(shifted and n > w and c >= 4) for n, w, c in zip(shape, size, common, strict=True)]
    full = [max(n + o + (n + o) % 2, w) for n, w, o in zip(shape, size, offset, strict=True)]
    starts = [window_starts(*line) for line in zip(full, size, count, strict=True)]
    weights = [ramp(w, c) for w, c in zip(size, common, strict=True)]
    total = []
    for axis in range(3):
        line = torch.zeros(full[axis])
        for start in starts[axis]:
            line[start : start + size[axis]] += weights[axis]
        total.append(line)
    boxes = tuple(
        tuple(slice(start, start + w) for start, w in zip(corner, size, strict=True)) for corner in product(*starts)
    )
    return WindowPlan(tuple(full), tuple(offset), tuple(size), boxes, tuple(weights), tuple(total))  # type: ignore[arg-type]


def inside(box: Box, offset: tuple[int, int, int], shape: tuple[int, int, int]) -> tuple[Box, Box]:
    """The part of a window that lies in the volume, in the volume's voxels and in the window's."""
    place, part = [], []
    for edge, before, length in zip(box, offset, shape, strict=True):
        first, last = max(edge.start - before, 0), min(edge.stop - before, length)
        place.append(slice(first, last))
        part.append(slice(first + before - edge.start, last + before - edge.start))
    return (place[0], place[1], place[2]), (part[0], part[1], part[2])


def cut(x: torch.Tensor, box: Box, offset: tuple[int, int, int]) -> torch.Tensor:
    """A window of x (D, H, W), which is continued by reflection where the window leaves it; a view where it does not.

    Args:
        box: counted from ``offset`` voxels before the volume.
    """
    for axis, (edge, before) in enumerate(zip(box, offset, strict=True)):
        first, last = edge.start - before, edge.stop - before
        if first >= 0 and last <= x.shape[axis]:
            x = x.narrow(axis, first, last - first)
        else:
            index = upload(torch.from_numpy(reflected_range(first, last - first, x.shape[axis])), x.device)
            x = x.index_select(axis, index)
    return x


def extend(x: torch.Tensor, shape: tuple[int, int, int], offset: tuple[int, int, int] = (0, 0, 0)) -> torch.Tensor:
    """Continue the last three axes by reflection, ``offset`` voxels to the front, and on to ``shape`` in all."""
    for axis, length, before in zip((-3, -2, -1), shape, offset, strict=True):
        if x.shape[axis] < length:
            index = upload(torch.from_numpy(reflected_range(-before, length, x.shape[axis])), x.device)
            x = x.index_select(axis, index)
    return x
