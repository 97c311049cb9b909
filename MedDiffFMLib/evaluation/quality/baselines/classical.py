"""Baselines: classical methods with tuned constants.

The denoisers are given the true noise level, one of them the true spectrum too. Constants were chosen on training cases
only (``Testing/experiments/tune_baselines.py``). Arrays are (k, j, i) in HU, spacing is (i, j, k) in mm.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ....imaging.biharmonic import biharmonic_system
from ..regions import distance_to, voxels_of
from .bm3d import bm3d

NLM_STRENGTH = 1.0
TV_STRENGTH = 0.7
BM3D_STRENGTH = 2.0
BM3D_SPECTRUM_STRENGTH = 1.4
SHELL_MM = 1.0
RESIDUAL_MM = 8.0
RESIDUAL_SMOOTHING_MM = 5.0
RESIDUAL_WINDOW_HU = (-1000.0, 1000.0)


def non_local_means(volume_hu: np.ndarray, sigma: float, strength: float = NLM_STRENGTH) -> np.ndarray:
    """Non-local means (Buades 2005) slice by slice: patches of 5 x 5, searched 13 x 13, h = ``strength`` x sigma."""
    from ....imaging.non_local_means import non_local_means as slice_by_slice

    return slice_by_slice(np.asarray(volume_hu, dtype=np.float32), sigma, strength)


def total_variation(volume_hu: np.ndarray, sigma: float, strength: float = TV_STRENGTH) -> np.ndarray:
    """Total variation (Chambolle 2004) slice by slice; the weight is ``strength`` x sigma."""
    from skimage.restoration import denoise_tv_chambolle

    slices = [
        denoise_tv_chambolle(image, weight=strength * sigma, max_num_iter=100)
        for image in np.asarray(volume_hu, dtype=np.float32)
    ]
    return np.stack(slices).astype(np.float32)


def block_matching(volume_hu: np.ndarray, sigma: float | np.ndarray, strength: float = BM3D_STRENGTH) -> np.ndarray:
    """BM3D (Dabov 2007) slice by slice, with a level of ``strength`` x sigma; see :func:`.bm3d.bm3d`."""
    return np.stack([bm3d(image, strength * sigma) for image in np.asarray(volume_hu, dtype=np.float32)])


def wavelet_level(volume_hu: np.ndarray, body: np.ndarray) -> float:
    """Noise level from the image itself: median absolute diagonal Haar coefficient over 0.6745 (Donoho 1995).

    Right for white noise. The diagonal band holds the finest scale alone, so that correlated noise is underestimated.
    """
    planes = np.asarray(volume_hu, dtype=np.float32)[:, : body.shape[1] // 2 * 2, : body.shape[2] // 2 * 2]
    corners = [planes[:, j::2, i::2] for j in (0, 1) for i in (0, 1)]
    inside = body[:, : planes.shape[1] : 2, : planes.shape[2] : 2]
    diagonal = (corners[0] - corners[1] - corners[2] + corners[3]) / 2
    return float(np.median(np.abs(diagonal[inside])) / 0.6745)


def mean_fill(
    volume_hu: np.ndarray, mask: np.ndarray, spacing: tuple[float, float, float], shell_mm: float = SHELL_MM
) -> np.ndarray:
    """Each connected part of the mask becomes the mean of the shell around it."""
    filled = np.array(volume_hu, dtype=np.float32)
    for box, part in _parts(mask, spacing, shell_mm + min(spacing) + 1):
        shell = (distance_to(part, spacing) <= max(shell_mm, 1.01 * min(spacing))) & ~mask[box]
        filled[box][part] = filled[box][shell].mean()
    return filled


def biharmonic_fill(volume_hu: np.ndarray, mask: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """The surface of least bending through the voxels around each part of the mask.

    Blurring what is around, so that its noise is not continued inward, was tried on training cases and makes it worse.
    """
    filled = np.array(volume_hu, dtype=np.float32)
    for box, part in _parts(mask, spacing, 3 * max(spacing)):
        filled[box][part] = _least_bending(filled[box].astype(np.float64), part, spacing)
    return filled


def _least_bending(around: np.ndarray, part: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Values in ``part`` that minimize the squared Laplacian, everything else fixed."""
    from scipy.sparse.linalg import splu

    matrix, right = biharmonic_system(around, part, spacing)
    return splu(matrix, permc_spec="MMD_AT_PLUS_A").solve(right)


def local_residual(
    volume_hu: np.ndarray,
    body: np.ndarray,
    spacing: tuple[float, float, float],
    scale_mm: float = RESIDUAL_MM,
    smoothing_mm: float = RESIDUAL_SMOOTHING_MM,
    window: tuple[float, float] = RESIDUAL_WINDOW_HU,
) -> np.ndarray:
    """Anomaly score without a model: how far a voxel is from the mean around it.

    |G(smoothing) x - G(scale) x| of the windowed CT, both Gaussians over the body only, so that the skin is no anomaly.
    """
    from scipy.ndimage import gaussian_filter

    inside = body.astype(np.float32)
    values = np.where(body, np.clip(volume_hu, *window), 0).astype(np.float32)

    def mean(sigma_mm: float) -> np.ndarray:
        sigma = voxels_of(spacing, sigma_mm)
        return gaussian_filter(values, sigma) / np.maximum(gaussian_filter(inside, sigma), 1e-3)

    near = mean(smoothing_mm) if smoothing_mm > 0 else values
    return np.where(body, np.abs(near - mean(scale_mm)), 0).astype(np.float32)


def _parts(
    mask: np.ndarray, spacing: tuple[float, float, float], margin_mm: float
) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
    """Box with a margin and mask of each connected part."""
    from scipy.ndimage import find_objects, label

    labels, count = label(mask)
    margin = [int(np.ceil(v)) for v in voxels_of(spacing, margin_mm)]
    for number, region in enumerate(find_objects(labels, count), start=1):
        box = tuple(
            slice(max(s.start - m, 0), min(s.stop + m, n)) for s, m, n in zip(region, margin, labels.shape, strict=True)
        )
        yield box, labels[box] == number
