"""Boxes as the encoders see them: cubes of 32 voxels of 4 mm, in the range [-1, 1]."""

from __future__ import annotations

import numpy as np
import torch

from ..imaging.resampling import resample_box

SPACING_MM = 4.0


def ct_input(hounsfield: np.ndarray) -> torch.Tensor:
    """HU (B, 32, 32, 32) -> (B, 1, 32, 32, 32): thousands of HU, bone above 1000 cut off."""
    return torch.from_numpy(np.clip(hounsfield, -1000, 1000).astype(np.float32) / 1000)[:, None]


def byte_input(values: np.ndarray) -> torch.Tensor:
    """0 to 255 (B, ...), an MR from nothing to 1.5 times fat or an X-ray, -> (B, 1, ...)."""
    return torch.from_numpy(values.astype(np.float32) / 127.5 - 1)[:, None]


def resampled(voxels: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Float32 on voxels of ``SPACING_MM``.

    Args:
        voxels: (k, j, i).
        spacing: (k, j, i) mm.
    """
    step = SPACING_MM / spacing
    k, j, i = (max(1, int(n / s)) for n, s in zip(voxels.shape, step, strict=True))
    return resample_box(voxels, (step - 1) / 2, step, (k, j, i))
