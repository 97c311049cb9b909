"""Contours of a mask on one plane; holes are reached through keyholes, as planning systems want them."""

from __future__ import annotations

import numpy as np


def contours(mask: np.ndarray) -> list[np.ndarray]:
    """Closed curves around the true pixels, half a pixel outside of their centers at most.

    Args:
        mask: bool (j, i).

    Returns:
        Points (n, 2) as (i, j) of each piece, the first one not repeated; filled, they give the mask back.
    """
    from skimage.measure import find_contours

    curves = [curve[:-1, ::-1] - 1 for curve in find_contours(np.pad(mask, 1).astype(float), 0.5)]
    areas = [_area(curve) for curve in curves]
    around = np.sign(max(areas, key=abs, default=1.0))  # the largest one is no hole, and all outer ones turn as it does
    outer = [curve for curve, area in zip(curves, areas, strict=True) if area * around > 0]
    sizes = [abs(area) for area in areas if area * around > 0]
    boxes = np.array([[*curve.min(axis=0), *curve.max(axis=0)] for curve in outer]).reshape(-1, 4)
    for hole in (curve for curve, area in zip(curves, areas, strict=True) if area * around < 0):
        point = hole[0]
        near = np.flatnonzero((boxes[:, :2] <= point).all(axis=1) & (point <= boxes[:, 2:]).all(axis=1))
        smallest_first = sorted(near, key=lambda n: sizes[n])
        owner = next(n for n in smallest_first if _inside(point, outer[n]))
        outer[owner] = _joined(outer[owner], hole)
    return outer


def _area(curve: np.ndarray) -> float:
    """Signed area."""
    x, y = curve.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _inside(point: np.ndarray, curve: np.ndarray) -> bool:
    from skimage.measure import points_in_poly

    return bool(points_in_poly(point[None], curve)[0])


def _joined(outer: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """One curve that goes into the hole and back where they are closest."""
    from scipy.spatial import cKDTree

    distances, nearest = cKDTree(outer).query(hole)
    b = int(distances.argmin())
    a = int(nearest[b])
    around = np.roll(hole, -b, axis=0)
    return np.concatenate([outer[: a + 1], around, around[:1], outer[a:]])


def filled(curves: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Pixels (j, i) inside an odd number of curves of points (i, j)."""
    from skimage.measure import grid_points_in_poly

    inside = np.zeros(shape, bool)
    for curve in curves:
        low = np.maximum(np.floor(curve.min(axis=0)).astype(int), 0)
        high = np.minimum(np.ceil(curve.max(axis=0)).astype(int) + 1, shape[::-1])
        if (high <= low).any():
            continue
        size = tuple(int(n) for n in (high - low)[::-1])
        inside[low[1] : high[1], low[0] : high[0]] ^= grid_points_in_poly(size, (curve - low)[:, ::-1])
    return inside
