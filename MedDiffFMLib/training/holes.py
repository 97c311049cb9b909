"""Random holes for learning to fill: part of a window is hidden, the rest is given to the network free of noise."""

from __future__ import annotations

import numpy as np

LATTICE_SHARE = 0.25


def random_hole(shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """Blobs as a user paints them, or a lattice of cubes as the anomaly map uses; bool (D, H, W), never empty."""
    return random_lattice(shape, rng) if rng.random() < LATTICE_SHARE else random_blobs(shape, rng)


def random_lattice(shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """Cubes of a sixteenth to a quarter of the window's edge, with as much or half as much between them.

    bool (D, H, W), never empty.
    """
    edge = int(rng.integers(max(min(shape) // 16, 1), max(min(shape) // 4, 2) + 1))
    gap = edge if rng.random() < 0.7 else max(edge // 2, 1)
    lines = [(np.arange(n) + int(rng.integers(edge + gap))) % (edge + gap) < edge for n in shape]
    return _not_empty(lines[0][:, None, None] & lines[1][None, :, None] & lines[2][None, None, :])


def random_blobs(shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """One to three ellipsoids or boxes of 6 to 60 % of the window's edge; bool (D, H, W), never empty."""
    axes = np.meshgrid(*(np.linspace(0, 1, n, dtype=np.float32) for n in shape), indexing="ij", sparse=True)
    hole = np.zeros(shape, dtype=bool)
    for _ in range(int(rng.integers(1, 4))):
        center = rng.uniform(0.1, 0.9, 3)
        radius = 0.5 * np.exp(rng.uniform(np.log(0.06), np.log(0.6))) * rng.uniform(0.7, 1.3, 3)
        offset = [(axis - c) / r for axis, c, r in zip(axes, center, radius, strict=True)]
        if rng.random() < 0.7:
            hole |= offset[0] ** 2 + offset[1] ** 2 + offset[2] ** 2 < 1
        else:
            hole |= (np.abs(offset[0]) < 0.8) & (np.abs(offset[1]) < 0.8) & (np.abs(offset[2]) < 0.8)
    return _not_empty(hole)


def _not_empty(hole: np.ndarray) -> np.ndarray:
    """The hole, or the middle voxel where the window is too small for what was drawn."""
    if not hole.any():
        hole[tuple(n // 2 for n in hole.shape)] = True
    return hole
