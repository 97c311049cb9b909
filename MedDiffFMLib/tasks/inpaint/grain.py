"""Fine grain of a filling: what the scan has of it around the hole and texture from a like place has not.

A place that looks like the smooth expected tissue is calmer than most, and where it is not alike nothing is taken from
it. A reader, and a classifier, know the filling by that: by the finest scales. So the power that tissue of the same HU
has around the hole is restored in them, in large holes: small ones find better places. What is added is the scan's own
grain at the place, brought to the missing strength: it has the spectrum of the scan's noise.
"""

from __future__ import annotations

import numpy as np

WIDTH = 2.0
"""What a Gaussian of this deviation in voxels of a slice removes is grain."""
REACH = 14
"""Voxels around the hole in which the scan's grain is measured."""
LOCAL = 4.0
"""Deviation in voxels of a slice within which the grain that is there is averaged."""
TISSUE_MM, TISSUE_HU = 1.5, 15.0
"""Tissue is alike where it differs, smoothed so much, by so little from the edges of a class."""
CLASSES, FEWEST = 10, 200
"""Classes of tissue, by HU, and the known voxels that each needs."""
CALM_SHARE = 0.85
"""Of the known voxels those with the most grain count no more than the rest: edges and vessels are no grain."""
MOST = 2.2
"""Grain that is taken stays within so many deviations, for the same reason."""
FLOOR_HU = 1.0
"""Grain of less is none."""
STRONGEST_HU = 35.0
"""What is stronger where skin, gas or compact bone meet other tissue is edges: taken as grain it left bright specks."""
DIAMETERS_MM = 22.0, 28.0
"""Balls below the first find places that are alike and need no grain, those above the second need all."""
SEEN_HU = (-1000.0, 400.0)
"""HU between which tissue differs: what is denser is bone."""


def diameter(part: np.ndarray, spacing: tuple[float, float, float]) -> float:
    """Diameter in mm of the ball that is as large as a hole."""
    return float((6 * np.count_nonzero(part) * np.prod(spacing) / np.pi) ** (1 / 3))


def grain_share(diameter_mm: float) -> float:
    """Share of the missing grain that a hole as large as this ball gets."""
    low, high = DIAMETERS_MM
    return float(np.clip((diameter_mm - low) / (high - low), 0, 1))


def missing_grain(
    filled: np.ndarray,
    texture: np.ndarray,
    part: np.ndarray,
    hole: np.ndarray,
    shift: np.ndarray,
    spacing: tuple[float, float, float],
) -> np.ndarray:
    """Grain to add to a filling with texture, (D, H, W) HU, 0 outside the part.

    Args:
        filled: HU with the expected tissue in the hole.
        texture: HU that were added to it so far.
        part: bool, a connected part of ``hole``.
        shift: (k, j, i) to the place that grain is taken from.
        spacing: (i, j, k) in mm.
    """
    from scipy.ndimage import gaussian_filter

    here, there = boxes(part, shift, REACH)
    inside = part[here]
    result = np.zeros(part.shape, np.float32)
    usual = _usual_power(filled[here], hole[here], inside, spacing)
    if usual is None:
        return result
    now = np.minimum(_fine(filled[here] + texture[here]) ** 2, MOST**2 * usual)
    width = [0, LOCAL, LOCAL]
    share = np.maximum(gaussian_filter(inside.astype(np.float32), width), 1e-3)
    present = gaussian_filter(np.where(inside, now, 0), width) / share
    # The texture is of the same place: its grain and what is added swing together.
    lacking = np.maximum(np.sqrt(usual) - np.sqrt(present), 0)
    other = _fine(filled[there])
    unit = np.clip(other / np.sqrt(gaussian_filter(other**2, width) + FLOOR_HU**2), -MOST, MOST)
    result[here][inside] = (lacking * unit)[inside]
    return result


def boxes(part: np.ndarray, shift: np.ndarray, reach: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The box around a part and the same at its place, grown by ``reach`` voxels as far as the image has both."""
    from scipy.ndimage import find_objects

    box = find_objects(part.view(np.uint8))[0]
    here, there = [], []
    for edge, s, n in zip(box, shift.tolist(), part.shape, strict=True):
        grown = slice(max(edge.start - reach, 0, -s), min(edge.stop + reach, n, n - s))
        here.append(grown)
        there.append(slice(grown.start + s, grown.stop + s))
    return tuple(here), tuple(there)


def _fine(image: np.ndarray) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return image - gaussian_filter(image, [0, WIDTH, WIDTH])


def _usual_power(
    scan: np.ndarray, unknown: np.ndarray, inside: np.ndarray, spacing: tuple[float, float, float]
) -> np.ndarray | None:
    """Square of the grain that known tissue of each voxel's HU has; None where too little of the scan is known."""
    from scipy.ndimage import gaussian_filter, maximum_filter

    edge = 2 * int(2 * WIDTH) + 1
    known = ~maximum_filter(unknown.view(np.uint8), (1, edge, edge)).view(bool)
    tissue = gaussian_filter(np.clip(scan, *SEEN_HU), [TISSUE_MM / step for step in reversed(spacing)])
    values, squares = tissue[known], _fine(scan)[known] ** 2
    middle, power = [], []
    edges = np.quantile(tissue[inside], np.linspace(0, 1, CLASSES + 1))
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        alike = squares[(values > low - TISSUE_HU) & (values < high + TISSUE_HU)]
        if alike.size >= FEWEST:
            middle.append((low + high) / 2)
            power.append(np.minimum(alike, np.quantile(alike, CALM_SHARE)).mean())
    if not power:
        return None
    return np.interp(tissue, middle, np.minimum(power, STRONGEST_HU**2)).astype(np.float32)
