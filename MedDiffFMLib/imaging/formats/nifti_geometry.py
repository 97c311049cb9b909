"""Place of a NIfTI image in the patient, by the rule of ITK 5.4 and thereby of 3D Slicer.

A header may hold two matrices (sform and qform), each with a code that says what it means, and the sizes of voxels
(pixdim) besides. The sform is taken where its code is "scanner" (1) or the qform has none, else the qform; without any
code voxels lie along left, posterior and superior from 0, 0, 0. Sizes are those of pixdim. Where a file contradicts
itself by more than a twentieth of a voxel the difference is told.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core.errors import InputError
from .common import LPS_TO_RAS, MM_PER_UNIT, affine

_SCANNER = 1
_TOLERANCE = 0.05  # of the smallest voxel edge
_NO_SIZE = "Enter the spacing in mm (in Slicer: Volumes, Volume Information) and save it again."


def geometry_of(name: str, header: Any, sizes: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """ijk_to_ras, and what had to be assumed or contradicts itself.

    Args:
        name: of the file.
        header: nibabel's.
        sizes: (i, j, k) of a voxel as they stand in the file; nibabel takes 1 for 0.

    Raises:
        InputError: no voxel size, or lengths in other units.
    """
    unit = header.get_xyzt_units()[0]
    unit = "" if unit == "unknown" else unit
    if unit not in MM_PER_UNIT:
        raise InputError(f"'{name}' has lengths in other units than mm.", "Save it in millimeters.")
    matrix, notes = _chosen(name, header, sizes, MM_PER_UNIT[unit])
    matrix[:3] *= MM_PER_UNIT[unit]
    return matrix, tuple(notes)


def _chosen(name: str, header: Any, sizes: np.ndarray, scale: float) -> tuple[np.ndarray, list[str]]:
    """The matrix in the file's unit, and sentences about it."""
    codes = int(header["sform_code"]), int(header["qform_code"])
    shape = np.array(header.get_data_shape()[:3])
    sized = bool(np.isfinite(sizes).all() and (sizes > 0).all())
    sform = np.array(header.get_sform(), dtype=float) if codes[0] > 0 else None
    if sform is not None and not np.isfinite(np.linalg.norm(sform)):
        sform = None
    if sform is not None and (codes[0] == _SCANNER or codes[1] <= 0):
        if not sized:
            return sform, ["The voxel sizes in the header (pixdim) are missing; those of its matrix (sform) are used."]
        return _with_sizes(sform, sizes, shape, scale)
    if not sized:
        raise InputError(f"'{name}' does not give the size of its voxels.", _NO_SIZE)
    if codes[1] <= 0:
        sentence = "The file does not say how the patient lies; left-posterior-superior (DICOM) axes are assumed."
        return LPS_TO_RAS @ affine(np.diag(sizes), np.zeros(3)), [sentence]
    qform = np.array(header.get_qform(), dtype=float)
    apart = 0.0 if sform is None else _apart(sform, qform, shape)
    if apart <= _TOLERANCE * min(sizes):
        return qform if sform is None else sform, []
    return qform, [
        f"The file says twice where the image lies, up to {apart * scale:.3g} mm apart; its qform is used, as in 3D "
        "Slicer, not its sform."
    ]


def _with_sizes(sform: np.ndarray, sizes: np.ndarray, shape: np.ndarray, scale: float) -> tuple[np.ndarray, list[str]]:
    """The sform with the voxel sizes of the header."""
    own = np.linalg.norm(sform[:3, :3], axis=0)
    if not (own > 0).all():
        return sform, []  # refused as no valid geometry
    sized = affine(sform[:3, :3] / own * sizes, sform[:3, 3])
    apart = _apart(sform, sized, shape)
    if apart <= _TOLERANCE * min(sizes):
        return sform, []
    return sized, [
        f"The file gives its voxels two sizes, {_times(sizes * scale)} mm (pixdim) and {_times(own * scale)} mm "
        f"(sform), by which the image ends up to {apart * scale:.3g} mm apart; the first is used, as in 3D Slicer."
    ]


def _apart(one: np.ndarray, other: np.ndarray, shape: np.ndarray) -> float:
    """Largest distance between the places of a corner voxel."""
    i, j, k = np.maximum(shape - 1, 0)
    corners = np.array([[a, b, c, 1.0] for a in (0, i) for b in (0, j) for c in (0, k)]).T
    return float(np.linalg.norm(((one - other) @ corners)[:3], axis=0).max())


def _times(lengths: np.ndarray) -> str:
    return " x ".join(f"{length:.4g}" for length in lengths)
