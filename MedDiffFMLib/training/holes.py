"""Random holes for learning to fill: part of a window is hidden, the rest is given to the network free of noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LATTICE_SHARE = 0.25

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Lattice:
    """Cubes in rows.

    Attributes:
        edge, gap: of the cubes and between them, in voxels.
        shift: voxels along (k, j, i) by which the pattern is moved.
    """

    edge: int
    gap: int
    shift: Shape

    def mask(self, shape: Shape) -> np.ndarray:
        """bool (D, H, W), never empty."""
        period = self.edge + self.gap
        lines = [(np.arange(n) + s) % period < self.edge for n, s in zip(shape, self.shift, strict=True)]
        return _not_empty(lines[0][:, None, None] & lines[1][None, :, None] & lines[2][None, None, :])


@dataclass(frozen=True)
class Blobs:
    """Ellipsoids and boxes.

    Attributes:
        centers, radii: (n, 3) in units of the window's edge, order (k, j, i).
        round: (n,) bool, ellipsoids; the others are boxes of 0.8 times the radii.
    """

    centers: np.ndarray
    radii: np.ndarray
    round: np.ndarray

    def mask(self, shape: Shape) -> np.ndarray:
        """bool (D, H, W), never empty."""
        axes = np.meshgrid(*(np.linspace(0, 1, n, dtype=np.float32) for n in shape), indexing="ij", sparse=True)
        hole = np.zeros(shape, dtype=bool)
        for center, radius, ellipsoid in zip(self.centers, self.radii, self.round, strict=True):
            offset = [(axis - c) / r for axis, c, r in zip(axes, center, radius, strict=True)]
            if ellipsoid:
                hole |= offset[0] ** 2 + offset[1] ** 2 + offset[2] ** 2 < 1
            else:
                hole |= (np.abs(offset[0]) < 0.8) & (np.abs(offset[1]) < 0.8) & (np.abs(offset[2]) < 0.8)
        return _not_empty(hole)


Hole = Lattice | Blobs


def random_hole(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """Blobs as a user paints them, or a lattice of cubes as the anomaly map uses; bool (D, H, W), never empty."""
    return draw_hole(shape, rng).mask(shape)


def draw_hole(shape: Shape, rng: np.random.Generator) -> Hole:
    """The numbers that make a random hole."""
    return draw_lattice(shape, rng) if rng.random() < LATTICE_SHARE else draw_blobs(rng)


def draw_lattice(shape: Shape, rng: np.random.Generator) -> Lattice:
    """Cubes of a sixteenth to a quarter of the window's edge, with as much or half as much between them."""
    edge = int(rng.integers(max(min(shape) // 16, 1), max(min(shape) // 4, 2) + 1))
    gap = edge if rng.random() < 0.7 else max(edge // 2, 1)
    k, j, i = (int(rng.integers(edge + gap)) for _ in shape)
    return Lattice(edge, gap, (k, j, i))


def draw_blobs(rng: np.random.Generator) -> Blobs:
    """One to three ellipsoids or boxes of 6 to 60 % of the window's edge."""
    centers, radii, ellipsoids = [], [], []
    for _ in range(int(rng.integers(1, 4))):
        centers.append(rng.uniform(0.1, 0.9, 3))
        radii.append(0.5 * np.exp(rng.uniform(np.log(0.06), np.log(0.6))) * rng.uniform(0.7, 1.3, 3))
        ellipsoids.append(rng.random() < 0.7)
    return Blobs(np.stack(centers), np.stack(radii), np.array(ellipsoids))


def _not_empty(hole: np.ndarray) -> np.ndarray:
    """The hole, or the middle voxel where the window is too small for what was drawn."""
    if not hole.any():
        hole[tuple(n // 2 for n in hole.shape)] = True
    return hole
