"""Geometries that a volume in Slicer can have."""

from __future__ import annotations

import numpy as np

# Voxel to patient matrices as scanners and users make them; columns are the i, j, k axes in mm, RAS.
GEOMETRIES = {
    "plain": [[-1.5, 0, 0, 90.25], [0, -1.5, 0, 120.5], [0, 0, 2.5, -300], [0, 0, 0, 1]],
    "flipped": [[0.7, 0, 0, -33.3], [0, -0.7, 0, 12.1], [0, 0, -1.25, 155.5], [0, 0, 0, 1]],
    "oblique": [[-0.96, 0.21, 0.35, 12.3], [-0.2, -0.97, 0.3, -45.6], [0.12, 0.1, 1.6, 78.9], [0, 0, 0, 1]],
    "anisotropic": [[0, 0, 5.0, -80], [-0.43, 0, 0, 60], [0, -0.43, 0, 1000.125], [0, 0, 0, 1]],
}


def orthogonal(rows: list[list[float]]) -> np.ndarray:
    """The matrix with exactly orthogonal axes of the same lengths; Slicer's volumes have no shear."""
    matrix = np.array(rows, dtype=float)
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    q, r = np.linalg.qr(matrix[:3, :3])
    matrix[:3, :3] = q * np.sign(np.diag(r)) * lengths
    return matrix
