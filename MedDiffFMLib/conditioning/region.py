"""Body mask, body box and region, estimated from the image."""

from __future__ import annotations

import numpy as np

BODY_THRESHOLD_HU = -500.0
AIR_HU = -940.0


def body_mask(hounsfield: np.ndarray) -> np.ndarray:
    """Largest connected object denser than -500 HU, with the lungs and bowel gas inside it filled slice by slice.

    Args:
        hounsfield: (k, j, i), k along the patient's axis.

    Returns:
        bool array of the same shape; everything but air where the field of view lies inside the body.
    """
    from scipy import ndimage

    if not air_around(hounsfield):
        # A crop inside the body: lung that the border cuts open must not count as outside.
        return ~ndimage.binary_opening(hounsfield < AIR_HU, structure=np.ones((3, 3, 3)))
    dense = hounsfield > BODY_THRESHOLD_HU
    opened = ndimage.binary_opening(dense, structure=np.ones((1, 3, 3)))
    labels, count = ndimage.label(opened)
    if count == 0:
        return dense if dense.any() else np.ones_like(dense)
    voxels = np.zeros(count + 1, dtype=int)
    for plane in labels:  # counting takes 64 bits a voxel
        voxels += np.bincount(plane.ravel(), minlength=count + 1)
    body = labels == voxels[1:].argmax() + 1
    del labels
    (_, top, left), (_, bottom, right) = (corner.astype(int) for corner in body_box(body))
    for plane in body[:, top : bottom + 1, left : right + 1]:  # around that box there are no holes
        plane[...] = ndimage.binary_fill_holes(plane)
    return body


def air_around(hounsfield: np.ndarray) -> bool:
    """Whether a CT (k, j, i) shows the air around the body; a crop inside the body has little at its sides."""
    rim = np.concatenate([hounsfield[:, [0, -1]].ravel(), hounsfield[:, :, [0, -1]].ravel()])
    return bool(np.mean(rim < AIR_HU) >= 0.2)


def grown(mask: np.ndarray, millimeters: float, spacing_kji: tuple[float, float, float]) -> np.ndarray:
    """All voxels no farther from the mask (k, j, i) than so many mm, center to center; bool."""
    from scipy.ndimage import binary_dilation

    return binary_dilation(mask, _ball(millimeters, spacing_kji))


def shrunk(mask: np.ndarray, millimeters: float, spacing_kji: tuple[float, float, float]) -> np.ndarray:
    """Voxels of the mask (k, j, i) with none beside it within so many mm, center to center; bool."""
    from scipy.ndimage import binary_erosion

    return binary_erosion(mask, _ball(millimeters, spacing_kji), border_value=1)


def _ball(radius: float, spacing_kji: tuple[float, float, float]) -> np.ndarray:
    """Offsets no longer than ``radius`` mm. A few voxels, where a distance transform takes some 40 bytes a voxel."""
    reach = [int(radius / s + 1e-6) for s in spacing_kji]
    squares = [(np.arange(-n, n + 1) * s) ** 2 for n, s in zip(reach, spacing_kji, strict=True)]
    return np.sqrt(squares[0][:, None, None] + squares[1][:, None] + squares[2]) <= radius


def body_box(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last index (k, j, i) of a mask, each as (3,) float; the whole array if the mask is empty."""
    if not mask.any():
        return np.zeros(3), np.array(mask.shape, dtype=float) - 1
    edges = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    return np.array([e[0] for e in edges], dtype=float), np.array([e[-1] for e in edges], dtype=float)


def guess_region(hounsfield: np.ndarray, spacing_kji: tuple[float, float, float], body: np.ndarray) -> str | None:
    """Region class from what the slices hold, or None when nothing fits.

    Rules on slices, not a network: more than 600 mm along the patient is the whole body, since no single region is that
    long; lung (air inside the body) makes chest; a narrow body with much bone makes head and neck; much bone in a wide
    body makes pelvis; the rest is abdomen. A small region of interest has none.
    """
    k, j, i = spacing_kji
    area = body.sum((1, 2)) * j * i
    used = area > 2000.0
    if not used.any():
        return None
    lung = (body & (hounsfield < -600)).sum((1, 2)) * j * i / np.maximum(area, 1.0)
    bone = (body & (hounsfield > 250)).sum((1, 2)) * j * i / np.maximum(area, 1.0)
    columns = body.any(axis=(0, 1)).sum() * i
    rows = body.any(axis=(0, 2)).sum() * j
    if min(columns, rows) < 130 or max(columns, rows) < 150:
        return None
    length = used.sum() * k
    chest = float((lung[used] > 0.12).mean())
    if length > 600:
        return "whole-body"
    if chest > 0.4:
        return "chest"
    if columns < 250 and float(np.median(bone[used])) > 0.06:
        return "head-neck"
    if chest < 0.05 and float(np.median(bone[used])) > 0.05:
        return "pelvis"
    return "abdomen"
