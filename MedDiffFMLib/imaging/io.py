"""Reading and writing volumes in all formats.

Reads NRRD (``.nrrd``, ``.nhdr``), NIfTI (``.nii``, ``.nii.gz``), MetaImage (``.mha``, ``.mhd``) and DICOM (a folder, a
``.zip`` of one, or one file of a series). Writes NRRD (``.nrrd``), NIfTI and MetaImage. Everything in memory is
(k, j, i) with ``ijk_to_ras``, see :class:`Volume`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..core.atomic_files import atomic_path
from ..core.errors import InputError, OutputError
from .archives import unpacked
from .formats.dicom import is_dicom_file, read_dicom
from .formats.metaimage import read_metaimage, write_metaimage
from .formats.nifti import read_nifti, write_nifti
from .formats.nrrd import read_nrrd, write_nrrd
from .volume import Volume

NRRD_SUFFIXES = (".nrrd", ".nhdr")
NIFTI_SUFFIXES = (".nii", ".nii.gz")
METAIMAGE_SUFFIXES = (".mha", ".mhd")
WRITABLE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", *METAIMAGE_SUFFIXES)
_READABLE = (
    "Give a .nrrd, .nhdr, .nii, .nii.gz, .mha or .mhd file, a DICOM folder or a .zip of one, or one file of a DICOM "
    "series."
)


def read_volume(path: str | Path, modality: str = "CT") -> Volume:
    """Read one 3-D scalar volume; integer voxels keep their type.

    Args:
        path: NRRD, NIfTI or MetaImage file, DICOM folder with one series or a ZIP archive of it, or one file of a
            DICOM series.
        modality: what the file is read as, "CT" or "mask"; a DICOM series that says otherwise is refused as CT.

    Raises:
        InputError: missing, unreadable, damaged, or not one 3-D scalar volume.
    """
    path = Path(path)
    name = path.name.lower()
    try:
        if not path.exists():
            raise InputError(f"There is no file or folder '{path}'.", "Check the path.")
        if path.is_dir():
            return read_dicom(path, modality)
        if not path.is_file():
            raise InputError(f"'{path.name}' is neither a file nor a folder.", "Give a file or a folder.")
        if path.stat().st_size == 0:
            raise InputError(f"'{path.name}' is an empty file.", "Copy or export it again.")
        if name.endswith(NRRD_SUFFIXES):
            return read_nrrd(path, modality)
        if name.endswith(NIFTI_SUFFIXES):
            return read_nifti(path, modality)
        if name.endswith(METAIMAGE_SUFFIXES):
            return read_metaimage(path, modality)
        if name.endswith(".zip"):
            with unpacked(path) as folder:
                return read_dicom(folder, modality)
        if is_dicom_file(path):
            return read_dicom(path, modality)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"'{path}' could not be read: {reason}.", "Check the path and its permissions.") from error
    except MemoryError as error:
        raise InputError(
            f"'{path.name}' does not fit into this computer's memory.", "Crop or resample it, or close other programs."
        ) from error
    raise InputError(f"'{path.name}' is of a format that cannot be read.", _READABLE)


def write_volume(volume: Volume, path: str | Path, *, overwrite: bool = False, mask: bool = False) -> None:
    """Write a volume as NRRD, NIfTI or MetaImage; the file appears complete or not at all.

    Integers and bool stay exact in the smallest of uint8 (masks), int16, int32, int64; floats become float32.
    The same volume always gives the same bytes. A synthetic volume is marked as such in the header.

    Args:
        mask: the voxels are labels; they must be whole numbers. A volume of modality "mask" that holds whole numbers
            is taken so by itself.

    Raises:
        OutputError: unknown suffix, exists, no permission, disk full.
    """
    path = Path(path)
    name = path.name.lower()
    if name.endswith(".nrrd"):
        writer = write_nrrd
    elif name.endswith(NIFTI_SUFFIXES):
        writer = write_nifti
    elif name.endswith(METAIMAGE_SUFFIXES):
        writer = write_metaimage
    else:
        raise OutputError(f"'{path.name}' has no suffix that can be written.", "Use .nrrd, .nii, .nii.gz or .mha.")
    voxels = _storable(volume.voxels, mask or (volume.modality == "mask" and volume.voxels.dtype.kind in "bui"))
    with atomic_path(path, overwrite=overwrite) as temporary:
        writer(temporary, voxels, volume.ijk_to_ras, volume.synthetic)


def _storable(voxels: np.ndarray, mask: bool) -> np.ndarray:
    """Voxels in the smallest common type that loses nothing (float64 is rounded to float32)."""
    if voxels.dtype.kind == "f" and not mask:
        return voxels.astype(np.float32, copy=False)
    if voxels.dtype.kind == "f" and not np.array_equal(voxels, np.round(voxels)):
        raise ValueError("a mask must hold whole numbers")
    low, high = (int(voxels.min()), int(voxels.max())) if voxels.size else (0, 0)
    candidates = (np.uint8, np.int16, np.int32, np.int64) if mask else (np.int16, np.int32, np.int64)
    for dtype in candidates:
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return voxels.astype(dtype, copy=False)
    raise ValueError(f"values from {low} to {high} fit no integer type that can be stored")
