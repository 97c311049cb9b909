"""Separable linear resampling between grids with parallel axes.

Matrices are 4x4 and lead from an index (i, j, k, 1) of the output to one of the array; arrays are (k, j, i).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

TRUNCATE = 3.0
"""Standard deviations after which a Gaussian ends."""
PLANE_VOXELS = 4_000_000
"""Voxels that a sparse matrix is applied to at a time."""

Between = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def resample_by_axes(
    array: np.ndarray,
    matrix: np.ndarray,
    shape: tuple[int, ...],
    fill: float,
    margin: np.ndarray,
    widths: tuple[float, float, float],
) -> np.ndarray:
    """Result of SciPy's ``affine_transform`` with ``order`` 1 after smoothing, axis by axis; then ``fill`` beyond.

    Smoothing and interpolation along an axis are one matrix with a few figures a row, so that nothing is smoothed that
    is not asked for. The axes that lose most voxels come first.

    Args:
        shape: of the output.
        margin: (i, j, k) voxels beyond the outermost centers up to which the border is repeated; then ``fill``.
        widths: standard deviations (k, j, i) in voxels.
    """
    points = _points(matrix, shape)
    result = array
    for axis in sorted(range(3), key=lambda axis: shape[axis] / array.shape[axis]):
        result = _along_axis(_line_matrix(points[axis], array.shape[axis], widths[axis]), result, axis)
    for axis in range(3):
        outside = _outside(points[axis], array.shape[axis], margin[2 - axis])
        result[(slice(None),) * axis + (outside,)] = fill
    return result


def interpolate_by_axes(
    array: np.ndarray,
    matrix: np.ndarray,
    shape: tuple[int, ...],
    fill: float,
    margin: np.ndarray,
    span: tuple[int, int] | None = None,
) -> np.ndarray:
    """Result of SciPy's ``affine_transform`` with ``order`` 1, plane by plane; then ``fill`` beyond.

    Only the two planes of ``array`` that a plane of the output lies between are held beside the output.

    Args:
        shape, margin: see :func:`resample_by_axes`.
        span: first and one past the last plane of the output that are asked for; None for all.
    """
    first, last = (0, shape[0]) if span is None else span
    points = _points(matrix, shape)
    points[0] = points[0][first:last]
    between = [_between(line, n, np.float32) for line, n in zip(points, array.shape, strict=True)]
    result = np.zeros([len(line) for line in points], np.float32)
    # Zeros stay zeros: what lies around the body is not computed, and its memory is never touched.
    box = tuple(_busy(array, between))
    planes, rows, columns = (_part(line, edge) for line, edge in zip(between, box, strict=True))
    _fill_planes(result[box], array, planes, rows, columns)
    for axis, (line, n, reach) in enumerate(zip(points, array.shape, margin[::-1], strict=True)):
        result[(slice(None),) * axis + (_outside(line, n, reach),)] = fill
    return result


def _busy(array: np.ndarray, between: list[Between]) -> Iterator[slice]:
    """Box of the output beyond which everything lies between zeros."""
    used = slice(int(between[0][0].min()), int(between[0][1].max()) + 1)
    for axis, (before, after, *_) in enumerate(between):
        hit = np.zeros(array.shape[axis], bool)
        others = tuple(n for n in range(3) if n != axis)
        hit[used if axis == 0 else slice(None)] = np.any(array[used], axis=others)
        where = np.flatnonzero(hit[before] | hit[after])
        yield slice(int(where[0]), int(where[-1]) + 1) if len(where) else slice(0)


def _part(line: Between, edge: slice) -> Between:
    before, after, near, far = line
    return before[edge], after[edge], near[edge], far[edge]


def _fill_planes(result: np.ndarray, array: np.ndarray, planes: Between, rows: Between, columns: Between) -> None:
    """Each plane of ``result`` from the two planes of ``array`` that it lies between."""
    before, after, near, far = planes
    # New memory costs more than the sums: these few planes serve all the time.
    wide = np.empty((2, array.shape[1], result.shape[2]), np.float32)
    held, other = np.empty((2, *result.shape[1:]), np.float32), np.empty(result.shape[1:], np.float32)
    number = [-1, -1]

    def spread(n: int) -> np.ndarray:
        """Plane ``n`` of the array at the output's rows and columns."""
        if number[n % 2] != n:
            _interpolate(array[n].astype(np.float32, copy=False), columns, 1, *wide)
            _interpolate(wide[0], rows, 0, held[n % 2], other)
            number[n % 2] = n
        return held[n % 2]

    for k, plane in enumerate(result):
        np.multiply(spread(int(before[k])), near[k], out=plane)
        plane += np.multiply(spread(int(after[k])), far[k], out=other)


def _interpolate(plane: np.ndarray, between: Between, axis: int, out: np.ndarray, spare: np.ndarray) -> None:
    """A plane (j, i), float32, linear along one axis, into ``out``; ``spare`` is of that size."""
    before, after, near, far = between
    shares = (near, far) if axis == 1 else (near[:, None], far[:, None])
    for index, share, target in zip((before, after), shares, (out, spare), strict=True):
        np.take(plane, index, axis=axis, out=target, mode="clip")  # the default mode copies once more
        target *= share
    out += spare


def _points(matrix: np.ndarray, shape: tuple[int, ...]) -> list[np.ndarray]:
    """Index along each array axis at which a diagonal ``matrix`` places the voxels of an output of ``shape``."""
    scale, offset = np.diag(matrix)[2::-1], matrix[2::-1, 3]
    return [offset[axis] + scale[axis] * np.arange(shape[axis]) for axis in range(3)]


def _outside(points: np.ndarray, length: int, margin: float) -> np.ndarray:
    """Which points lie more than ``margin`` beyond a line of voxels."""
    return np.flatnonzero((points < -margin) | (points > length - 1 + margin))


def _between(points: np.ndarray, length: int, kind: type = np.float64) -> Between:
    """The two voxels that each point of a line lies between, and the share of each; its ends are repeated."""
    at = np.clip(points, 0, length - 1)
    first = np.minimum(np.floor(at).astype(int), max(length - 2, 0))
    share = at - first
    return first, np.minimum(first + 1, length - 1), (1 - share).astype(kind), share.astype(kind)


def _line_matrix(points: np.ndarray, length: int, width: float) -> Any:
    """Sparse (points, length): a line of voxels smoothed by a Gaussian and interpolated; its ends are repeated."""
    from scipy.ndimage import gaussian_filter1d
    from scipy.sparse import csr_array

    first, second, near, far = _between(points, length)
    entries = np.concatenate([near, far]), (np.tile(np.arange(len(points)), 2), np.concatenate([first, second]))
    line = csr_array(entries, shape=(len(points), length))
    if width > 0:
        smooth = gaussian_filter1d(np.eye(length), width, axis=0, mode="nearest", truncate=TRUNCATE)
        line = line @ csr_array(smooth)
    return line.astype(np.float32)


def _along_axis(line: Any, array: np.ndarray, axis: int) -> np.ndarray:
    """The matrix applied along one axis of ``array``, a few planes at a time, to keep memory small."""
    shape = list(array.shape)
    shape[axis] = line.shape[0]
    result = np.empty(shape, np.float32)
    other = 1 if axis == 0 else 0  # planes hold the axis and one that is whole
    step = max(1, PLANE_VOXELS * array.shape[other] // array.size)
    for first in range(0, array.shape[other], step):
        part: tuple[slice, ...] = (
            (slice(first, first + step),) if other == 0 else (slice(None), slice(first, first + step))
        )
        lines = np.moveaxis(array[part], axis, 0)
        found = line @ np.ascontiguousarray(lines, np.float32).reshape(len(lines), -1)
        result[part] = np.moveaxis(found.reshape(-1, *lines.shape[1:]), 0, axis)
    return result


def linear_weights(start: float, step: float, count: int, available: int) -> np.ndarray:
    """Antialiased linear interpolation along one axis as a (count, available) matrix with rows that sum to one.

    Args:
        start, step: position of output voxel 0 and distance between output voxels, in input voxels.
        available: number of input voxels; positions outside take the edge value.
    """
    positions = np.clip(start + step * np.arange(count), 0, available - 1)
    width = max(step, 1.0)
    weights = np.clip(1.0 - np.abs(np.arange(available)[None] - positions[:, None]) / width, 0.0, None)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def resample_box(array: np.ndarray, start: np.ndarray, step: np.ndarray, count: tuple[int, int, int]) -> np.ndarray:
    """Sample ``count`` voxels per axis from ``array`` (k, j, i); only the part that is needed is read."""
    matrices, box = [], []
    for axis in range(3):
        margin = max(step[axis], 1.0) + 1
        low = int(np.clip(np.floor(start[axis] - margin), 0, array.shape[axis] - 1))
        end = start[axis] + step[axis] * (count[axis] - 1)
        high = int(np.clip(np.ceil(end + margin) + 1, low + 1, array.shape[axis]))
        box.append(slice(low, high))
        matrices.append(linear_weights(start[axis] - low, step[axis], count[axis], high - low))
    part = np.asarray(array[tuple(box)], dtype=np.float32)
    part = np.tensordot(matrices[0], part, axes=(1, 0))
    part = np.moveaxis(np.tensordot(matrices[1], part, axes=(1, 1)), 0, 1)
    return np.ascontiguousarray(np.moveaxis(np.tensordot(matrices[2], part, axes=(1, 2)), 0, 2))
