"""Working grids with axes along the patient's, and resampling to and from any input geometry.

Two kinds: the acquisition grid (the input's own voxels, axes only permuted and flipped: exact both ways) and an
isotropic grid (interpolated). SciPy does the interpolation, in double precision coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..core.errors import InputError
from .axis_order import LPS_AXES, AxisOrder
from .resampling import TRUNCATE, interpolate_by_axes, resample_by_axes
from .volume import Volume

_MAX_VOXELS = 1_500_000_000


@dataclass(frozen=True)
class Grid:
    """Lattice on which voxels lie.

    Attributes:
        shape: (k, j, i).
        ijk_to_ras: 4x4 float64, voxel index (i, j, k, 1) to RAS mm.
    """

    shape: tuple[int, int, int]
    ijk_to_ras: np.ndarray

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel edge lengths (i, j, k) in mm."""
        si, sj, sk = np.linalg.norm(self.ijk_to_ras[:3, :3], axis=0)
        return float(si), float(sj), float(sk)


def same_box(grid: Grid, shape: tuple[int, int, int]) -> Grid:
    """The box that ``grid`` covers, outer edge to outer edge, in ``shape`` (k, j, i) voxels."""
    factor = np.array(grid.shape[::-1]) / np.array(shape[::-1])
    change = np.diag([*factor, 1.0])
    change[:3, 3] = (factor - 1) / 2
    return Grid(shape, grid.ijk_to_ras @ change)


def working_grid(volume: Volume, spacing_mm: float | None) -> Grid:
    """The grid on which a task works; all voxel centers of ``volume`` lie inside it.

    Args:
        volume: any orthogonal geometry.
        spacing_mm: edge length of isotropic voxels along left, posterior, superior; None for the acquisition grid.

    Raises:
        InputError: the spacing is not positive, or so fine that the grid would not fit into memory.
    """
    if spacing_mm is None:
        return _acquisition_grid(volume)
    if not spacing_mm > 0:
        raise InputError(f"A working spacing of {spacing_mm:g} mm is not possible.", "Give a positive spacing in mm.")
    if np.allclose(_acquisition_grid(volume).ijk_to_ras[:3, :3], spacing_mm * LPS_AXES, atol=1e-6 * spacing_mm):
        return _acquisition_grid(volume)  # the input has these voxels already
    corners = LPS_AXES @ (volume.ijk_to_ras @ _corners(volume.voxels.shape))[:3]
    low, high = corners.min(axis=1), corners.max(axis=1)
    steps = np.ceil((high - low) / spacing_mm - 1e-6)
    shape = tuple(int(n) + 1 for n in steps[::-1])
    if np.prod(steps + 1) > _MAX_VOXELS:
        raise InputError(
            f"A working spacing of {spacing_mm:g} mm needs a grid of {np.prod(steps + 1):.2g} voxels.",
            "Choose a coarser working spacing, or crop the volume.",
        )
    low -= np.maximum(steps * spacing_mm - (high - low), 0.0) / 2  # the overhang is shared by both sides
    matrix = np.eye(4)
    matrix[:3, :3] = spacing_mm * LPS_AXES
    matrix[:3, 3] = LPS_AXES @ low
    return Grid(shape, matrix)  # type: ignore[arg-type]


def to_grid(volume: Volume, grid: Grid, order: int = 1, fill: float = -1024) -> np.ndarray:
    """Voxels of ``volume`` on ``grid``, float32, shape ``grid.shape``.

    Where the grid is coarser than the voxels they are smoothed first (not for ``order`` 0). Just outside the volume,
    as far as :func:`from_grid` looks, the border is repeated; beyond that is ``fill``.

    Args:
        order: of the spline: 0 for label maps, 1 linear (default), up to 5.
        fill: HU of what lies outside (air).
    """
    order_of_axes = _axis_map(volume, grid)
    if order_of_axes is not None:
        return np.ascontiguousarray(order_of_axes.turn(volume.voxels), dtype=np.float32)
    matrix = np.linalg.inv(volume.ijk_to_ras) @ grid.ijk_to_ras
    # one grid cell, measured in input voxels: from_grid interpolates between grid points this far outside
    margin = np.maximum(0.5, np.abs(matrix[:3, :3]).sum(axis=1))
    widths = _smoothing(volume, grid)
    if order == 1 and _is_diagonal(matrix[:3, :3]):
        if not any(widths):
            return interpolate_by_axes(volume.voxels, matrix, grid.shape, fill, margin)
        return resample_by_axes(volume.voxels, matrix, grid.shape, fill, margin, widths)
    voxels = volume.voxels if order == 0 else _antialiased(volume.voxels, widths)
    return _resample(voxels, matrix, grid.shape, order, fill, margin).astype(np.float32, copy=False)


def from_grid(
    array: np.ndarray, grid: Grid, volume: Volume, order: int = 1, fill: float = 0, planes: slice | None = None
) -> np.ndarray:
    """``array`` (values on ``grid``) on exactly the voxels of ``volume``.

    Returns:
        Array of ``volume.voxels.shape``; dtype of ``array`` where nothing is interpolated (acquisition grid or
        ``order`` 0), else float32.

    Args:
        fill: value where the grid does not reach.
        planes: of the volume's first axis, with a start and a stop; the others are not computed. None for all.
    """
    if array.shape != grid.shape:
        raise ValueError(f"array of shape {array.shape} does not lie on a grid of shape {grid.shape}")
    first, last = (0, len(volume.voxels)) if planes is None else (planes.start, planes.stop)
    order_of_axes = _axis_map(volume, grid)
    if order_of_axes is not None:
        return np.ascontiguousarray(order_of_axes.turn_back(array)[first:last])
    matrix = np.linalg.inv(grid.ijk_to_ras) @ volume.ijk_to_ras
    shape = volume.voxels.shape
    if order == 1 and array.dtype != bool and _is_diagonal(matrix[:3, :3]):
        return interpolate_by_axes(array, matrix, shape, fill, np.full(3, 0.5), (first, last))
    matrix = matrix @ _shift_of_planes(first)
    shape = (last - first, *shape[1:])
    if array.dtype == bool:
        return _resample(array.astype(np.uint8), matrix, shape, order, fill, np.full(3, 0.5)) > 0.5
    return _resample(array, matrix, shape, order, fill, np.full(3, 0.5))


def _corners(shape: tuple[int, ...]) -> np.ndarray:
    """Centers of the eight corner voxels, homogeneous (i, j, k, 1) columns."""
    k, j, i = shape
    return np.array([[a, b, c, 1.0] for a in (0, i - 1) for b in (0, j - 1) for c in (0, k - 1)]).T


def _acquisition_grid(volume: Volume) -> Grid:
    """The input's own voxels, axes permuted and flipped to be as close as possible to left, posterior, superior."""
    order, stored = AxisOrder.of(volume.ijk_to_ras), volume.voxels.shape
    k, j, i = (stored[axis] for axis in order.axes)
    return Grid((k, j, i), volume.ijk_to_ras @ order.matrix(stored))


def _axis_map(volume: Volume, grid: Grid) -> AxisOrder | None:
    """The order of the input's axes where the grid is its acquisition grid, else None."""
    own = _acquisition_grid(volume)
    if own.shape != tuple(grid.shape) or not np.allclose(own.ijk_to_ras, grid.ijk_to_ras, rtol=0, atol=1e-9):
        return None
    return AxisOrder.of(volume.ijk_to_ras)


def _smoothing(volume: Volume, grid: Grid) -> tuple[float, float, float]:
    """Standard deviations (k, j, i) in voxels of the Gaussians after which the grid can carry the voxels.

    Their widths turn one voxel size into the other (Cardoso et al., Scale factor point spread function matching,
    MICCAI 2015).
    """
    target = min(grid.spacing)
    ratios = [max(target / spacing, 1.0) for spacing in reversed(volume.spacing)]
    k, j, i = (np.sqrt(r**2 - 1) / (2 * np.sqrt(2 * np.log(2))) if r > 1 + 1e-3 else 0.0 for r in ratios)
    return k, j, i


def _antialiased(voxels: np.ndarray, widths: tuple[float, float, float]) -> np.ndarray:
    """Voxels smoothed so that a coarser grid can carry them."""
    from scipy.ndimage import gaussian_filter1d

    smooth = voxels
    for axis, sigma in enumerate(widths):
        if sigma > 0:
            output = np.float32 if smooth is voxels else smooth  # later axes in place
            smooth = gaussian_filter1d(smooth, sigma, axis, output=output, mode="nearest", truncate=TRUNCATE)
    return smooth


def _resample(
    array: np.ndarray, matrix: np.ndarray, shape: tuple[int, ...], order: int, fill: float, margin: np.ndarray
) -> np.ndarray:
    """``array`` at the points that ``matrix`` gives for each index of the output.

    Args:
        matrix: 4x4, output index (i, j, k, 1) to input index.
        margin: (i, j, k) input voxels beyond the outermost centers up to which the border is repeated; then ``fill``.

    Returns:
        float32, or the dtype of ``array`` for ``order`` 0.
    """
    from scipy.ndimage import affine_transform

    backwards = matrix[:3, :3][::-1, ::-1]  # SciPy counts axes as (k, j, i)
    offset = matrix[:3, 3][::-1]
    output = np.empty(shape, array.dtype if order == 0 else np.float32)
    linear = np.diag(backwards).copy() if _is_diagonal(backwards) else backwards
    affine_transform(array, linear, offset, tuple(shape), output, order=order, mode="nearest", prefilter=order > 1)
    low, high = -margin[::-1], np.array(array.shape) - 1 + margin[::-1]
    _fill_outside(output, backwards, offset, low, high, fill)
    return output


def _shift_of_planes(first: int) -> np.ndarray:
    """4x4: index (i, j, k, 1) counted from plane ``first`` -> index in the whole volume."""
    shift = np.eye(4)
    shift[2, 3] = first
    return shift


def _is_diagonal(matrix: np.ndarray) -> bool:
    """Diagonal up to rounding: then SciPy can take its faster separable way."""
    off = np.abs(matrix - np.diag(np.diag(matrix)))
    return bool(off.max() < 1e-12)


def _fill_outside(
    output: np.ndarray, matrix: np.ndarray, offset: np.ndarray, low: np.ndarray, high: np.ndarray, fill: float
) -> None:
    """Set ``fill`` where the input index lies outside [low, high]; one slab at a time, to keep memory small."""
    j, i = np.arange(output.shape[1])[:, None], np.arange(output.shape[2])[None, :]
    in_slab = [matrix[axis, 1] * j + matrix[axis, 2] * i + offset[axis] for axis in range(3)]
    for k in range(output.shape[0]):
        outside = np.zeros(output.shape[1:], bool)
        for axis in range(3):
            index = in_slab[axis] + matrix[axis, 0] * k
            outside |= (index < low[axis]) | (index > high[axis])
        output[k][outside] = fill
