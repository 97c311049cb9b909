"""Texture of a filled region beside the true one: power in bands of spatial frequency.

Slice by slice the region is weighted by a taper that falls to 0 at its rim, freed of its mean and slope, and
transformed; power is averaged over rings of frequency. Bands are fractions of the in-plane Nyquist rate, so that they
mean the same voxel scales in every scan.
"""

from __future__ import annotations

import numpy as np

BANDS = ((1 / 8, 1 / 4), (1 / 4, 1 / 2), (1 / 2, 1.0))
FEWEST_CYCLES = 2.0
"""A band counts where its upper end has so many cycles across the region; a narrower region cannot resolve it."""
LEAST_RATIO = 1e-3
"""Less power counts as so much, so that its logarithm exists."""


def band_name(band: tuple[float, float]) -> str:
    """ "power 1/8-1/4"."""
    low, high = (f"1/{round(1 / edge)}" if edge < 1 else "1" for edge in band)
    return f"power {low}-{high}"


def band_powers(image: np.ndarray, region: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Mean power of each band inside ``region``; NaN where the region is too narrow for it.

    Args:
        image: HU (k, j, i); spacing: (i, j, k) in mm.
        region: bool, one connected part.
    """
    from scipy.ndimage import distance_transform_edt

    planes = [np.flatnonzero(region.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    box = tuple(slice(int(p[0]), int(p[-1]) + 1) for p in planes)
    inside, values = np.pad(region[box], ((0, 0), (1, 1), (1, 1))), np.pad(image[box], ((0, 0), (1, 1), (1, 1)))
    size = max(32, 2 * max(inside.shape[1:]))
    total, weight = np.zeros((size, size)), 0.0
    for mask, plane in zip(inside, values.astype(np.float64), strict=True):
        if not mask.any():
            continue
        depth = distance_transform_edt(mask, sampling=(spacing[1], spacing[0]))
        taper = np.sin(np.pi / 2 * depth / depth.max()) ** 2
        total += np.abs(np.fft.fft2(taper * _without_slope(plane, taper), (size, size))) ** 2
        weight += float((taper**2).sum())
    frequency = np.hypot(np.fft.fftfreq(size, spacing[1])[:, None], np.fft.fftfreq(size, spacing[0])[None])
    nyquist = 0.5 / max(spacing[:2])
    across = max(inside.shape[1] * spacing[1], inside.shape[2] * spacing[0])
    powers = []
    for low, high in BANDS:
        ring = (frequency >= low * nyquist) & (frequency < high * nyquist)
        seen = high * nyquist * across >= FEWEST_CYCLES and ring.any() and weight > 0
        powers.append(float(total[ring].mean() / weight) if seen else float("nan"))
    return np.array(powers)


def spectrum_ratios(
    image: np.ndarray, truth: np.ndarray, region: np.ndarray, spacing: tuple[float, float, float]
) -> np.ndarray:
    """Power of each band over the true one, at least :data:`LEAST_RATIO`: 1 for tissue as fine as it was."""
    powers, true_powers = (band_powers(one, region, spacing) for one in (image, truth))
    return np.maximum(powers / np.where(true_powers > 0, true_powers, np.nan), LEAST_RATIO)


def spectrum_distance(ratios: np.ndarray) -> float:
    """Mean distance from 1 up to half the Nyquist rate, in octaves: |log2|. Finer bands are mostly noise."""
    octaves = np.abs(np.log2(ratios[: len(BANDS) - 1]))
    return float(np.nanmean(octaves)) if np.isfinite(octaves).any() else float("nan")


def _without_slope(plane: np.ndarray, taper: np.ndarray) -> np.ndarray:
    """The plane without its weighted mean and slope, which would leak into every band."""
    rows, columns = np.indices(plane.shape, dtype=np.float64)
    basis = np.stack([np.ones(plane.size), rows.ravel(), columns.ravel()], axis=1)
    weighted = basis * taper.ravel()[:, None]
    coefficients = np.linalg.lstsq(weighted, plane.ravel() * taper.ravel(), rcond=None)[0]
    return plane - (basis @ coefficients).reshape(plane.shape)
