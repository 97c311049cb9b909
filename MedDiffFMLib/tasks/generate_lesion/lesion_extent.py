"""Extent of a lesion: its surroundings, what is near it, and voxels that suit its size."""

from __future__ import annotations

import numpy as np

SHELL_MM = (1.0, 5.0)
"""Surroundings of a lesion: between these distances from its rim."""
FITTING_VOXELS = 40
"""A lesion at most so long in the scanner's voxels is made on them; a longer one on isotropic voxels that make it so
long, so that the network sees it whole."""


def working_spacing(lesion: np.ndarray, spacing: tuple[float, float, float]) -> float | None:
    """Isotropic voxel for a large lesion, None where the scanner's own will do."""
    extent = [np.ptp(np.flatnonzero(lesion.any(axis=tuple(a for a in range(3) if a != axis)))) + 1 for axis in range(3)]
    if max(extent) <= FITTING_VOXELS:
        return None
    return max(n * s for n, s in zip(extent, spacing[::-1], strict=True)) / FITTING_VOXELS


def distance_outside(
    lesion: np.ndarray, spacing: tuple[float, float, float], rim: float
) -> tuple[np.ndarray, np.ndarray]:
    """Voxels nearer to the lesion than ``rim`` mm, bool (k, j, i), lesion included, and their distance from it."""
    distance, box = distance_around(lesion, spacing, rim)
    inside = (distance < rim) | (distance == 0)
    near = np.zeros(lesion.shape, dtype=bool)
    near[box] = inside
    return distance[inside], near


def core_inside(lesion: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Which voxels of ``near`` are in the lesion's core, bool (n,) in their order: all but its outermost voxels, which
    are partly what lies around."""
    from scipy.ndimage import binary_erosion, find_objects

    (box,) = find_objects(lesion.view(np.uint8))
    core = np.zeros(lesion.shape, dtype=bool)
    core[box] = binary_erosion(lesion[box])
    return core[near]


def surroundings(hounsfield: np.ndarray, lesion: np.ndarray, spacing: tuple[float, float, float]) -> float:
    """Median HU of the shell around a lesion."""
    distance, box = distance_around(lesion, spacing, SHELL_MM[1])
    shell = (distance > SHELL_MM[0]) & (distance <= SHELL_MM[1])
    if not shell.any():  # voxels larger than the shell
        shell = distance > 0
    return float(np.median(hounsfield[box][shell] if shell.any() else hounsfield[lesion]))


def distance_around(
    lesion: np.ndarray, spacing: tuple[float, float, float], reach: float
) -> tuple[np.ndarray, tuple[slice, ...]]:
    """Distance in mm to the lesion, in the box that holds everything up to ``reach`` mm from it."""
    from scipy.ndimage import distance_transform_edt

    box = []
    for axis, edge in enumerate(spacing[::-1]):
        line = np.flatnonzero(lesion.any(axis=tuple(a for a in range(3) if a != axis)))
        margin = int(np.ceil(reach / edge)) + 1
        box.append(slice(max(int(line[0]) - margin, 0), int(line[-1]) + margin + 1))
    return distance_transform_edt(~lesion[tuple(box)], sampling=spacing[::-1]), tuple(box)
