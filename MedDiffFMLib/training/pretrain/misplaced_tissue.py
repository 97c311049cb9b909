"""Tissue where it does not belong, put into a CT with its outline known: what the anomaly detector learns from.

Lumps with a smooth, uneven surface hold even tissue of some density, tissue from elsewhere in the scan, or what was
there, denser or thinner. The lesions by which the anomaly map is judged are another kind: real ones, and the solid
nodules and contrasts of ``evaluation/quality/synthetic_lesions``.
"""

from __future__ import annotations

import numpy as np

SMALL_MM, LARGE_MM = (6.0, 45.0), (35.0, 110.0)
LARGE_SHARE = 0.3
"""Of the attempts are large, up to one lump in eight."""
LUNG_SHARE = 0.45
"""Of the small ones lie in lung, where there is any."""
DENSITIES_HU = ((-10.0, 80.0), (90.0, 300.0), (-120.0, -50.0), (-950.0, -600.0))
"""Soft tissue, contrast agent or bone, fat, lung."""
SMALL_ODDS, LARGE_ODDS = (0.72, 0.10, 0.06, 0.12), (0.90, 0.06, 0.04, 0.0)
EVEN, MOVED = 0.65, 0.20
"""Shares of lumps of even tissue and of tissue from elsewhere; the rest are denser or thinner than what was there."""
SHIFT_HU = (25.0, 120.0)
LEAST_HU = 15.0
"""Lumps that change less are left out: nobody could find them."""
LEAST_VOXELS = 3


def misplace_tissue(
    hounsfield: np.ndarray, allowed: np.ndarray, spacing: float, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Put lumps into a CT, none over another.

    Args:
        hounsfield: (k, j, i) HU, voxels of ``spacing`` mm.
        allowed: bool, where they may lie.
        count: of lumps; fewer where there is no room.

    Returns:
        the altered CT, float32, and the number of the lump in each voxel that is at least half lump, int16.
    """
    altered = hounsfield.astype(np.float32)
    numbers, taken = np.zeros(hounsfield.shape, np.int16), ~allowed
    inside, lung = np.argwhere(allowed), np.argwhere(allowed & (hounsfield < -600))
    number = large = 0
    for _ in range(6 * count):
        if number == count or not len(inside):
            break
        big = bool(rng.random() < LARGE_SHARE and large < max(1, count // 8))
        lump = _lump(float(np.exp(rng.uniform(*np.log(LARGE_MM if big else SMALL_MM)))) / spacing, rng)
        places = lung if len(lung) > 500 and not big and rng.random() < LUNG_SHARE else inside
        corner = places[rng.integers(len(places))] - np.array(lump.shape) // 2
        low, high = np.maximum(corner, 0), np.minimum(corner + lump.shape, hounsfield.shape)
        there = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        part = tuple(slice(a - c, b - c) for a, b, c in zip(low, high, corner, strict=True))
        share, before = lump[part], altered[there]
        if np.count_nonzero(share > 0.5) < LEAST_VOXELS or taken[there][share > 0.1].any():
            continue
        content = _content(before, lump.shape, part, hounsfield, inside, big, rng)
        change = share * (content - before)
        if np.abs(change)[share > 0.5].mean() < LEAST_HU:
            continue
        number += 1
        large += big
        altered[there] = before + change
        numbers[there][share > 0.5] = number
        taken[there] |= share > 0.1
    return altered, numbers


def _lump(diameter: float, rng: np.random.Generator) -> np.ndarray:
    """Share of lump in each voxel of a cube; an ellipsoid with bumps, ``diameter`` in voxels."""
    from scipy.ndimage import gaussian_filter

    reach = int(np.ceil(0.8 * diameter)) + 2
    axis = np.arange(-reach, reach + 1)
    lengths = rng.uniform(0.7, 1.3, 3)
    lengths /= np.cbrt(lengths.prod())
    k, j, i = np.meshgrid(*(axis / length for length in lengths), indexing="ij", sparse=True)
    bumps = gaussian_filter(rng.standard_normal((len(axis),) * 3), max(1.0, diameter / 5))
    radius = np.sqrt(k**2 + j**2 + i**2) * (1 + 0.15 * bumps / (bumps.std() + 1e-6))
    blur = rng.uniform(0.33, 1.0)
    return (1 / (1 + np.exp(np.clip((radius - diameter / 2) / blur, -50, 50)))).astype(np.float32)


def _content(
    before: np.ndarray,
    shape: tuple[int, ...],
    part: tuple[slice, ...],
    hounsfield: np.ndarray,
    inside: np.ndarray,
    big: bool,
    rng: np.random.Generator,
) -> np.ndarray:
    """HU inside a lump, of the shape of ``before``."""
    from scipy.ndimage import gaussian_filter

    kind = rng.random()
    corner = inside[rng.integers(len(inside))] - np.array(shape) // 2
    fits = (corner >= 0).all() and (corner + shape <= hounsfield.shape).all()
    if EVEN <= kind < EVEN + MOVED and fits:
        return hounsfield[tuple(slice(c, c + n) for c, n in zip(corner, shape, strict=True))][part]
    if kind < EVEN + MOVED:
        low, high = DENSITIES_HU[rng.choice(len(DENSITIES_HU), p=LARGE_ODDS if big else SMALL_ODDS)]
        texture = gaussian_filter(rng.standard_normal(before.shape), rng.uniform(0.3, 1.5))
        return rng.uniform(low, high) + texture * rng.uniform(3, 25) / (texture.std() + 1e-6)
    return before + rng.choice([-1, 1]) * rng.uniform(*SHIFT_HU)
