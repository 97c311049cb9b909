"""Window seams: roughness where windows end, beside that of their neighborhood.

The mean gradient across window borders over the mean gradient elsewhere; 1 means that nothing is to be seen. Anatomy
alone makes planes differ by more than a seam that matters, so borders are compared with the planes around them, and
the same borders at shifted places tell how far from 1 the ratio lies by chance.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Borders = tuple[Sequence[int], Sequence[int], Sequence[int]]
REACH = 3
"""Voxels on both sides of a border with which it is compared: anatomy hardly changes over so few."""
FARTHEST_SHIFT = 8


@dataclass(frozen=True)
class SeamRatio:
    """Mean gradient across window borders over that elsewhere.

    Attributes:
        overall: all axes, each compared with itself.
        axes: along (k, j, i); NaN where one window spans the axis.
        chance: standard deviation of ``overall`` over borders at shifted places, where no window ends.
    """

    overall: float
    axes: tuple[float, float, float]
    chance: float


def window_borders(shape: tuple[int, int, int], window: int = 64, overlap: int = 16, divisor: int = 8) -> Borders:
    """Borders of windows inside a volume of ``shape`` (k, j, i), in steps of either turn.

    Args:
        window, overlap, divisor: of the run: largest window edge, voxels in common, and what edges are multiples of.

    Returns:
        Along each axis the numbers p of the borders between voxels p - 1 and p.
    """
    from ...inference.window_plan import plan_windows

    borders: tuple[set[int], set[int], set[int]] = (set(), set(), set())
    for shifted in (False, True):
        plan = plan_windows(shape, window, overlap, divisor, shifted)
        for axis, box in itertools.product(range(3), plan.boxes):
            edges = (box[axis].start - plan.offset[axis], box[axis].stop - plan.offset[axis])
            borders[axis].update(edge for edge in edges if 0 < edge < shape[axis])
    return sorted(borders[0]), sorted(borders[1]), sorted(borders[2])


def seam_ratio(volume: np.ndarray, borders: Borders, reach: int | None = REACH) -> SeamRatio:
    """Visibility of the borders of windows in ``volume`` (k, j, i).

    Args:
        borders: from :func:`window_borders`.
        reach: voxels from a border within which its surroundings lie; None compares with the whole volume.

    Raises:
        ValueError: no axis has a border.
    """
    steps = [mean_steps(volume, axis) for axis in range(3)]
    areas = [volume.size / n for n in volume.shape]
    if not any(len(line) for line in borders):
        raise ValueError("one window spans the whole volume, so there is no border")
    by_axis = [_means(line, places, reach) for line, places in zip(steps, borders, strict=True)]
    shifted = []
    for shift in [*range(-FARTHEST_SHIFT, -1), *range(2, FARTHEST_SHIFT + 1)]:
        moved = [
            [p + shift for p in places if 0 < p + shift < n] for places, n in zip(borders, volume.shape, strict=True)
        ]
        shifted.append(_pooled([_means(line, places, reach) for line, places in zip(steps, moved, strict=True)], areas))
    axes = [at / beside if beside > 0 else float("nan") for at, beside, _ in by_axis]
    return SeamRatio(_pooled(by_axis, areas), (axes[0], axes[1], axes[2]), float(np.nanstd(shifted)))


def mean_steps(volume: np.ndarray, axis: int) -> np.ndarray:
    """(n,) mean absolute difference between planes p - 1 and p along an axis; NaN for p = 0. One plane at a time."""
    planes = np.moveaxis(volume, axis, 0)
    steps = np.full(len(planes), np.nan)
    before = planes[0].astype(np.float32)
    for p in range(1, len(planes)):
        plane = planes[p].astype(np.float32)
        steps[p] = np.abs(plane - before).mean(dtype=np.float64)
        before = plane
    return steps


def _means(steps: np.ndarray, places: Sequence[int], reach: int | None) -> tuple[float, float, int]:
    """Mean step at the borders, mean step around them, number of borders."""
    if not places:
        return float("nan"), float("nan"), 0
    around = np.abs(np.arange(len(steps))[:, None] - np.asarray(places)[None]).min(1)
    beside = (around > 0) & np.isfinite(steps)
    if reach is not None:
        beside &= around <= reach
    return float(steps[list(places)].mean()), float(steps[beside].mean()), len(places)


def _pooled(by_axis: Sequence[tuple[float, float, int]], areas: Sequence[float]) -> float:
    """Ratio over all axes, weighted by the area of the borders."""
    pairs = [(at * n * area, beside * n * area) for (at, beside, n), area in zip(by_axis, areas, strict=True) if n]
    at, beside = (sum(part) for part in zip(*pairs, strict=True)) if pairs else (np.nan, np.nan)
    return float(at / beside) if beside > 0 else float("nan")
