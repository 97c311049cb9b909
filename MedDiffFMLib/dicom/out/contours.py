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
    outer = [curve for curve in curves if _area(curve) * _orientation(curves) > 0]
    holes = [curve for curve in curves if _area(curve) * _orientation(curves) < 0]
    for hole in holes:
        around = min(
            (n for n, curve in enumerate(outer) if _inside(hole[0], curve)), key=lambda n: abs(_area(outer[n]))
        )
        outer[around] = _joined(outer[around], hole)
    return outer


def _orientation(curves: list[np.ndarray]) -> float:
    """Sign of the outer curves: the largest one is no hole."""
    return float(np.sign(max((_area(curve) for curve in curves), key=abs)))


def _area(curve: np.ndarray) -> float:
    """Signed area."""
    x, y = curve.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _inside(point: np.ndarray, curve: np.ndarray) -> bool:
    from skimage.measure import points_in_poly

    return bool(points_in_poly(point[None], curve)[0])


def _joined(outer: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """One curve that goes into the hole and back where they are closest."""
    distances = np.linalg.norm(outer[:, None] - hole[None], axis=2)
    a, b = np.unravel_index(int(distances.argmin()), distances.shape)
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
