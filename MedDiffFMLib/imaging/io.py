"""Reading and writing volumes in all formats.

Reads NRRD (``.nrrd``, ``.nhdr``), NIfTI (``.nii``, ``.nii.gz``), MetaImage (``.mha``, ``.mhd``) and DICOM (a folder, a
``.zip`` of one, or one file of a series), and of X-rays PNG and single DICOM files. Writes NRRD (``.nrrd``), NIfTI and
MetaImage. Everything in memory is (k, j, i) with ``ijk_to_ras``, see :class:`Volume`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..core.atomic_files import atomic_path
from ..core.errors import InputError, OutputError
from .archives import unpacked
from .formats.dicom import dicom_files, is_dicom_file, read_dicom
from .formats.dicom_radiograph import read_radiograph
from .formats.dicom_structures import is_structures, refuse_structures, structures_files
from .formats.metaimage import metaimage_files, read_metaimage, write_metaimage
from .formats.nifti import read_nifti, write_nifti
from .formats.nrrd import nrrd_files, read_nrrd, write_nrrd
from .formats.png import read_png
from .modality import XR
from .source import Reading, Source
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
    with _told(path):
        reading = Reading(path)
        volume = _format_of(path).read(path, modality, reading)
        return replace(volume, source=reading.source())


def read_unchanged(path: Path, sha256: str, modality: str = "CT") -> Volume:
    """Read a volume whose source was looked at before, as by :func:`source_of`.

    Raises:
        InputError: it has changed since, or as :func:`read_volume`.
    """
    volume = read_volume(path, modality)
    if volume.source is None or volume.source.sha256 != sha256:
        raise InputError(f"'{path.name}' changed while it was read.", "Wait until it is complete, and try again.")
    return volume


def files_of(path: Path) -> list[Path]:
    """The files that :func:`read_volume` would make a volume of, in the order in which it would read them.

    Raises:
        InputError: as :func:`read_volume`, but for what only the voxels tell.
    """
    with _told(path):
        return _format_of(path).files(path)


def source_of(path: Path) -> Source:
    """The source that :func:`read_volume` would give, without its reading the voxels.

    Raises:
        InputError: as :func:`read_volume`, but for what only the voxels tell.
    """
    with _told(path):
        reading = Reading(path)
        for file in files_of(path):
            with reading.open(file):
                pass
        return reading.source()


@dataclass(frozen=True)
class Format:
    """One way in which volumes are stored.

    Attributes:
        fits: whether a file or folder is of it.
        read: path, modality, and what opens the files.
        files: the files that ``read`` opens, in its order.
    """

    fits: Callable[[Path], bool]
    read: Callable[[Path, str, Reading], Volume]
    files: Callable[[Path], list[Path]]


def _named(*suffixes: str) -> Callable[[Path], bool]:
    return lambda path: path.name.lower().endswith(suffixes)


def _itself(path: Path) -> list[Path]:
    return [path]


def _read_archive(path: Path, modality: str, reading: Reading) -> Volume:
    """A zipped DICOM series; its source is the archive."""
    with unpacked(path, reading) as folder:
        return read_dicom(folder, modality, Reading(folder))


def _read_dicom_file(path: Path, modality: str, reading: Reading) -> Volume:
    """A radiograph is one file; of any other file the whole series is meant."""
    return read_radiograph(path, reading) if modality == XR else read_dicom(path, modality, reading)


FORMATS = (
    Format(is_structures, refuse_structures, structures_files),
    Format(Path.is_dir, read_dicom, dicom_files),
    Format(_named(*NRRD_SUFFIXES), read_nrrd, nrrd_files),
    Format(_named(*NIFTI_SUFFIXES), read_nifti, _itself),
    Format(_named(*METAIMAGE_SUFFIXES), read_metaimage, metaimage_files),
    Format(_named(".zip"), _read_archive, _itself),
    Format(_named(".png"), read_png, _itself),
    Format(is_dicom_file, _read_dicom_file, dicom_files),
)
"""The first that fits is taken."""


def _format_of(path: Path) -> Format:
    """The format of what is there and not empty."""
    if not path.exists():
        raise InputError(f"There is no file or folder '{path}'.", "Check the path.")
    if not path.is_dir():
        if not path.is_file():
            raise InputError(f"'{path.name}' is neither a file nor a folder.", "Give a file or a folder.")
        if path.stat().st_size == 0:
            raise InputError(f"'{path.name}' is an empty file.", "Copy or export it again.")
    for row in FORMATS:
        if row.fits(path):
            return row
    raise InputError(f"'{path.name}' is of a format that cannot be read.", _READABLE)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn what the system refuses into a sentence."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"'{path}' could not be read: {reason}.", "Check the path and its permissions.") from error
    except MemoryError as error:
        raise InputError(
            f"'{path.name}' does not fit into this computer's memory.", "Crop or resample it, or close other programs."
        ) from error


def write_volume(volume: Volume, path: str | Path, *, overwrite: bool = False, mask: bool = False) -> None:
    """Write a volume as NRRD, NIfTI or MetaImage; the file appears complete or not at all.

    Integers and bool stay exact in the smallest of uint8 (masks), int16, int32, int64; floats become float32.
    The same volume always gives the same bytes. A synthetic volume is marked as such in the header; NRRD alone keeps
    where the source of an X-ray stood.

    Args:
        mask: the voxels are labels; they must be whole numbers. A volume of modality "mask" that holds whole numbers
            is taken so by itself.

    Raises:
        OutputError: unknown suffix, exists, no permission, disk full.
    """
    path = Path(path)
    name = path.name.lower()
    if not name.endswith(WRITABLE_SUFFIXES):
        raise OutputError(f"'{path.name}' has no suffix that can be written.", "Use .nrrd, .nii, .nii.gz or .mha.")
    voxels = _storable(volume.voxels, mask or (volume.modality == "mask" and volume.voxels.dtype.kind in "bui"))
    with atomic_path(path, overwrite=overwrite) as temporary:
        if name.endswith(".nrrd"):
            write_nrrd(temporary, voxels, volume.ijk_to_ras, volume.synthetic, volume.beam_source)
        elif name.endswith(NIFTI_SUFFIXES):
            write_nifti(temporary, voxels, volume.ijk_to_ras, volume.synthetic)
        else:
            write_metaimage(temporary, voxels, volume.ijk_to_ras, volume.synthetic)


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
