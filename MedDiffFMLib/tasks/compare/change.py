"""Change between two scans in units of their noise.

The earlier scan is interpolated at the places of the later one by cubic splines. Between voxels that averages noise
away; how much follows from the spline's weights and the correlation of neighboring voxels' noise, axis by axis.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core.errors import InputError
from ...imaging.volume import Volume
from ...preprocessing.noise_estimate import estimate_noise
from .registration import Registration

ORDER = 3
"""Of the splines: linear interpolation blurs edges, which then look like change."""
SLAB_VOXELS = 4_000_000
STEPS = 64
"""Places between two voxels for which the noise is tabulated."""
SMOOTHING_MM = 2.5
"""Changes are looked for in averages over about such a radius."""
CALIBRATION_HU = 4.0
"""By which the same tissue differs between two days of a scanner, or between two scanners."""
_REACH = 8


@dataclass(frozen=True)
class Noise:
    """Noise of a scan.

    Attributes:
        hu: standard deviation.
        correlation: of neighboring voxels along (k, j, i).
    """

    hu: float
    correlation: tuple[float, float, float]

    def left(self, axis: int) -> np.ndarray:
        """Part of the variance that interpolation leaves along an axis, at ``STEPS`` + 1 places between two voxels."""
        from scipy.ndimage import map_coordinates

        line = np.zeros((2 * _REACH + 2, 2 * _REACH + 2))
        np.fill_diagonal(line, 1.0)
        places = _REACH + np.linspace(0, 1, STEPS + 1)
        weights = np.stack([map_coordinates(unit, [places], order=ORDER, mode="mirror") for unit in line], axis=1)
        apart = np.abs(np.subtract.outer(np.arange(len(line)), np.arange(len(line))))
        alike = np.clip(self.correlation[axis], 0.0, 0.95) ** apart**2
        return np.einsum("pn,nm,pm->p", weights, alike, weights)


def noise_of(volume: Volume, name: str) -> Noise:
    """Noise of a scan in patient axes, by the library's estimator.

    Raises:
        InputError: there is too little soft tissue.
    """
    level = estimate_noise(volume.voxels, volume.spacing[0], volume.spacing[2])
    if level is None:
        raise InputError(
            f"The noise of the {name} scan cannot be estimated: there is too little soft tissue.",
            "Give scans of the trunk, the neck or a limb.",
        )
    return Noise(max(level, 0.5), _correlation(volume.voxels))


def _correlation(hounsfield: np.ndarray) -> tuple[float, float, float]:
    """Of neighbors along each axis, as if a Gaussian kernel had made it.

    Second differences along a line are nearly free of anatomy. How much larger the sum of two neighboring ones is than
    one of them follows from the correlation of the voxels.
    """
    every = max(1, len(hounsfield) // 40)
    correlation = np.linspace(0, 0.9, 91)
    one = 1.5 - 2 * correlation + 0.5 * correlation**4
    two = 1 - 0.5 * correlation - correlation**4 + 0.5 * correlation**9
    found = []
    for axis in range(3):
        line = np.moveaxis(hounsfield, axis, -1)[::every].astype(np.float32)
        parts = [line[..., n : line.shape[-1] - 3 + n] for n in range(4)]
        inside = np.all([np.abs(part) < 150 for part in parts], axis=0)
        a, b, c, d = (part[inside] for part in parts)
        if len(a) < 500:
            found.append(0.0)
            continue
        alone, both = np.median(np.square(b - (a + c) / 2)), np.median(np.square((b + c - a - d) / 2))
        found.append(float(np.interp(both / max(alone, 1e-6), two / one, correlation)))
    return found[0], found[1], found[2]


@dataclass(frozen=True)
class Change:
    """What changed, on the later scan's grid.

    Attributes:
        aligned: float32 (k, j, i), the earlier scan's HU; the lowest value where it does not reach.
        shared: bool, where both scans are.
        score: float32, later less earlier in standard deviations of the noise of both; 0 where not both are.
        misfit: float32, HU that the error of the registration may make of edges.
    """

    aligned: np.ndarray
    shared: np.ndarray
    score: np.ndarray
    misfit: np.ndarray


def changing(
    later: Volume, earlier: Volume, registration: Registration, noises: tuple[Noise, Noise], misfit: float
) -> Iterator[Change | None]:
    """The change, slab by slab; the last item is the result, those before it are None.

    Args:
        later, earlier: in patient axes.
        noises: of the later and of the earlier scan.
        misfit: mm that edges may be displaced by the error of the registration.
    """
    from scipy.ndimage import map_coordinates, spline_filter

    prepared = spline_filter(earlier.voxels, ORDER, output=np.float32, mode="mirror")
    inverse = np.linalg.inv(earlier.ijk_to_ras)
    tables = [noises[1].left(axis) for axis in range(3)]
    shape = later.voxels.shape
    aligned, score = np.empty(shape, np.float32), np.empty(shape, np.float32)
    shared = np.empty(shape, bool)
    thickness = max(1, SLAB_VOXELS // later.voxels[0].size)
    for first in range(0, shape[0], thickness):
        part = slice(first, min(first + thickness, shape[0]))
        points = registration.points(later, part.start, part.stop)
        index = [np.tensordot(inverse[axis, :3], points, 1) + inverse[axis, 3] for axis in (2, 1, 0)]
        inside = np.ones(points.shape[1:], bool)
        left = np.ones(points.shape[1:], np.float32)
        for line, count, table in zip(index, earlier.voxels.shape, tables, strict=True):
            inside &= (line >= 0) & (line <= count - 1)
            left *= table[np.rint((line - np.floor(line)) * STEPS).astype(np.uint8)]
        aligned[part] = map_coordinates(prepared, index, order=ORDER, mode="mirror", prefilter=False)
        score[part], shared[part] = noises[1].hu ** 2 * left, inside
        yield None
    displaced = np.empty(shape, np.float32)
    low, high = float(earlier.voxels.min()), float(earlier.voxels.max())
    np.clip(aligned, low, high, out=aligned)
    aligned[~shared] = low
    for first in range(0, shape[0], thickness):
        part = slice(first, min(first + thickness, shape[0]))
        displaced[part] = misfit * np.sqrt(_steepness((later.voxels, aligned), noises, later, part))
        variance = score[part] + noises[0].hu ** 2 + displaced[part] ** 2
        score[part] = np.where(shared[part], (later.voxels[part] - aligned[part]) / np.sqrt(variance), 0)
        yield None
    yield Change(aligned, shared, score, displaced)


def _steepness(images: tuple[np.ndarray, np.ndarray], noises: tuple[Noise, Noise], later: Volume, part: slice) -> Any:
    """Square of the larger one of both scans' gradients, (HU / mm)^2, in some planes; without what noise makes of it.

    Args:
        images: later and aligned earlier scan.
        noises: of them.
    """
    around = slice(max(part.start - 1, 0), min(part.stop + 1, len(later.voxels)))
    kept = slice(part.start - around.start, part.stop - around.start)
    steepest = np.zeros(later.voxels[part].shape, np.float32)
    for image, noise in zip(images, noises, strict=True):
        lines = np.gradient(image[around].astype(np.float32), *reversed(later.spacing))
        own = lines[0][kept] ** 2 + lines[1][kept] ** 2 + lines[2][kept] ** 2
        own -= noise.hu**2 * sum(1 / edge**2 for edge in later.spacing)  # twice its mean: flat tissue has none left
        steepest = np.maximum(steepest, own)
    return steepest


def averaged(change: Change, later: Volume) -> np.ndarray:
    """Averages of the change over a few millimeters, float32, in standard deviations of what noise makes of them.

    Errors of the registration and of the scanners' calibration are no noise: averaging leaves them. 0 beside the body,
    for tables and clothes lie otherwise each time.
    """
    from scipy.ndimage import gaussian_filter

    from ...conditioning.region import body_mask

    widths = [SMOOTHING_MM / edge for edge in reversed(later.spacing)]
    difference = np.where(change.shared, later.voxels - change.aligned, 0).astype(np.float32)
    smooth = gaussian_filter(difference, widths, truncate=3.0)
    lasting = gaussian_filter(change.misfit, widths, truncate=3.0)
    body = change.shared & body_mask(later.voxels)
    flat = smooth[body & (lasting < CALIBRATION_HU)][::7]
    spread = 1.4826 * float(np.median(np.abs(flat - np.median(flat)))) if flat.size > 100 else 0.0
    smooth /= np.sqrt(spread**2 + CALIBRATION_HU**2 + lasting**2)
    smooth[~body] = 0
    return smooth
