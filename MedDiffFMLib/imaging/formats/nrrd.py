"""NRRD files, attached and detached (http://teem.sourceforge.net/nrrd/format.html)."""

from __future__ import annotations

import bz2
import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ...core.errors import InputError
from ..segments import Segment, flattened
from ..source import Reading
from ..volume import Volume
from .common import (
    LPS_TO_RAS,
    MAX_HEADER,
    MM_PER_UNIT,
    SYNTHETIC_MARK,
    affine,
    check_promise,
    damaged,
    is_synthetic,
    parsing,
    refuse_not_3d,
    truncated,
)

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
_GZIP = b"\x1f\x8b"
_LIST = re.compile(rb"^data ?file: *LIST", re.MULTILINE | re.IGNORECASE)
_SEGMENT = re.compile(r"Segment(\d+)_Name")
_NEEDED = ("type", "dimension", "sizes", "encoding")
_SYNTHETIC = "synthetic"  # key of a key/value pair
_BEAM_SOURCE = "xray_source_ras_mm"
_PARALLEL = "parallel"


def read_nrrd(path: Path, modality: str, reading: Reading) -> Volume:
    """Read a 3-D scalar NRRD; voxels keep their type.

    Args:
        reading: opens the files.

    Raises:
        InputError: wrong magic, damaged, truncated, not 3-D scalar, or without voxel sizes.
    """
    import nrrd

    with reading.open(path) as file:
        header, begin = _parsed(path, file)
        encoding = _encoding(path.name, header)
        with parsing(lambda error: damaged(path.name, "NRRD", error)):
            shape = tuple(int(n) for n in header["sizes"])
            axes = [_axis_kind(kind) for kind in header.get("kinds", [])]
            dtype = np.dtype(nrrd.reader._determine_datatype(header))
            if len(shape) != header["dimension"] or min(shape) < 0:
                raise damaged(path.name, "NRRD", "its sizes do not fit its dimension")
            skipped = tuple(int(_either(header, f"{what} skip", 0)) for what in ("line", "byte"))
        segments = _segments(path.name, header) if modality == "mask" else []
        layered = bool(segments) and len(shape) == 4 and str(header.get("kinds", [""])[0]).lower() == "list"
        refuse_not_3d(path.name, shape[1:] if layered else shape, axes[1:] if layered else axes)
        with parsing(lambda error: damaged(path.name, "NRRD", error)):
            matrix, notes = _geometry(path.name, header)
        data = _data_path(path, header)
        check_promise(path.name, shape, dtype.itemsize, _data_bytes(path, data, begin), encoding)
        with parsing(lambda error: truncated(path.name, f"its voxels do not fill {' x '.join(map(str, shape))}")):
            if data is None:
                file.seek(begin)
                voxels = _read_voxels(file, dtype, shape, encoding, *skipped)
            else:
                with reading.open(data) as detached:
                    voxels = _read_voxels(detached, dtype, shape, encoding, *skipped)
    synthetic = is_synthetic(header.get(_SYNTHETIC, ""))
    voxels, named = voxels.astype(dtype.newbyteorder("="), copy=False), _in_one_layer(segments)
    if layered:
        with parsing(lambda error: damaged(path.name, "NRRD", str(error))):
            voxels, named = flattened(voxels, segments)
    beam = _beam_source(path.name, header)
    return Volume(voxels, matrix, modality, notes, synthetic, segments=named, beam_source=beam)


def nrrd_files(path: Path) -> list[Path]:
    """The header, and the file that holds its voxels where that is another one.

    Raises:
        InputError: no NRRD, or the voxels are missing.
    """
    with path.open("rb") as file:
        data = _data_path(path, _parsed(path, file)[0])
    return [path] if data is None else [path, data]


def write_nrrd(
    path: Path,
    voxels: np.ndarray,
    ijk_to_ras: np.ndarray,
    synthetic: bool = False,
    beam_source: tuple[float, ...] | None = None,
) -> None:
    """Write (k, j, i) voxels as gzip NRRD in LPS, without a time stamp, so that equal input gives equal bytes.

    Args:
        synthetic: say in the header that the image was made in whole or in part.
        beam_source: of an X-ray, see :class:`Volume`.
    """
    little = voxels.astype(voxels.dtype.newbyteorder("<"), order="C", copy=False)
    with path.open("xb") as file:
        file.write(_header(little, LPS_TO_RAS @ ijk_to_ras, synthetic, beam_source).encode("ascii"))
        compressor = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        buffer = little.reshape(-1).view(np.uint8)
        for start in range(0, len(buffer), _CHUNK):
            file.write(compressor.compress(buffer[start : start + _CHUNK].data))
        file.write(compressor.flush())


def _header(voxels: np.ndarray, ijk_to_lps: np.ndarray, synthetic: bool, beam_source: tuple[float, ...] | None) -> str:
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
        *([] if beam_source is None else [f"{_BEAM_SOURCE}:={' '.join(map(repr, beam_source)) or _PARALLEL}"]),
    ]
    return "\n".join(lines).replace("float32", "float") + "\n\n"


def _parsed(path: Path, file: BinaryIO) -> tuple[dict[str, Any], int]:
    """The fields of a header, and the byte at which voxels that follow it begin."""
    import nrrd

    if file.read(4) != b"NRRD":
        raise damaged(path.name, "NRRD", "it does not start with 'NRRD'")
    file.seek(0)
    start = io.BytesIO(file.read(MAX_HEADER))
    if _LIST.search(start.getvalue().partition(b"\n\n")[0]):
        raise _several_files(path.name)
    with parsing(lambda error: damaged(path.name, "NRRD", error)):
        header = nrrd.read_header(start)
    missing = [field for field in _NEEDED if field not in header]
    if missing:
        raise damaged(path.name, "NRRD", f"its header has no {' and no '.join(missing)}")
    return header, start.tell()


def _beam_source(name: str, header: dict[str, Any]) -> tuple[float, ...] | None:
    """Where the source of an X-ray stood, if the header says so."""
    said = header.get(_BEAM_SOURCE)
    if said is None or said == _PARALLEL:
        return None if said is None else ()
    with parsing(lambda error: damaged(name, "NRRD", f"its {_BEAM_SOURCE} is not three numbers")):
        r, a, s = (float(word) for word in str(said).split())
        if not np.isfinite([r, a, s]).all():
            raise ValueError(said)
    return r, a, s


def _encoding(name: str, header: dict[str, Any]) -> str:
    encoding = str(header["encoding"]).lower()
    if encoding not in _ENCODINGS:
        raise InputError(
            f"'{name}' has the encoding '{encoding}', which is not supported.",
            "Save it as raw or gzip, as Slicer does.",
        )
    return _ENCODINGS[encoding]


def _several_files(name: str) -> InputError:
    return InputError(
        f"'{name}' spreads its voxels over several files.", "Save it as one .nrrd file, for instance in Slicer."
    )


def _segments(name: str, header: dict[str, Any]) -> list[tuple[str, int, int]]:
    """Name, value and layer of the segments that 3D Slicer describes in key/value pairs."""
    found = []
    with parsing(lambda error: damaged(name, "NRRD", "what it says about its segments makes no sense")):
        for key in header:
            if match := _SEGMENT.fullmatch(key):
                about = f"Segment{match[1]}"
                # Slicer of before 4.11 gave each segment a layer of its own, and no value.
                layer: Any = header.get(f"{about}_Layer", 0 if f"{about}_LabelValue" in header else match[1])
                found.append((str(header[key]), int(header.get(f"{about}_LabelValue", 1)), int(layer)))
    return found


def _in_one_layer(segments: list[tuple[str, int, int]]) -> tuple[Segment, ...]:
    return tuple(Segment(name, value, (value,)) for name, value, _ in segments)


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
        rows = [row for row in directions if row is not None and not np.isnan(row).all()]  # a list axis has none
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


def _either(header: dict[str, Any], name: str, default: Any = None) -> Any:
    """A field whose name may be written with or without the space."""
    return header.get(name, header.get(name.replace(" ", ""), default))


def _data_path(path: Path, header: dict[str, Any]) -> Path | None:
    """The file that a detached header names; None where the voxels follow the header."""
    named = _either(header, "data file")
    if named is None:
        return None
    if str(named).startswith("LIST") or "%" in str(named):
        raise _several_files(path.name)
    data_path = path.parent / str(named)
    if not data_path.is_file():
        raise InputError(
            f"'{path.name}' keeps its voxels in '{named}', which is missing.", "Put both files into one folder."
        )
    return data_path


def _data_bytes(path: Path, data: Path | None, attached_from: int) -> int:
    """Bytes that hold the voxels."""
    return path.stat().st_size - attached_from if data is None else data.stat().st_size


def _read_voxels(
    file: BinaryIO, dtype: np.dtype, shape: tuple[int, ...], encoding: str, lines: int, skip: int
) -> np.ndarray:
    """Voxels (k, j, i) from the place where they begin; never more is read or unpacked than the header promises.

    Args:
        shape: (i, j, k).
        lines, skip: lines, then bytes to pass over; -1 bytes means that the voxels are the last ones of the file.

    Raises:
        ValueError: too few or impossible.
    """
    if lines < 0 or skip < -1:
        raise ValueError("a skip is negative")
    for _ in range(lines):
        if not file.readline(MAX_HEADER):
            raise ValueError("fewer lines than are to be skipped")
    count = int(np.prod(shape, dtype=np.int64))
    wanted = count * dtype.itemsize
    if encoding == "raw":
        file.seek(*((-wanted, io.SEEK_END) if skip == -1 else (skip, io.SEEK_CUR)))
        return np.fromfile(file, dtype, count).reshape(shape[::-1])
    if encoding == "text":
        file.seek(max(skip, 0), io.SEEK_CUR)
        return np.fromfile(file, dtype, count, sep=" ").reshape(shape[::-1])
    unpacked = bytearray()
    for portion in _unpacked(file, encoding):
        unpacked += portion
        if len(unpacked) > wanted + max(skip, 0):
            raise ValueError("more voxels than the header names")
    return np.frombuffer(unpacked, dtype, count, offset=max(skip, 0)).reshape(shape[::-1])


def _unpacked(file: BinaryIO, encoding: str) -> Iterator[bytes]:
    """Content of a compressed stream, up to its end, in portions of bounded size.

    Raises:
        EOFError: the stream has no end.
    """
    if encoding == "gzip":
        rest = b""
        while True:  # a file may have several members, one after the other
            inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
            while not inflater.eof:
                packed = rest or inflater.unconsumed_tail or file.read(_CHUNK)
                rest = b""
                portion = inflater.decompress(packed, _CHUNK)
                if not packed and not portion:
                    raise EOFError("the compressed stream ends too early")
                yield portion
            rest = inflater.unused_data or file.read(_CHUNK)
            if not rest.startswith(_GZIP[: len(rest)]) or not rest:
                return
    else:
        unpacker = bz2.BZ2Decompressor()
        while not unpacker.eof:
            packed = file.read(_CHUNK) if unpacker.needs_input else b""
            if unpacker.needs_input and not packed:
                raise EOFError("the compressed stream ends too early")
            yield unpacker.decompress(packed, _CHUNK)
