"""Noise level of a CT in HU, estimated from the image."""

from __future__ import annotations

from typing import Any

import numpy as np

WINDOW = 7
PERCENTILE = 10.0
AT_ONCE = 8_000_000
"""Voxels looked at together; the windows lie within slices, so that no result depends on it."""
FACTOR = 1.17
"""Noise over that percentile, on training cases with simulated noise of known level (30 to 80 HU): within 10 %."""


def estimate_noise(hounsfield: np.ndarray) -> float | None:
    """Global noise level from the local standard deviation in soft tissue (after Christianson et al. 2015, AJR 205).

    The local deviation is taken in 7x7 windows within slices. Christianson takes the mode of its histogram; on thick
    voxels most windows hold an edge and the mode lies far too high, so a low percentile is used, where edges are rare.

    Args:
        hounsfield: (D, H, W), slices along the first axis.

    Returns:
        Standard deviation in HU, or None when too little soft tissue is in the field of view.
    """
    slices = max(1, AT_ONCE // max(hounsfield[0].size, 1))
    deviation = np.concatenate(
        [_deviations(hounsfield[first : first + slices]) for first in range(0, len(hounsfield), slices)]
    )
    if deviation.size < 500:
        return None
    unbiased = WINDOW / np.sqrt(WINDOW**2 - 1)
    return float(np.percentile(deviation, PERCENTILE, overwrite_input=True) * unbiased * FACTOR)


def _deviations(hounsfield: np.ndarray) -> np.ndarray:
    """Standard deviations of all windows that lie in soft tissue."""
    from scipy.ndimage import minimum_filter, uniform_filter

    size = (1, WINDOW, WINDOW)
    soft = (hounsfield > -300) & (hounsfield < 300)
    near = (slice(None), _range(soft.any((0, 2))), _range(soft.any((0, 1))))
    values, soft = hounsfield[near].astype(np.float32), soft[near]
    mean = uniform_filter(values, size)
    inside = minimum_filter(soft, size) & (np.abs(mean) < 150)
    square = uniform_filter(values * values, size)
    return np.sqrt(np.maximum(square - mean * mean, 0)[inside])


def _range(hits: Any) -> slice:
    """From the first hit to the last, and as far beyond as a window sees from there; nothing without a hit."""
    where = np.flatnonzero(hits)
    return slice(max(where[0] - WINDOW // 2, 0), where[-1] + WINDOW // 2 + 1) if len(where) else slice(0)
