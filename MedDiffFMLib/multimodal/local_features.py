"""Description of a voxel of an MR by what lies around it, for guesses that see farther than its own value.

Means, edges and curvature at several widths, what a closing fills (thin dark things: compact bone, vessels, tendons),
what an opening takes away, depth below the skin, and shares of dark and of fat-like voxels.
"""

from __future__ import annotations

import numpy as np

MEANS_MM, EDGES_MM, CURVES_MM, SHARES_MM = (2.0, 4.0, 8.0, 16.0), (2.0, 4.0), (2.0, 4.0, 8.0), (4.0, 10.0)
CLOSED_MM, OPENED_MM, SMOOTH_MM, SPREAD_MM = (6.0, 10.0, 18.0), 10.0, 1.0, 4.0
DEPTHS_MM = (20.0, 80.0)
DARK, FAT = -0.84, 0.1
"""Network range: darker than the first is no tissue but bone, gas or flow; brighter than the second is mostly fat."""
COUNT = 21
AROUND_MM, BONE_MM, FAT_MM, ROOF_MM = (3.0, 6.0, 12.0, 24.0), (6.0, 16.0), (6.0, 16.0), (4.0, 12.0)
BONE, LEAN = 0.1, -0.04
"""Of a CT in the network's range: denser than the first is mostly bone, less dense than the second mostly fat."""
CONTEXT = 10


def local_features(image: np.ndarray, body: np.ndarray, spacing_mm: float) -> np.ndarray:
    """(k, j, i, 21) float32.

    Args:
        image: MR (k, j, i), network range, isotropic voxels.
        body: bool.
    """
    from scipy import ndimage

    image = np.asarray(image, np.float32)
    smooth = ndimage.gaussian_filter(image, SMOOTH_MM / spacing_mm)

    def around(values: np.ndarray, width: float) -> np.ndarray:
        return ndimage.gaussian_filter(np.asarray(values, np.float32), width / spacing_mm)

    def box(width: float) -> int:
        return 2 * int(width / spacing_mm / 2) + 1

    columns = [image, *(around(image, width) for width in MEANS_MM)]
    columns += [ndimage.gaussian_gradient_magnitude(image, width / spacing_mm) for width in EDGES_MM]
    columns += [ndimage.gaussian_laplace(image, width / spacing_mm) * (width / spacing_mm) ** 2 for width in CURVES_MM]
    columns += [ndimage.grey_closing(smooth, box(width)) - smooth for width in CLOSED_MM]
    columns.append(smooth - ndimage.grey_opening(smooth, box(OPENED_MM)))
    depth = ndimage.distance_transform_edt(body) * spacing_mm
    columns += [np.clip(depth, 0, most) / most for most in DEPTHS_MM]
    columns += [around(image < DARK, width) for width in SHARES_MM]
    columns += [around(image > FAT, width) for width in SHARES_MM]
    columns.append(np.sqrt(np.maximum(around(image**2, SPREAD_MM) - around(image, SPREAD_MM) ** 2, 0)))
    return np.stack(columns, axis=-1).astype(np.float32)


def context_features(guess: np.ndarray, body: np.ndarray, spacing_mm: float) -> np.ndarray:
    """(k, j, i, 10) float32: what a first guess of the CT says about the surroundings of each voxel.

    The guess itself, its means in the body at several widths, shares of bone and of fat, and how it stands out.

    Args:
        guess: CT (k, j, i), network range.
        body: bool.
    """
    from scipy.ndimage import gaussian_filter

    inside = body.astype(np.float32)
    shares = {width: np.maximum(gaussian_filter(inside, width / spacing_mm), 1e-3)
              for width in {*AROUND_MM, *BONE_MM, *FAT_MM}}  # fmt: skip

    def mean(values: np.ndarray, width: float) -> np.ndarray:
        return gaussian_filter(np.asarray(values, np.float32) * inside, width / spacing_mm) / shares[width]

    guess = np.asarray(guess, np.float32)
    within = np.where(body, guess, np.float32(0))
    columns = [guess, *(mean(within, width) for width in AROUND_MM)]
    columns += [mean(within > BONE, width) for width in BONE_MM]
    columns += [mean(within < LEAN, width) for width in FAT_MM]
    near, far = (gaussian_filter(guess, width / spacing_mm) for width in ROOF_MM)
    return np.stack([*columns, near - far], axis=-1).astype(np.float32)
