"""Noise level of a CT in HU, estimated from the image."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np

WINDOW = 7
PERCENTILE = 10.0
FACTOR = 1.17
"""Noise over that percentile, on training cases with simulated noise of known level (30 to 80 HU): within 10 %."""
WHITE_FACTOR = 0.915
"""The same once more for white noise, which is as strong in every small window as in the others."""
WHITENESS = (0.5, 0.85)
"""Noise between diagonal neighbors over all noise: of reconstructed CT, and nearly of white noise."""
COARSE_MM = 3.5
"""Pixels from here on leave no window within one tissue."""
THICK_MM = 4.0
"""Distance of slices from which on what differs between them is anatomy."""
NORMAL = 1.4826
"""Standard deviation over the median absolute value."""
TILE, FEWEST = 16, 64
"""Edge in pixels of the squares in which the strength of the noise is told, and voxels of soft tissue in them."""
LAG = 2
"""Pixels between the voxels of a second difference within slices: noise of CT is shared between neighbors."""
ANATOMY = 20.0
"""HU of a second difference within slices that vessels, fat and edges make, taken from it as squares. By training
volumes: with less of it levels of 15 HU are too high, with more of it levels of 60 HU that vary in space too low."""
MOST_UNEVEN = 1.25
"""The third measure over the larger of the others at most: of a quiet scan what is more is anatomy all the same."""
RUN, MOST = 4, 16_000_000
"""Slices that are looked at together, and voxels in all: of a larger scan some such runs."""


def estimate_noise(hounsfield: np.ndarray, pixel_mm: float = 1.0, slice_mm: float | None = 1.0) -> float | None:
    """Global noise level in soft tissue: the root of its mean variance there. The largest of three measures of it.

    The local standard deviation in 7x7 windows within slices (after Christianson et al. 2015, AJR 205). Christianson
    takes the mode of its histogram; on thick voxels most windows hold an edge and the mode lies far too high, so a low
    percentile is used, where edges are rare. It is too low where noise is stronger in the middle of the patient.

    Second differences from slice to slice. They see hardly any anatomy where slices are thin, and too little of noise
    that neighboring slices share. Where pixels are coarse they are all there is.

    The geometric mean of these and of second differences within slices, along rows or columns, whichever are stronger,
    for streaks run along one of both. Each is the root mean square over squares of 16 pixels, in which its median is
    robust, so that noise may vary in space. From those within slices what anatomy makes is taken, down to what differs
    between slices, which is no anatomy. Of a quiet scan some is left: it is at most a quarter above the other two. Of
    slices far apart second differences within them are all that is looked at beside the first measure.

    With noise of 15 to 60 HU of three kinds added to 57 training and validation volumes with pixels below 3.5 mm it
    errs by 5 % on average, and by 7 % where the scan's own noise is as strong as what is added
    (see ``docs/results/denoise-and-fill.md``).

    Args:
        hounsfield: (D, H, W), slices along the first axis.
        pixel_mm: edge of a pixel within slices.
        slice_mm: distance of the slices; None where slices between those given were left out, so that the first measure
            is all there is.

    Returns:
        Standard deviation in HU, or None when too little soft tissue is in the field of view.
    """
    apart = RUN * max(1, round(hounsfield.size / MOST))
    runs = [_look(hounsfield[first : first + RUN + 2], RUN) for first in range(0, len(hounsfield), apart)]
    local = np.concatenate([run.local for run in runs])
    if local.size < 500:
        return None
    unbiased = WINDOW / np.sqrt(WINDOW**2 - 1)
    within = float(np.percentile(local, PERCENTILE, overwrite_input=True) * unbiased * FACTOR)
    axial = np.concatenate([run.axial for run in runs])
    between = NORMAL * float(np.median(axial, overwrite_input=True)) if axial.size else 0.0
    along, rows, columns = (_strength(np.concatenate([run.tiles[n] for run in runs])) for n in range(3))
    if pixel_mm >= COARSE_MM and between > 0:
        return max(between, along)
    mixed = np.concatenate([run.mixed for run in runs])
    white = NORMAL * float(np.median(mixed, overwrite_input=True)) / max(within, 1e-6)
    within *= float(np.interp(white, WHITENESS, (1.0, WHITE_FACTOR)))
    if slice_mm is None:
        return within
    across = max(rows, columns)
    noise = max(across**2 - ANATOMY**2, 0.0) ** 0.5
    if slice_mm >= THICK_MM:
        return max(within, noise)
    least = max(within, between)
    return min(max(least, (along * min(across, max(along, noise))) ** 0.5), MOST_UNEVEN * least)


@dataclass(frozen=True)
class _Look:
    """What a few slices show where windows lie in soft tissue; differences are scaled to the deviation of white noise.

    Attributes:
        local: standard deviation in each window.
        axial, mixed: sizes of the second difference to the two slices that follow, and of the mixed difference to the
            diagonal neighbor.
        tiles: medians and numbers of voxels (n, 2) of squares, for second differences between slices and along
            rows and columns.
    """

    local: np.ndarray
    axial: np.ndarray
    mixed: np.ndarray
    tiles: tuple[np.ndarray, np.ndarray, np.ndarray]


def _look(hounsfield: np.ndarray, slices: int) -> _Look:
    """At the first ``slices``; the two that follow are there for the difference."""
    from scipy.ndimage import minimum_filter, uniform_filter

    size = (1, WINDOW, WINDOW)
    soft = (hounsfield > -300) & (hounsfield < 300)
    near = (slice(None), _range(soft.any((0, 2))), _range(soft.any((0, 1))))
    values, soft = hounsfield[near].astype(np.float32), soft[near]
    mean = uniform_filter(values, size)
    inside = minimum_filter(soft, size) & (np.abs(mean) < 150)
    run = inside[:-2] & inside[1:-1] & inside[2:]
    axial = _second_difference(values, 1, 0)
    values, mean, inside = values[:slices], mean[:slices], inside[:slices]
    local = np.sqrt(np.maximum(uniform_filter(values * values, size) - mean * mean, 0)[inside])
    mixed = np.abs(np.diff(np.diff(values, axis=1), axis=2))[inside[:, 1:, 1:]] / 2
    rows, columns = (_tiles(_second_difference(values, LAG, axis), _middle(inside, LAG, axis)) for axis in (1, 2))
    return _Look(local, axial[run], mixed, (_tiles(axial, run), rows, columns))


def _second_difference(values: np.ndarray, lag: int, axis: int) -> np.ndarray:
    """Sizes of the differences from a voxel to the mean of two, ``lag`` before and after it, as of white noise."""
    lines = np.moveaxis(values, axis, 0)
    second = lines[: -2 * lag] - 2 * lines[lag:-lag] + lines[2 * lag :]
    return np.moveaxis(np.abs(second) / np.float32(np.sqrt(6)), 0, axis)


def _middle(inside: np.ndarray, lag: int, axis: int) -> np.ndarray:
    """The voxels in the middle of such differences."""
    return np.moveaxis(np.moveaxis(inside, axis, 0)[lag:-lag], 0, axis)


def _tiles(sizes: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(n, 2): median of the chosen voxels, and their number, in each square of a slice that has enough of them."""
    k, j, i = sizes.shape
    rows, columns = -(-j // TILE), -(-i // TILE)
    padded = np.full((k, rows * TILE, columns * TILE), inf, np.float32)
    padded[:, :j, :i] = np.where(chosen, sizes, inf)
    squares = padded.reshape(k, rows, TILE, columns, TILE).swapaxes(2, 3).reshape(-1, TILE**2)
    count = np.isfinite(squares).sum(1)
    squares, count = np.sort(squares[count >= FEWEST], axis=1), count[count >= FEWEST]
    return np.stack([squares[np.arange(len(count)), count // 2], count], axis=1)


def _strength(tiles: np.ndarray) -> float:
    """Root mean square, over voxels, of the noise that these medians tell; 0 without any."""
    return NORMAL * float(np.sqrt(np.average(tiles[:, 0] ** 2, weights=tiles[:, 1]))) if len(tiles) else 0.0


def _range(hits: Any) -> slice:
    """From the first hit to the last, and as far beyond as a window sees from there; nothing without a hit.

    It begins with a square, so that squares lie alike in all runs of slices.
    """
    where = np.flatnonzero(hits)
    if not len(where):
        return slice(0)
    first = max(int(where[0]) - WINDOW // 2, 0)
    return slice(first - first % TILE, int(where[-1]) + WINDOW // 2 + 1)
