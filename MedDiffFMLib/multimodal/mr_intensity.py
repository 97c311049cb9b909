"""Scale of an MR image: its numbers have no unit, so they are given in units of the brightest common tissue.

On T1-weighted images of the trunk and the limbs that is fat; its peak is the last one of the histogram. Where there is
none (a brain, T2 weighting), a percentile takes its place, and the scale says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TOP = 1.5
"""Largest value that is kept, in units of fat; 0 to TOP become -1 to 1."""

_BINS, _REACH = 128, 1.25
_LEAST_SHARE = 0.02
"""Share of the voxels inside the body that a peak must hold within a tenth of its place to count as a tissue."""


@dataclass(frozen=True)
class MRScale:
    """Invertible map between the values of one MR image and the network's range.

    Attributes:
        fat: value of fat in the image.
        from_peak: whether fat's peak was seen; else ``fat`` is the 95th percentile of the body.
    """

    fat: float
    from_peak: bool = True

    def to_network(self, values: np.ndarray) -> np.ndarray:
        """Values of the image as float32 in [-1, 1]; what is brighter than ``TOP`` times fat is clipped."""
        return (np.clip(np.asarray(values, np.float32) / self.fat, 0, TOP) * (2 / TOP) - 1).astype(np.float32)

    def to_values(self, network: np.ndarray) -> np.ndarray:
        """Inverse of :meth:`to_network`, float32."""
        return ((np.asarray(network, np.float32) + 1) * (TOP / 2 * self.fat)).astype(np.float32)


FAT = MRScale(1.0)
"""Of signals that are in units of fat already."""


def mr_scale(voxels: np.ndarray, inside: np.ndarray | None = None) -> MRScale:
    """Find the scale of an MR image.

    Args:
        voxels: (k, j, i), any unit.
        inside: bool (k, j, i), voxels that the scanner saw; see :mod:`.field_of_view`.

    Raises:
        ValueError: no voxel is brighter than the background.
    """
    values = np.asarray(voxels if inside is None else voxels[inside], np.float64).ravel()
    tissue = _without_background(values[np.isfinite(values) & (values > 0)])
    top = np.percentile(tissue, 99) * _REACH
    peak = _last_peak(tissue, top)
    if peak is not None:
        return MRScale(peak)
    return MRScale(float(np.percentile(tissue, 95)), from_peak=False)


def _without_background(values: np.ndarray) -> np.ndarray:
    """Values well above air: a seventh of what is bright among those above Otsu's threshold."""
    from skimage.filters import threshold_otsu

    if not values.size:
        raise ValueError("no voxel is brighter than the background")
    bright = values[values >= threshold_otsu(values, nbins=_BINS)] if np.ptp(values) > 0 else values
    return values[values > np.percentile(bright, 95) / 7]


def _last_peak(values: np.ndarray, top: float) -> float | None:
    """Place of the brightest tissue's peak; None where the histogram has one hump only, or a tail."""
    from scipy.ndimage import gaussian_filter1d
    from scipy.signal import find_peaks

    counts, edges = np.histogram(values, _BINS, (0, top))
    smooth = gaussian_filter1d(counts.astype(float), 2.0, mode="constant")
    peaks, _ = find_peaks(smooth, prominence=0.03 * smooth.max())
    places = (edges[peaks] + edges[peaks + 1]) / 2
    shares = [np.mean(np.abs(values - place) < 0.1 * place) for place in places]
    bright = [
        place for place, share in zip(places, shares, strict=True) if share >= _LEAST_SHARE and place > 0.15 * top
    ]
    if len(bright) < 2 or bright[-1] < 1.6 * bright[0]:
        return None
    return float(bright[-1])
