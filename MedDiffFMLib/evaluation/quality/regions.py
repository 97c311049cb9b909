"""Regions for measurements and synthetic lesions: body, soft tissue, lungs.

Deliberately independent of the model's own conditioning, so that a mistake there cannot hide itself here.
All masks are (k, j, i) with k along the patient's axis; spacing is (i, j, k) in mm.
"""

from __future__ import annotations

import numpy as np

AIR_HU = -400.0
"""Between lung and fat."""


def voxels_of(spacing: tuple[float, float, float], millimeters: float) -> tuple[float, float, float]:
    """A length in mm -> voxels along (k, j, i), as SciPy's filters want it."""
    return (millimeters / spacing[2], millimeters / spacing[1], millimeters / spacing[0])


def body_mask(volume_hu: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Everything under the skin, lungs and bowel gas included; table and air around the patient excluded."""
    from scipy import ndimage

    dense = volume_hu > AIR_HU
    # A table is thin: a disc of about 6 mm does not fit into it.
    reach = max(1, round(3.0 / spacing[0]))
    disc = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1]) <= reach + 0.3
    dense = ndimage.binary_opening(dense, disc[None])
    body = np.zeros_like(dense)
    for k in range(volume_hu.shape[0]):
        gas, count = ndimage.label(volume_hu[k] <= AIR_HU)
        if count == 0:
            body[k] = True
            continue
        border = np.setdiff1d(np.concatenate([gas[0], gas[-1], gas[:, 0], gas[:, -1]]), 0)
        outside = [part for part in border if not _like_lung(volume_hu[k][gas == part], spacing)]
        closed = (gas > 0) & ~np.isin(gas, outside)
        body[k] = ndimage.binary_fill_holes(dense[k] | closed)
    return _large_parts(ndimage.binary_opening(body, disc[None]))


def soft_tissue(volume_hu: np.ndarray, spacing: tuple[float, float, float], body: np.ndarray) -> np.ndarray:
    """Organs and muscle: -20 to 200 HU after smoothing by 1.5 mm."""
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(np.asarray(volume_hu, dtype=np.float32), voxels_of(spacing, 1.5))
    return body & (smooth > -20) & (smooth < 200)


def solid_tissue(volume_hu: np.ndarray, spacing: tuple[float, float, float], body: np.ndarray) -> np.ndarray:
    """Everything that is no gas: fat, organs, muscle, bone."""
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(np.asarray(volume_hu, dtype=np.float32), voxels_of(spacing, 1.5))
    return body & (smooth > -250) & (volume_hu > AIR_HU)


def lung(volume_hu: np.ndarray, spacing: tuple[float, float, float], body: np.ndarray) -> np.ndarray:
    """Aerated lung: below -600 HU after smoothing by 2 mm, in parts of at least 60 ml (bowel gas is smaller)."""
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(np.asarray(volume_hu, dtype=np.float32), voxels_of(spacing, 2.0))
    aerated = body & (smooth < -600) & (smooth > -960)
    parts, count = ndimage.label(aerated)
    if count == 0:
        return aerated
    volumes = np.bincount(parts.ravel()) * float(np.prod(spacing))
    volumes[0] = 0
    return (volumes >= 60000)[parts]


def depth(mask: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Distance in mm of each voxel of ``mask`` to the nearest voxel outside it; beyond the volume counts as outside."""
    from scipy.ndimage import distance_transform_edt

    padded = np.pad(mask, 1)
    return distance_transform_edt(padded, sampling=spacing[::-1])[1:-1, 1:-1, 1:-1]


def distance_to(part: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Distance in mm of each voxel outside ``part`` to it; 0 inside."""
    from scipy.ndimage import distance_transform_edt

    return distance_transform_edt(~part, sampling=spacing[::-1])


def distance_mm(shape: tuple[int, ...], center: tuple[int, ...], spacing: tuple[float, float, float]) -> np.ndarray:
    """Distance in mm of every voxel to the voxel ``center`` (k, j, i)."""
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    return np.sqrt(sum(((axis - c) * s) ** 2 for axis, c, s in zip(axes, center, spacing[::-1], strict=True)))


def _like_lung(hounsfield: np.ndarray, spacing: tuple[float, float, float]) -> bool:
    """Whether gas that a cropped slice cuts open is lung: a large area, and neither air, foam nor the blur of a gap."""
    if hounsfield.size * spacing[0] * spacing[1] < 2000:
        return False
    aerated = np.mean((hounsfield > -930) & (hounsfield < -650))
    return bool(aerated > 0.8 and np.percentile(hounsfield, 75) > -865)


def _large_parts(mask: np.ndarray, fraction: float = 0.1) -> np.ndarray:
    """Connected parts of at least ``fraction`` of the largest one (two legs are two parts)."""
    from scipy.ndimage import label

    parts, count = label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return (sizes >= fraction * sizes.max())[parts]
