"""Synthetic holes: spheres in healthy tissue, with the truth known."""

from __future__ import annotations

import numpy as np

from .regions import depth, distance_mm, solid_tissue


def pick_centers(
    room: np.ndarray,
    radius_mm: float,
    count: int,
    spacing: tuple[float, float, float],
    taken: list[tuple[tuple[int, ...], float]],
    rng: np.random.Generator,
    gap_mm: float = 6.0,
) -> list[tuple[int, ...]]:
    """Up to ``count`` random voxels (k, j, i) of ``room``, no two balls nearer than ``gap_mm``.

    Args:
        room: where a center may be.
        radius_mm: of the balls to place.
        taken: centers and radii already used; the new ones are appended.
    """
    free = room.copy()
    for center, radius in taken:
        free &= distance_mm(room.shape, center, spacing) > radius + radius_mm + gap_mm
    centers: list[tuple[int, ...]] = []
    while len(centers) < count:
        candidates = np.flatnonzero(free)
        if candidates.size == 0:
            break
        center = tuple(int(v) for v in np.unravel_index(rng.choice(candidates), room.shape))
        centers.append(center)
        taken.append((center, radius_mm))
        free &= distance_mm(room.shape, center, spacing) > 2 * radius_mm + gap_mm
    return centers


def healthy_spheres(
    volume_hu: np.ndarray,
    spacing: tuple[float, float, float],
    body: np.ndarray,
    avoid: np.ndarray | None = None,
    diameters_mm: tuple[float, ...] = (30.0, 20.0, 10.0),
    per_size: int = 2,
    margin_mm: float = 3.0,
    seed: int = 0,
) -> dict[float, np.ndarray]:
    """Disjoint spheres inside body tissue, away from gas, skin and the volume's ends.

    Args:
        volume_hu: (k, j, i); spacing: (i, j, k) in mm; body: see :func:`.regions.body_mask`.
        avoid: voxels that are not healthy.
        diameters_mm: placed in this order, so name the largest first.
        per_size: spheres of each diameter; fewer where there is no room.
        margin_mm: tissue around each sphere.
        seed: the same seed gives the same spheres.

    Returns:
        diameter -> label volume uint8 (k, j, i), 1 to ``per_size``; diameters without room are absent.
    """
    rng = np.random.default_rng(seed)
    tissue = solid_tissue(volume_hu, spacing, body)
    if avoid is not None:
        tissue &= ~avoid
    thickness = depth(tissue, spacing)
    taken: list[tuple[tuple[int, ...], float]] = []
    spheres = {}
    for diameter in diameters_mm:
        radius = diameter / 2
        centers = pick_centers(thickness >= radius + margin_mm, radius, per_size, spacing, taken, rng)
        if not centers:
            continue
        labels = np.zeros(volume_hu.shape, dtype=np.uint8)
        for number, center in enumerate(centers, start=1):
            labels[distance_mm(volume_hu.shape, center, spacing) <= radius] = number
        spheres[diameter] = labels
    return spheres
