"""DICOM segmentations and RT structure sets: known as such here, made masks of by ``MedDiffFMLib.dicom.masks``."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from ...core.errors import InputError
from ..source import Reading
from .common import damaged, parsing
from .dicom import dataset_of, is_dicom_file

SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"


def structures_file(path: Path) -> Path | None:
    """The segmentation or structure set that a path is, or that a folder holds alone; None for anything else."""
    files = [path]
    if path.is_dir():
        files = [file for file in path.iterdir() if not file.name.startswith(".")]
    if len(files) != 1 or not files[0].is_file() or not is_dicom_file(files[0]):
        return None
    with parsing(lambda error: damaged(path.name, "DICOM", "its header cannot be read")):
        kind = str(dataset_of(files[0], specific_tags=["SOPClassUID"]).get("SOPClassUID"))
    return files[0] if kind in (*SEGMENTATIONS, STRUCTURE_SET) else None


def is_structures(path: Path) -> bool:
    """Whether it is one."""
    return structures_file(path) is not None


def structures_files(path: Path) -> list[Path]:
    """The one file."""
    file = structures_file(path)
    assert file is not None
    return [file]


def refuse_structures(path: Path, modality: str, reading: Reading) -> NoReturn:
    """Say where it has its place."""
    raise InputError(
        f"'{path.name}' is a DICOM segmentation or structure set, which lies on a scan.",
        "Give it as the mask of that scan, or convert it to NRRD with 3D Slicer.",
    )
