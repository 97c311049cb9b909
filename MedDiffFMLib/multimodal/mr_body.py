"""Body in an MR image: what gives signal, and all that it encloses in a slice."""

from __future__ import annotations

import numpy as np

LEAST_SIGNAL = 0.12
"""Of tissue, in units of fat; air, noise and ghosts are darker."""


def mr_body(signal: np.ndarray, spacing_kji: tuple[float, float, float]) -> np.ndarray:
    """Mask of the body, bool (k, j, i), with dark bone, lung and vessels inside.

    Args:
        signal: (k, j, i) in units of fat; k along the patient's axis.
        spacing_kji: voxel size in mm.
    """
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(signal.astype(np.float32), np.divide(1.5, spacing_kji))
    tissue = ndimage.binary_opening(smooth > LEAST_SIGNAL, np.ones((1, 3, 3)))
    pieces, count = ndimage.label(tissue)
    if not count:
        return np.zeros(signal.shape, bool)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    body = (sizes > 0.05 * sizes.max())[pieces]  # both legs
    for plane in body:
        plane[...] = ndimage.binary_fill_holes(plane)
    return body
