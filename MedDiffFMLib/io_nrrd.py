"""NRRD files, attached and detached (http://teem.sourceforge.net/nrrd/format.html)."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError
from .io_common import (
    LPS_TO_RAS,
    MM_PER_UNIT,
    SYNTHETIC_MARK,
    affine,
    check_promise,
    damaged,
    is_synthetic,
    refuse_not_3d,
    truncated,
)
from .volume import Volume

_ENCODINGS = {
    "raw": "raw",
    **dict.fromkeys(("gzip", "gz"), "gzip"),
    **dict.fromkeys(("bzip2", "bz2"), "bzip2"),
    **dict.fromkeys(("ascii", "text", "txt"), "text"),
}
_VECTOR_KINDS = ("vector", "color", "matrix", "quaternion", "normal", "gradient", "complex", "point")
_SPACES = {
    **dict.fromkeys(("left-posterior-superior", "lps"), (-1, -1, 1)),
    **dict.fromkeys(("right-anterior-superior", "ras"), (1, 1, 1)),
    **dict.fromkeys(("left-anterior-superior", "las"), (-1, 1, 1)),
}
_CHUNK = 1 << 24
_SYNTHETIC = "synthetic"  # key of a key/value pair


def read_nrrd(path: Path, modality: str) -> Volume:
    """Read a 3-D scalar NRRD; voxels keep their type.

    Raises:
        InputError: wrong magic, damaged, truncated, not 3-D scalar, or without voxel sizes.
    """
    import nrrd

    with path.open("rb") as file:
        if not file.read(4) == b"NRRD":
            raise damaged(path.name, "NRRD", "it does not start with 'NRRD'")
        file.seek(0)
        try:
            header = nrrd.read_header(file)
            shape = tuple(int(n) for n in header["sizes"])
            axes = [_axis_kind(kind) for kind in header.get("kinds", [])]
            dtype = np.dtype(nrrd.reader._determine_datatype(header))
            encoding = _ENCODINGS[str(header["encoding"]).lower()]
        except (nrrd.NRRDError, KeyError, ValueError, StopIteration) as error:
            raise damaged(path.name, "NRRD", error) from error
        refuse_not_3d(path.name, shape, axes)
        matrix, notes = _geometry(path.name, header)
        check_promise(path.name, shape, dtype.itemsize, _data_bytes(path, header, file.tell()), encoding)
        try:
            voxels = nrrd.read_data(header, file, str(path), index_order="C")
        except (nrrd.NRRDError, ValueError, zlib.error, EOFError) as error:
            raise truncated(path.name, f"its voxels do not fill {' x '.join(map(str, shape))}") from error
    synthetic = is_synthetic(header.get(_SYNTHETIC, ""))
    return Volume(voxels.astype(dtype.newbyteorder("="), copy=False), matrix, modality, notes, synthetic)


def write_nrrd(path: Path, voxels: np.ndarray, ijk_to_ras: np.ndarray, synthetic: bool = False) -> None:
    """Write (k, j, i) voxels as gzip NRRD in LPS, without a time stamp, so that equal input gives equal bytes.

    Args:
        synthetic: say in the header that the image was made in whole or in part.
    """
    little = voxels.astype(voxels.dtype.newbyteorder("<"), order="C", copy=False)
    with path.open("xb") as file:
        file.write(_header(little, LPS_TO_RAS @ ijk_to_ras, synthetic).encode("ascii"))
        compressor = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        buffer = little.reshape(-1).view(np.uint8)
        for start in range(0, len(buffer), _CHUNK):
            file.write(compressor.compress(buffer[start : start + _CHUNK].data))
        file.write(compressor.flush())


def _header(voxels: np.ndarray, ijk_to_lps: np.ndarray, synthetic: bool) -> str:
    """NRRD header text; numbers are written with all their digits, so the geometry survives exactly."""

    def vector(numbers: np.ndarray) -> str:
        return "(" + ",".join(repr(float(x) + 0.0) for x in numbers) + ")"

    lines = [
        "NRRD0004",
        f"type: {voxels.dtype.name}",
        "dimension: 3",
        "space: left-posterior-superior",
        "sizes: " + " ".join(str(n) for n in voxels.shape[::-1]),
        "space directions: " + " ".join(vector(ijk_to_lps[:3, axis]) for axis in range(3)),
        "kinds: domain domain domain",
        *(["endian: little"] if voxels.dtype.itemsize > 1 else []),
        "encoding: gzip",
        'space units: "mm" "mm" "mm"',
        "space origin: " + vector(ijk_to_lps[:3, 3]),
        *([f"{_SYNTHETIC}:={SYNTHETIC_MARK}"] if synthetic else []),
    ]
    return "\n".join(lines).replace("float32", "float") + "\n\n"


def _axis_kind(kind: str | None) -> str:
    lowered = (kind or "").lower()
    if any(word in lowered for word in _VECTOR_KINDS):
        return "color" if "color" in lowered else "vector"
    return "time" if lowered == "time" else "domain"


def _geometry(name: str, header: dict[str, Any]) -> tuple[np.ndarray, tuple[str, ...]]:
    """ijk_to_ras and what had to be assumed."""
    space = str(header.get("space", "")).lower()
    to_ras = np.array(_SPACES.get(space, (-1, -1, 1)), dtype=float)
    notes = []
    if space not in _SPACES:
        notes.append("The file does not say how the patient lies; left-posterior-superior (DICOM) axes are assumed.")
    axes = _axes(name, header)
    origin = header.get("space origin")
    if origin is None:
        notes.append("The file has no origin; the center of the first voxel is taken as 0, 0, 0.")
        origin = np.zeros(3)
    if len(origin) != 3:
        raise damaged(name, "NRRD", "its space origin does not have 3 numbers")
    units = {str(unit).strip('"').lower() for unit in header.get("space units", ["mm"])}
    if len(units) != 1 or (unit := units.pop()) not in MM_PER_UNIT:
        raise InputError(f"'{name}' has lengths in other units than mm.", "Save it in millimeters.")
    scale = MM_PER_UNIT[unit] * to_ras
    return affine(scale[:, None] * axes, scale * np.asarray(origin, dtype=float)), tuple(notes)


def _axes(name: str, header: dict[str, Any]) -> np.ndarray:
    """The three voxel axes as columns, in the file's space and unit."""
    directions = header.get("space directions")
    if directions is not None:
        rows = [row for row in directions if row is not None]
        if len(rows) != 3 or any(len(row) != 3 for row in rows):
            raise damaged(name, "NRRD", "its space directions are not 3 vectors of 3 numbers")
        return np.array(rows, dtype=float).T
    spacings = np.asarray(header.get("spacings", []), dtype=float)
    if spacings.shape != (3,) or not np.isfinite(spacings).all():
        raise InputError(
            f"'{name}' does not give the size of its voxels.",
            "Enter the spacing in mm (in Slicer: Volumes, Volume Information) and save it again.",
        )
    return np.diag(spacings)


def _data_bytes(path: Path, header: dict[str, Any], attached_from: int) -> int:
    """Bytes that hold the voxels, in this file or in the one that a detached header names."""
    data_file = header.get("data file", header.get("datafile"))
    if data_file is None:
        return path.stat().st_size - attached_from
    if str(data_file).startswith("LIST") or "%" in str(data_file):
        raise InputError(
            f"'{path.name}' spreads its voxels over several files.",
            "Save it as one .nrrd file, for instance in Slicer.",
        )
    data_path = path.parent / str(data_file)
    if not data_path.is_file():
        raise InputError(
            f"'{path.name}' keeps its voxels in '{data_file}', which is missing.", "Put both files into one folder."
        )
    return data_path.stat().st_size
