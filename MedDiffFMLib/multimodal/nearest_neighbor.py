"""Baseline: the HU of the training voxel whose surroundings in the MR are most alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WIDTHS_MM = (0.0, 2.0, 5.0, 12.0)
"""Standard deviations of the neighborhoods whose means describe a voxel, beside its depth and two gradients."""
KEPT = 4096
DEPTH_MM = 30.0


@dataclass(frozen=True)
class Neighbors:
    """Training voxels.

    Attributes:
        features: (m, 7) descriptions over their spread.
        scale: (7,) that spread.
        values: (m,) HU / 1000.
    """

    features: np.ndarray
    scale: np.ndarray
    values: np.ndarray

    def hounsfield(self, image: np.ndarray, body: np.ndarray, spacing_mm: float) -> np.ndarray:
        """HU (k, j, i) of the nearest neighbors; 0 outside of the body.

        Args:
            image: MR (k, j, i), network range.
        """
        from scipy.spatial import cKDTree

        result = np.zeros(image.shape, np.float32)
        if body.any():
            rows = describe_voxels(image, body, spacing_mm)[body] / self.scale
            result[body] = 1000 * self.values[cKDTree(self.features).query(rows)[1]]
        return result


def learn_neighbors(
    pairs: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], spacing_mm: float, seed: int = 0
) -> Neighbors:
    """Some voxels of each training pair: MR and CT in the network's range, and the body."""
    rng = np.random.default_rng(seed)
    rows, values = [], []
    for image, ct, body in pairs:
        chosen = rng.permutation(np.flatnonzero(body))[: KEPT // len(pairs)]
        rows.append(describe_voxels(image, body, spacing_mm).reshape(-1, len(WIDTHS_MM) + 3)[chosen])
        values.append(ct.ravel()[chosen])
    table = np.concatenate(rows)
    scale = table.std(0) + 1e-3
    return Neighbors(*(a.astype(np.float32) for a in (table / scale, scale, np.concatenate(values))))


def describe_voxels(image: np.ndarray, body: np.ndarray, spacing_mm: float) -> np.ndarray:
    """(k, j, i, 7): means around each voxel, two gradients, depth below the skin."""
    from scipy.ndimage import distance_transform_edt, gaussian_filter, gaussian_gradient_magnitude

    image = np.asarray(image, np.float32)
    means = [gaussian_filter(image, width / spacing_mm) for width in WIDTHS_MM]
    gradients = [gaussian_gradient_magnitude(image, width / spacing_mm) for width in WIDTHS_MM[1:3]]
    depth = np.clip(distance_transform_edt(body) * spacing_mm, 0, DEPTH_MM) / DEPTH_MM
    return np.stack([*means, *gradients, depth], axis=-1).astype(np.float32)
