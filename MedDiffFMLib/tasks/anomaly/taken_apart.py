"""Regions of an anomaly map that hold several peaks, taken apart at the passes between them.

At a low threshold a lesion and what is conspicuous beside it are one region, whose highest voxel may lie in the other.
A peak is a finding of its own where it is the highest voxel of its region within 20 mm and every way to a higher one
goes below 95 % of it; the region is divided among its findings by the watershed of the map.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np

from .watershed import basins

SEPARATION_MM = 20.0
PASS = 0.95
"""A way that stays above this share of the lower peak joins two peaks."""
STRIDE_MM = 3.0
"""Peaks are sought on every voxel of no more than that distance: the map was made on such a grid."""

Voxels = tuple[np.ndarray, np.ndarray]
"""Flat indices of voxels above the threshold, and the number from 0 of the region that each lies in."""


def take_apart(found: Sequence[Voxels], score: np.ndarray, spacing_kji: Sequence[float]) -> Generator[None, None, None]:
    """Give voxels the numbers of their findings, in place and in short steps.

    The first finding of a region keeps its number, the others get numbers after the last.

    Args:
        found: some at a time.
        score: (k, j, i); spacing_kji: mm.
    """
    from scipy.ndimage import find_objects

    strides = [max(1, int(STRIDE_MM // s)) for s in spacing_kji]
    coarse = score[tuple(slice(None, None, stride) for stride in strides)]
    numbers = np.zeros(coarse.shape, np.int32)
    count = 0
    for index, region in found:
        voxels = np.unravel_index(index, score.shape)
        on = np.all([axis % stride == 0 for axis, stride in zip(voxels, strides, strict=True)], axis=0)
        numbers[tuple(axis[on] // stride for axis, stride in zip(voxels, strides, strict=True))] = region[on] + 1
        count = max(count, int(region.max(initial=-1)) + 1)
        yield
    steps = [stride * s for stride, s in zip(strides, spacing_kji, strict=True)]
    for number, box in enumerate(find_objects(numbers)):
        if box is None:
            continue
        parted, parts = split(coarse[box], numbers[box] == number + 1, steps)
        yield
        if parts > 1:
            _renumber(found, number, count - 2, parted, [b.start for b in box], strides, score.shape)
            count += parts - 1
            yield


def _renumber(
    found: Sequence[Voxels],
    number: int,
    before: int,
    parted: np.ndarray,
    corner: Sequence[int],
    strides: Sequence[int],
    shape: tuple[int, ...],
) -> None:
    """Give the voxels of a region the number of their basin: of the first the region's own, else ``before`` + basin."""
    for index, region in found:
        own = np.flatnonzero(region == number)
        voxels = np.unravel_index(index[own], shape)
        cells = zip(voxels, strides, corner, parted.shape, strict=True)
        basin = parted[tuple(np.clip(axis // stride - c, 0, length - 1) for axis, stride, c, length in cells)]
        region[own] = np.where(basin < 2, number, before + basin)


def split(score: np.ndarray, inside: np.ndarray, spacing_kji: Sequence[float]) -> tuple[np.ndarray, int]:
    """Number from 1 of the finding whose basin each voxel of a box lies in, highest peak first, and how many there are.

    Args:
        score: (k, j, i) of the region's box.
        inside: bool, the region.
    """
    if all(length * s <= SEPARATION_MM for length, s in zip(score.shape, spacing_kji, strict=True)):
        return np.ones(score.shape, np.int32), 1
    markers, count = _peaks(np.where(inside, score, -np.inf).astype(np.float32, copy=False), spacing_kji)
    return (basins(score, inside, markers), count) if count > 1 else (np.ones(score.shape, np.int32), 1)


def _peaks(score: np.ndarray, spacing_kji: Sequence[float]) -> tuple[np.ndarray, int]:
    """Numbers from 1 at the voxels that are findings' peaks, highest first, 0 elsewhere, and how many there are.

    Args:
        score: (k, j, i), minus infinity outside of the region.
    """
    from scipy.ndimage import label, maximum_filter

    reach = [2 * max(1, round(SEPARATION_MM / s)) + 1 for s in spacing_kji]
    highest = score == maximum_filter(score, reach, mode="constant", cval=-np.inf)
    tops = np.argwhere(highest & np.isfinite(score))
    tops = tops[np.argsort(-score[tuple(tops.T)], kind="stable")]
    markers, count = np.zeros(score.shape, np.int32), 0
    for top in map(tuple, tops):
        near = label(score > PASS * score[top], np.ones((3, 3, 3)))[0]
        if not (markers[near == near[top]] > 0).any():
            count += 1
            markers[top] = count
    return markers, count
