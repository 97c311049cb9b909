"""Hull of a body: all that X-rays leave room for, and the grid around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core.errors import InputError
from ..imaging.grid import Grid
from .beam import Beam
from .xray_pose import HALF_BODY_MM

SEARCH_MM = 10.0
MARGIN = 2
"""Voxels of air around the hull, from side to side."""
MOST_VOXELS = 4_000_000
DEPTH_OVER_WIDTH = 0.68
"""Of a trunk; with all X-rays from one side the hull has no depth of its own."""
ONE_SIDE = np.cos(np.radians(20))
SEEN = 0.98
"""Part of a slice's hull that some ray has to pass for the slice to be shown."""


@dataclass(frozen=True)
class Shadow:
    """Outline of a body in an X-ray.

    Attributes:
        beam: source and detector.
        tissue: (j, i) bool.
    """

    beam: Beam
    tissue: np.ndarray


@dataclass(frozen=True)
class Hull:
    """Room for a body.

    Attributes:
        grid: voxels of equal edges along left, posterior, superior.
        room: (k, j, i) bool.
        shown: planes k through which rays pass nearly everywhere.
        one_side: no two X-rays are taken from different sides.
    """

    grid: Grid
    room: np.ndarray
    shown: slice
    one_side: bool

    @property
    def box(self) -> tuple[np.ndarray, np.ndarray]:
        """First and last index (k, j, i) of the room in the planes that are shown."""
        where = np.argwhere(self.room[self.shown])
        first = np.array([self.shown.start, 0, 0])
        return where.min(0) + first, where.max(0) + first


def hull_of(shadows: Sequence[Shadow], spacing: float) -> Hull:
    """Intersection of the cones that the shadows come from.

    Beyond the upper and lower edges of a detector, and beyond its sides where the shadow reaches them, the body is
    taken to go on.

    Raises:
        InputError: the cones have nothing in common, or too much for this computer.
    """
    center, half = _search(shadows)
    coarse = _cube(center - half, center + half, SEARCH_MM)
    room, seen = _room(shadows, coarse, center)
    room &= seen
    if not room.any():
        raise InputError(
            "The X-rays have no part of a body in common: their rays do not meet where all of them show tissue.",
            "Check the views and sources; all X-rays have to show the same patient in one position.",
        )
    where = np.argwhere(room)
    index = np.c_[where[:, ::-1], np.ones(len(where))]
    points = (index @ coarse.ijk_to_ras.T)[:, :3]
    grid = _cube(points.min(0) - SEARCH_MM, points.max(0) + SEARCH_MM, spacing)
    if np.prod(grid.shape) > MOST_VOXELS:
        raise InputError(
            f"The X-rays show a body of {np.prod(grid.shape) / 1e6:.1f} million voxels of {spacing:g} mm.",
            "Give a coarser spacing, or the true size of the pixels.",
        )
    room, seen = _room(shadows, grid, center)
    return _tight(grid, room, seen, _from_one_side(shadows))


def _tight(grid: Grid, room: np.ndarray, seen: np.ndarray, one_side: bool) -> Hull:
    """The part of a grid that the room needs."""
    used = (room & seen).any((1, 2))
    room = room & used[:, None, None]
    if not room.any():
        raise InputError(
            "The X-rays show nothing as large as a voxel in common.", "Check their views, sources and the pixel size."
        )
    where = np.argwhere(room)
    low, high = where.min(0), where.max(0)
    low[1:], high[1:] = (
        np.maximum(low[1:] - MARGIN, 0),
        np.minimum(high[1:] + MARGIN, np.array(grid.shape[1:]) - 1),
    )
    k, j, i = (slice(int(a), int(b) + 1) for a, b in zip(low, high, strict=True))
    shift = np.eye(4)
    shift[:3, 3] = low[::-1]
    room, seen = room[k, j, i], seen[k, j, i]
    part = (room & seen).sum((1, 2)) / np.maximum(room.sum((1, 2)), 1)
    whole = np.flatnonzero(part >= min(SEEN, float(part.max())))
    shown = slice(int(whole[0]), int(whole[-1]) + 1)
    return Hull(Grid(room.shape, grid.ijk_to_ras @ shift), room, shown, one_side)


def _search(shadows: Sequence[Shadow]) -> tuple[np.ndarray, np.ndarray]:
    """Middle, and half the size, RAS mm, of a cube in which the body must lie."""
    near, normals, reach = [], [], []
    for shadow in shadows:
        beam = shadow.beam
        corners = beam.frustum()
        middle = corners.mean(0)
        toward = -beam.normal if beam.source is None else (beam.source - middle) / np.linalg.norm(beam.source - middle)
        near.append(middle + (HALF_BODY_MM + 50) * toward)
        normals.append(toward)
        reach.append(np.linalg.norm(corners[2] - corners[0]) / 2)
    # the point closest to all central rays, and weakly to where each body would stand before its detector
    across = [np.eye(3) - np.outer(n, n) + 1e-3 * np.eye(3) for n in normals]
    center = np.linalg.solve(sum(across), sum(a @ p for a, p in zip(across, near, strict=True)))
    return center, np.full(3, min(max(reach), 600.0))


def _cube(low: np.ndarray, high: np.ndarray, spacing: float) -> Grid:
    """Cubic voxels along left, posterior, superior from one corner (RAS mm) to the other."""
    count = np.maximum(np.ceil((high - low) / spacing).astype(int) + 1, 2)
    matrix = np.diag([-spacing, -spacing, spacing, 1.0])
    matrix[:3, 3] = np.where([True, True, False], high, low)
    return Grid((int(count[2]), int(count[1]), int(count[0])), matrix)


def _room(shadows: Sequence[Shadow], grid: Grid, center: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Voxels that no X-ray shows to be air, and voxels that some ray passes; bool (k, j, i) each."""
    from scipy.ndimage import binary_dilation

    k, j, i = np.indices(grid.shape, dtype=np.float32).reshape(3, -1)
    points = (np.stack([i, j, k, np.ones_like(i)], 1) @ grid.ijk_to_ras.T)[:, :3]
    room, seen = np.ones(len(points), bool), np.zeros(len(points), bool)
    for shadow in shadows:
        rows, columns = shadow.tissue.shape
        pad = 2
        tissue = binary_dilation(np.pad(shadow.tissue, pad, mode="edge"))
        column, row = np.rint(shadow.beam.shadows(points)).astype(int).T
        before = shadow.beam.depths(points) > 0
        seen |= (column >= 0) & (column < columns) & (row >= 0) & (row < rows) & before
        room &= before & tissue[(row + pad).clip(0, rows + 2 * pad - 1), (column + pad).clip(0, columns + 2 * pad - 1)]
    if _from_one_side(shadows):
        room &= _elliptic(shadows[0], points, center)
    return room.reshape(grid.shape), seen.reshape(grid.shape)


def _from_one_side(shadows: Sequence[Shadow]) -> bool:
    first = shadows[0].beam.normal
    return all(abs(first @ other.beam.normal) > ONE_SIDE for other in shadows[1:])


def _elliptic(shadow: Shadow, points: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Points of a cylinder behind a shadow whose cross-section is an ellipse as deep as bodies are."""
    beam = shadow.beam
    columns = np.flatnonzero(shadow.tissue.any(0))
    scale = 1.0
    if beam.source is not None:
        scale = 1 - float(beam.depths(center[None])[0]) / beam.source_depth
    pixel = float(np.linalg.norm(beam.detector.ijk_to_ras[:3, 0])) * scale
    half = max(len(columns), 1) * pixel / 2
    middle = (columns[0] + columns[-1]) / 2 if len(columns) else 0.0
    across = (beam.shadows(points)[:, 0] - middle) * pixel
    depth = (points - center) @ beam.normal
    return (across / half) ** 2 + (depth / (DEPTH_OVER_WIDTH * half)) ** 2 <= 1
