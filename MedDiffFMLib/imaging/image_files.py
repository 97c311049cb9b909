"""Files of one image: name without suffix, and hash."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from ..core.file_hash import file_sha256
from .formats import metaimage


def input_sha256(path: Path) -> str:
    """SHA-256 of an input.

    A single file gives what ``sha256sum`` prints. Several files (DICOM folder or series, detached NRRD) give the
    SHA-256 of the lines ``<sha256>  <name>`` in order of the names.
    """
    files = files_of(path)
    if files == [path]:
        return file_sha256(path)
    lines = "".join(f"{file_sha256(file)}  {file.name}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def files_of(path: Path) -> list[Path]:
    """The files that reading ``path`` may touch."""
    lower = path.name.lower()
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.is_file())
    if lower.endswith(".nhdr"):
        named = re.search(rb"^data ?file: *(.+?)\r?$", path.read_bytes()[:65536], re.MULTILINE)
        data = path.parent / os.fsdecode(named[1]) if named else path
        return [path, data] if data.is_file() and data != path else [path]
    if lower.endswith(".mhd"):
        voxels = metaimage.data_file(path, metaimage.read_header(path)["ElementDataFile"])
        return [path] if voxels is None else [path, voxels]
    if lower.endswith((".nrrd", ".nii", ".nii.gz", ".mha", ".zip")):
        return [path]
    return sorted(file for file in path.parent.iterdir() if file.is_file())  # one file of a DICOM series


VOLUME_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".zip")
"""Of files that are one volume each."""
_STRIPPED = (".seg.nrrd", *VOLUME_SUFFIXES, ".dcm")


def stem_of(path: Path) -> str:
    """File name without the suffix of a known format; that of a link is its own, wherever it leads."""
    name = Path(os.path.abspath(path)).name
    suffix = next((known for known in _STRIPPED if name.lower().endswith(known)), "")
    return name[: -len(suffix)] if suffix else name
