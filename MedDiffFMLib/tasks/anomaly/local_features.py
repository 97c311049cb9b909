"""Local appearance of a CT around each voxel: statistics at four scales, the same however the scan lies or is mirrored.

Means and spreads of stretched HU, slopes, the shape of what is there (eigenvalues of the Hessian: a blob, a tube and a
sheet differ), and how much gas, bone, fat and body is near. Smoothing is normalized by the body: air and table around
it do not count. Coarse scales are computed on halved grids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import product

import numpy as np

SCALES_MM = (3.0, 6.0, 12.0, 24.0)
"""Standard deviations of the Gaussians."""
HALVINGS = (0, 1, 1, 2)
"""Number of times the grid is halved before each: from 3 mm on its voxels are no longer than the Gaussian is wide."""
STRETCH_HU = (-1000.0, -200.0, -150.0, 150.0, 300.0, 1000.0)
STRETCHED = (-6.2, -3.4, -3.0, 4.5, 6.0, 9.0)
"""40 HU are a unit in soft tissue, some 280 in lung and 230 in bone."""
TISSUES = {"gas": (-np.inf, -500.0, 4.0), "bone": (180.0, np.inf, 8.0), "fat": (-150.0, -30.0, 4.0)}
"""HU from and to, and the unit of its share."""
MAPS = ("hu", "first", "second", "body", *TISSUES)
"""Maps that are smoothed: HU, stretched HU and its square, the body, and tissues."""
RANGE_HU = (-1000.0, 1000.0)
TRUNCATE = 3.0
PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
"""Entries of a Hessian."""
ROWS = 20_000


def _names() -> Iterator[str]:
    yield "hu"
    for scale in SCALES_MM:
        yield from (f"mean{scale:g}", f"spread{scale:g}")
        if scale < SCALES_MM[-1]:
            yield from (f"slope{scale:g}", f"low{scale:g}", f"middle{scale:g}", f"high{scale:g}")
        if scale > SCALES_MM[1]:
            yield from (f"{name}{scale:g}" for name in (*TISSUES, "body"))


NAMES = tuple(_names())
"""Columns of :func:`feature_table`."""


def feature_table(
    hounsfield: np.ndarray,
    body: np.ndarray,
    spacing_kji: tuple[float, float, float],
    wanted: np.ndarray,
    done: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """(n, len(NAMES)) float16: the features of the ``wanted`` voxels, in array order.

    Args:
        hounsfield: (k, j, i) HU.
        body: bool, what counts at all.
        spacing_kji: mm.
        wanted: bool.
        done: called after each feature.
    """
    places = tuple(index.astype(np.int32) for index in np.nonzero(wanted))
    table = np.empty((len(NAMES), len(places[0])), np.float16)  # a column at a time: untouched memory costs nothing
    for column, values in zip(table, _features(hounsfield, body, spacing_kji, places), strict=True):
        column[:] = values
        done()
    return table.T


def _features(
    hounsfield: np.ndarray, body: np.ndarray, spacing_kji: tuple[float, float, float], places: tuple[np.ndarray, ...]
) -> Iterator[np.ndarray]:
    """One feature of all places after the other."""
    whole = _WholeMaps(hounsfield, body)
    yield _stretch(whole.clipped(places))
    maps: Mapping[str, np.ndarray] = whole
    halved = 0
    for scale, halvings in zip(SCALES_MM, HALVINGS, strict=True):
        while halved < halvings:
            maps = {name: _halved(maps[name]) for name in MAPS}
            halved += 1
        sample = _Sampler(places, maps["body"].shape, halved)
        yield from _at_scale(maps, [scale / s / 2**halved for s in spacing_kji], scale, sample)


class _WholeMaps(Mapping[str, np.ndarray]):
    """Maps to smooth, float32 on the whole grid, 0 outside the body; made when asked for, since they are large."""

    def __init__(self, hounsfield: np.ndarray, body: np.ndarray) -> None:
        self._hounsfield, self._body = hounsfield, body

    def __iter__(self) -> Iterator[str]:
        return iter(MAPS)

    def __len__(self) -> int:
        return len(MAPS)

    def __getitem__(self, name: str) -> np.ndarray:
        if name == "body":
            return self._body.astype(np.float32)
        values = np.empty(self._body.shape, np.float32)
        for plane, hounsfield in zip(values, self._hounsfield, strict=True):
            plane[:] = self._plane(name, np.clip(hounsfield, *RANGE_HU))
        values *= self._body
        return values

    def clipped(self, places: tuple[np.ndarray, ...]) -> np.ndarray:
        """HU at places."""
        return np.clip(self._hounsfield[places], *RANGE_HU)

    @staticmethod
    def _plane(name: str, hounsfield: np.ndarray) -> np.ndarray:
        if name == "hu":
            return hounsfield
        if name in TISSUES:
            low, high, _ = TISSUES[name]
            return (hounsfield >= low) & (hounsfield < high)
        stretched = _stretch(hounsfield)
        return stretched**2 if name == "second" else stretched


class _Sampler:
    """Values of a halved grid at voxels of the whole one, interpolated linearly."""

    def __init__(self, places: tuple[np.ndarray, ...], shape: tuple[int, ...], halvings: int) -> None:
        self._places, self._shape, self._halvings = places, shape, halvings

    @property
    def count(self) -> int:
        """Number of places."""
        return len(self._places[0])

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """At all places."""
        result = np.empty(self.count, np.float32)
        for part, (found,) in self.parts(values):
            result[part] = found
        return result

    def parts(self, *maps: np.ndarray) -> Iterator[tuple[slice, list[np.ndarray]]]:
        """Of several maps at some places at a time: what is needed in between is a dozen numbers a place."""
        for first in range(0, self.count, ROWS):
            part = slice(first, first + ROWS)
            places = tuple(index[part] for index in self._places)
            if self._halvings:
                corners = list(self._corners(places))
                yield part, [sum(weight * values.reshape(-1)[index] for index, weight in corners) for values in maps]
            else:
                yield part, [values[places] for values in maps]

    def _corners(self, places: tuple[np.ndarray, ...]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Flat index and weight of the eight voxels around each place; the grid's border is repeated."""
        lines = []
        for place, length in zip(places, self._shape, strict=True):
            at = np.clip((place + np.float32(0.5)) / 2**self._halvings - np.float32(0.5), 0, length - 1)
            first = np.minimum(at.astype(np.int32), max(length - 2, 0))
            far = (at - first).astype(np.float32)
            lines.append(((first, 1 - far), (np.minimum(first + 1, length - 1), far)))
        for (k, near_k), (j, near_j), (i, near_i) in product(*lines):
            yield (k * self._shape[1] + j) * self._shape[2] + i, near_k * near_j * near_i


def _at_scale(
    maps: Mapping[str, np.ndarray], widths: list[float], scale: float, sample: _Sampler
) -> Iterator[np.ndarray]:
    """The features of one scale; ``widths`` of its Gaussian in voxels of its grid."""
    from scipy.ndimage import gaussian_filter

    def smooth(name: str) -> np.ndarray:
        return gaussian_filter(maps[name], widths, truncate=TRUNCATE)

    near = smooth("body")
    share = np.maximum(near, 1e-3, out=near)
    mean = smooth("first") / share
    yield _stretch(sample(smooth("hu") / share))
    square = smooth("second")
    square /= share
    square -= mean**2
    yield np.log(0.1 + np.sqrt(np.maximum(sample(square), 0)))
    del square
    if scale < SCALES_MM[-1]:
        steepness = sum((np.gradient(mean, axis=axis) * width) ** 2 for axis, width in enumerate(widths))
        yield np.log(0.02 + np.sqrt(sample(steepness)) * (3 / scale))  # a unit is one of stretched HU in 3 mm
        del steepness
        for value in _curvatures(mean, widths, sample):
            yield np.sign(value) * np.log1p(3 * np.abs(value))
    if scale > SCALES_MM[1]:
        for name, (_, _, unit) in TISSUES.items():
            yield sample(smooth(name) / share) * unit
        yield sample(np.minimum(share, 1)) * 2


def _curvatures(mean: np.ndarray, widths: list[float], sample: _Sampler) -> np.ndarray:
    """(3, n): eigenvalues of the Hessian, rising, in units a squared width of the Gaussian."""
    units = [widths[a] * widths[b] for a, b in PAIRS]
    second = [np.gradient(np.gradient(mean, axis=a), axis=b) for a, b in PAIRS]
    values = np.empty((3, sample.count), np.float32)
    for part, entries in sample.parts(*second):
        values[:, part] = _eigenvalues(*(entry * unit for entry, unit in zip(entries, units, strict=True)))
    return values


def _eigenvalues(
    kk: np.ndarray, jj: np.ndarray, ii: np.ndarray, kj: np.ndarray, ki: np.ndarray, ji: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of symmetric 3x3 matrices, rising (Smith, CACM 4, 1961)."""
    middle = (kk + jj + ii) / 3
    across = 2 * (kj**2 + ki**2 + ji**2)
    size = np.sqrt(((kk - middle) ** 2 + (jj - middle) ** 2 + (ii - middle) ** 2 + across) / 6) + 1e-6
    a, b, c = ((entry - middle) / size for entry in (kk, jj, ii))
    d, e, f = (entry / size for entry in (kj, ki, ji))
    angle = np.arccos(np.clip((a * (b * c - f * f) - d * (d * c - f * e) + e * (d * f - b * e)) / 2, -1, 1)) / 3
    high = middle + 2 * size * np.cos(angle)
    low = middle + 2 * size * np.cos(angle + 2 * np.pi / 3)
    return low, 3 * middle - low - high, high


def _stretch(hounsfield: np.ndarray) -> np.ndarray:
    return np.interp(hounsfield, STRETCH_HU, STRETCHED).astype(np.float32)


def _halved(values: np.ndarray) -> np.ndarray:
    """Means of blocks of 2^3 voxels; the last plane of an odd number is repeated."""
    for axis in range(3):
        pad = [(0, n % 2 if a == axis else 0) for a, n in enumerate(values.shape)]
        values = np.pad(values, pad, mode="edge") if values.shape[axis] % 2 else values
        pairs = np.moveaxis(values, axis, 0)
        values = np.moveaxis((pairs[::2] + pairs[1::2]) / 2, 0, axis)
    return np.ascontiguousarray(values, np.float32)
