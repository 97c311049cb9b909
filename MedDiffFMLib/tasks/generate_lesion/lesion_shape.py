"""Random lesion masks: lumpy ellipsoids of a given size inside an organ or another mask."""

from __future__ import annotations

import numpy as np

from ...core.errors import InputError

EDGE_MM = 0.8
"""Scale of the sigmoid at the rim; 10 % to 90 % takes 4.4 times this, about what a CT's blur leaves of a sharp rim."""
ROOM = 0.6
"""A lesion's center is this many diameters inside the room, so that its lumps stay inside too ..."""
LEAST_ROOM = 0.3
"""... or in the deepest place, if that is at least so deep; the room's edge then cuts the lesion."""


def make_lesion_mask(
    room: np.ndarray, spacing: tuple[float, float, float], diameter_mm: float, rng: np.random.Generator
) -> np.ndarray:
    """A lesion at a random place of ``room``, bool (k, j, i).

    Args:
        room: bool (k, j, i); where the lesion may be.
        spacing: (i, j, k) in mm.
        diameter_mm: of the ball of equal volume.

    Raises:
        InputError: there is no room for it.
    """
    from scipy.ndimage import distance_transform_edt

    if not room.any():
        raise InputError("There is no room for a lesion: the mask of where it may be is empty.", "Give another mask.")
    edges = [np.flatnonzero(room.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    corner = np.array([edge[0] for edge in edges])
    part = room[tuple(slice(edge[0], edge[-1] + 1) for edge in edges)]
    depth = distance_transform_edt(np.pad(part, 1), sampling=spacing[::-1])[1:-1, 1:-1, 1:-1]
    deepest = float(depth.max())
    if deepest < LEAST_ROOM * diameter_mm:
        raise InputError(
            f"There is no room for a lesion of {diameter_mm:g} mm: the mask is at most {2 * deepest:.3g} mm thick.",
            "Choose a smaller diameter or another mask.",
        )
    candidates = np.argwhere(depth >= min(ROOM * diameter_mm, deepest))
    center = candidates[rng.integers(len(candidates))] + corner
    share, _ = lesion_shape(diameter_mm, spacing, rng)
    mask = np.zeros(room.shape, dtype=bool)
    into, out_of = overlap(tuple(int(c) for c in center), share.shape, room.shape)
    mask[into] = (share[out_of] >= 0.5) & room[into]
    if not mask.any():  # smaller than a voxel
        mask[tuple(center)] = True
    return mask


def lesion_shape(
    diameter_mm: float, spacing: tuple[float, float, float], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A lumpy, turned ellipsoid and its texture on a small cube of voxels around the middle voxel.

    Returns:
        share of lesion in each voxel (0 to 1, soft rim, partial volume) and texture of unit deviation; both (k, j, i).
    """
    from scipy.ndimage import gaussian_filter, map_coordinates
    from scipy.spatial.transform import Rotation

    radius = diameter_mm / 2
    half = [int(np.ceil((1.6 * radius + 3 * EDGE_MM) / s)) for s in spacing[::-1]]
    fine = [max(1, int(np.ceil(s))) for s in spacing[::-1]]
    axes = [
        ((np.arange((2 * h + 1) * f) + 0.5) / f - h - 0.5) * s
        for h, f, s in zip(half, fine, spacing[::-1], strict=True)
    ]
    points = np.stack(np.meshgrid(*axes, indexing="ij"))
    semi_axes = rng.uniform(0.75, 1.3, 3)
    semi_axes *= radius / np.cbrt(semi_axes.prod())
    turned = np.tensordot(Rotation.random(None, rng).as_matrix(), points, axes=1) / semi_axes[:, None, None, None]
    # Lumps about two thirds of a radius wide move the rim in and out by an eighth of the radius.
    field = gaussian_filter(rng.standard_normal((24, 24, 24)), 2.0, mode="wrap")
    lumps = map_coordinates(field / field.std(), points / (radius / 3) + 12, order=1, mode="grid-wrap")
    distance = np.sqrt((turned**2).sum(axis=0)) * (1 + 0.125 * np.clip(lumps, -2, 2))
    voxels = np.pi / 6 * diameter_mm**3 * np.prod(fine) / np.prod(spacing)
    distance /= np.partition(distance.ravel(), int(voxels))[int(voxels)]
    share = 1 / (1 + np.exp(np.clip((distance - 1) * radius / EDGE_MM, -50, 50)))
    width = [1.5 * f / s for s, f in zip(spacing[::-1], fine, strict=True)]
    grain = gaussian_filter(rng.standard_normal(share.shape), width)
    share, grain = (_block_mean(array, fine) for array in (share, grain / grain.std()))
    share[share < 0.01] = 0  # a sigmoid never ends; a lesion does
    return share.astype(np.float32), grain.astype(np.float32)


def overlap(
    center: tuple[int, ...], size: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Place of a box of odd ``size`` around ``center`` in an array of ``shape``, and which part of it that is."""
    into, out_of = [], []
    for c, n, limit in zip(center, size, shape, strict=True):
        low, high = max(c - n // 2, 0), min(c + n // 2 + 1, limit)
        into.append(slice(low, high))
        out_of.append(slice(low - (c - n // 2), high - (c - n // 2)))
    return tuple(into), tuple(out_of)


def _block_mean(array: np.ndarray, block: list[int]) -> np.ndarray:
    """Mean over blocks of ``block`` voxels."""
    k, j, i = (n // b for n, b in zip(array.shape, block, strict=True))
    return array.reshape(k, block[0], j, block[1], i, block[2]).mean(axis=(1, 3, 5))
