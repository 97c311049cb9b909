"""Hounsfield units to network range and back.

HU in [-1000, 1000] become [-1, 1], so a noise level sigma is HU / 1000 and keeps its physical meaning.
Voxels outside that window are clipped on the way in; the way back to HU adds the *change* that the model made to
the original voxel, and none to a clipped one: metal and padding keep their own HU bit for bit.
"""

from __future__ import annotations

import numpy as np

HU_LIMIT = 1000.0
PADDING_HU = -1500.0
"""Lower bound of what was scanned: air is -1000, and noise seldom takes it below -1200."""


def to_network(hounsfield: np.ndarray) -> np.ndarray:
    """HU, any shape -> float32 in [-1, 1]."""
    values = np.asarray(hounsfield, dtype=np.float32) / HU_LIMIT
    return np.clip(values, -1.0, 1.0, out=values)  # in place: volumes are large


def to_hounsfield(values: np.ndarray) -> np.ndarray:
    """Network range -> HU, any shape, float32; the inverse of :func:`to_network` inside the window."""
    return np.asarray(values, dtype=np.float32) * np.float32(HU_LIMIT)


def in_network_range(hounsfield: np.ndarray) -> np.ndarray:
    """Mask of voxels whose HU the network sees, bool; elsewhere they are clipped, and nothing that it says holds."""
    return (hounsfield >= -HU_LIMIT) & (hounsfield <= HU_LIMIT)


def is_padding(hounsfield: np.ndarray) -> np.ndarray:
    """Mask of voxels outside of the scanner's field, bool."""
    return hounsfield < PADDING_HU
