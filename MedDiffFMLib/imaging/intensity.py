"""Hounsfield units to network range and back.

HU in [-1000, 1000] become [-1, 1], so a noise level sigma is HU / 1000 and keeps its physical meaning.
Voxels outside that window are clipped on the way in; the way back to HU adds the *change* that the model made to
the original voxel, so metal and other clipped voxels get their own HU back.
"""

from __future__ import annotations

import numpy as np

HU_LIMIT = 1000.0


def to_network(hounsfield: np.ndarray) -> np.ndarray:
    """HU, any shape -> float32 in [-1, 1]."""
    values = np.asarray(hounsfield, dtype=np.float32) / HU_LIMIT
    return np.clip(values, -1.0, 1.0, out=values)  # in place: volumes are large


def to_hounsfield(values: np.ndarray) -> np.ndarray:
    """Network range -> HU, any shape, float32; the inverse of :func:`to_network` inside the window."""
    return np.asarray(values, dtype=np.float32) * np.float32(HU_LIMIT)
