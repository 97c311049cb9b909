"""Field of view of an MR image: where the scanner saw something at all.

Resampled and cropped images are zero beyond it, exactly; the air inside holds noise.
"""

from __future__ import annotations

import numpy as np

LEAST_SHARE = 1e-3
"""Smallest part of the volume that counts as a region beyond the field of view."""


def field_of_view(voxels: np.ndarray) -> np.ndarray:
    """Mask of what was scanned, bool (k, j, i): all but the large regions of exact zeros, or NaN, at the border."""
    from scipy.ndimage import label

    empty = (voxels == 0) | ~np.isfinite(voxels)
    regions, count = label(empty)
    if not count:
        return np.ones(voxels.shape, bool)
    sizes = np.bincount(regions.ravel(), minlength=count + 1)
    border = np.zeros(count + 1, bool)
    for axis in range(3):
        for end in (0, -1):
            border[np.unique(np.take(regions, end, axis))] = True
    beyond = border & (sizes >= LEAST_SHARE * voxels.size)
    beyond[0] = False
    return ~beyond[regions]
