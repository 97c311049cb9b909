"""MetaImage files, ``.mha`` and ``.mhd`` (https://itk.org/Wiki/ITK/MetaIO/Documentation).

Read and written here and not by SimpleITK: its reader takes memory for whatever a header promises and fills up a
truncated file in silence. Tests hold both directions against SimpleITK.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ...core.errors import InputError
from ..source import Reading
from ..volume import Volume
from .common import (
    LPS_TO_RAS,
    MAX_HEADER,
    SYNTHETIC_MARK,
    affine,
    check_promise,
    damaged,
    is_synthetic,
    parsing,
    refuse_not_3d,
    truncated,
)

_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
"""ElementType -> NumPy's; MET_LONG has four bytes in a file, whatever it has in memory."""
_NAMES = {np.dtype(code): name for name, code in _TYPES.items() if "LONG" not in name or code[1] == "8"}
_LINE = 4096  # letters of a header line at most
_CHUNK = 1 << 24


def read_metaimage(path: Path, modality: str, reading: Reading) -> Volume:
    """Read a 3-D scalar MetaImage; voxels keep their type.

    Args:
        reading: opens the files.

    Raises:
        InputError: damaged, truncated, not 3-D scalar, or without voxel sizes.
    """
    with reading.open(path) as file:
        header = _header(path.name, file)
        with parsing(lambda error: damaged(path.name, "MetaImage", "its header makes no sense")):
            shape = tuple(int(word) for word in header["DimSize"].split())
            channels = int(header.get("ElementNumberOfChannels", "1"))
            if len(shape) != int(header["NDims"]) or min(shape) < 0:
                raise ValueError
            dtype = np.dtype(_TYPES[header["ElementType"]]).newbyteorder(">" if _is_big_endian(header) else "<")
        refuse_not_3d(path.name, shape if channels == 1 else (channels, *shape), [] if channels == 1 else ["vector"])
        matrix = _geometry(path.name, header)
        data = _data_file(path, header["ElementDataFile"])
        encoding = "gzip" if _is_true(header, "CompressedData") else "raw" if _is_true(header, "BinaryData") else "text"
        begin = file.tell() if data is None else 0
        available = (path if data is None else data).stat().st_size - begin
        check_promise(path.name, shape, dtype.itemsize, available, encoding)
        skip = int(header.get("HeaderSize", "0"))
        with parsing(lambda error: truncated(path.name, f"its voxels do not fill {' x '.join(map(str, shape))}")):
            if data is None:
                voxels = _voxels(file, dtype, shape, encoding, skip)
            else:
                with reading.open(data) as detached:
                    voxels = _voxels(detached, dtype, shape, encoding, skip)
    synthetic = is_synthetic(header.get("Comment", ""))
    native = voxels.astype(dtype.newbyteorder("="), copy=False)
    return Volume(native, matrix, modality, synthetic=synthetic)


def write_metaimage(path: Path, voxels: np.ndarray, ijk_to_ras: np.ndarray, synthetic: bool = False) -> None:
    """Write (k, j, i) voxels, compressed, in one file whatever its suffix; equal input gives equal bytes.

    Args:
        synthetic: say in the header that the image was made in whole or in part.
    """
    little = voxels.astype(voxels.dtype.newbyteorder("<"), order="C", copy=False)
    compressor = zlib.compressobj(1)
    buffer = little.reshape(-1).view(np.uint8)
    parts = [compressor.compress(buffer[start : start + _CHUNK].data) for start in range(0, len(buffer), _CHUNK)]
    parts.append(compressor.flush())
    with path.open("xb") as file:  # the header tells the size of what follows
        file.write(_header_text(little, LPS_TO_RAS @ ijk_to_ras, synthetic, sum(map(len, parts))).encode("ascii"))
        file.writelines(parts)


def _header_text(voxels: np.ndarray, ijk_to_lps: np.ndarray, synthetic: bool, size: int) -> str:
    """MetaImage header; numbers are written with all their digits."""
    spacing = np.linalg.norm(ijk_to_lps[:3, :3], axis=0)

    def numbers(values: np.ndarray) -> str:
        return " ".join(repr(float(value) + 0.0) for value in values)

    lines = [
        "ObjectType = Image",
        "NDims = 3",
        *([f"Comment = {SYNTHETIC_MARK}"] if synthetic else []),
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = True",
        f"CompressedDataSize = {size}",
        f"TransformMatrix = {numbers((ijk_to_lps[:3, :3] / spacing).T.ravel())}",
        f"Offset = {numbers(ijk_to_lps[:3, 3])}",
        "CenterOfRotation = 0 0 0",
        f"ElementSpacing = {numbers(spacing)}",
        "DimSize = " + " ".join(str(count) for count in voxels.shape[::-1]),
        f"ElementType = {_NAMES[voxels.dtype.newbyteorder('=')]}",
        "ElementDataFile = LOCAL",
    ]
    return "\n".join(lines) + "\n"


def metaimage_files(path: Path) -> list[Path]:
    """The header, and the file that holds its voxels where that is another one.

    Raises:
        InputError: no MetaImage, or the voxels are missing.
    """
    with path.open("rb") as file:
        data = _data_file(path, _header(path.name, file)["ElementDataFile"])
    return [path] if data is None else [path, data]


def _header(name: str, file: BinaryIO) -> dict[str, str]:
    """Fields, up to the one behind which the voxels begin."""
    header: dict[str, str] = {}
    while "ElementDataFile" not in header:
        line = file.readline(_LINE)
        key, equals, value = line.partition(b"=")
        if not equals or file.tell() > MAX_HEADER or (not header and key.strip() not in (b"ObjectType", b"NDims")):
            raise damaged(name, "MetaImage", "its header does not say where the voxels are")
        header[key.decode("latin-1").strip()] = value.decode("utf-8", "surrogateescape").strip()
    return header


def _data_file(path: Path, named: str) -> Path | None:
    """The file that a header names; None where the voxels follow it.

    Raises:
        InputError: several, or missing.
    """
    if named.upper() == "LOCAL":
        return None
    if named.split()[:1] == ["LIST"] or "%" in named:
        raise InputError(
            f"'{path.name}' spreads its voxels over several files.", "Save it as one .mha file, for instance in Slicer."
        )
    data = path.parent / named
    if not data.is_file():
        raise InputError(
            f"'{path.name}' keeps its voxels in '{named}', which is missing.", "Put both files into one folder."
        )
    return data


def _is_true(header: dict[str, str], key: str) -> bool:
    return header.get(key, "").lower()[:1] in ("t", "1")


def _is_big_endian(header: dict[str, str]) -> bool:
    return _is_true(header, "BinaryDataByteOrderMSB") or _is_true(header, "ElementByteOrderMSB")


def _geometry(name: str, header: dict[str, str]) -> np.ndarray:
    """ijk_to_ras."""

    def numbers(count: int, *keys: str) -> np.ndarray | None:
        text = next((header[key] for key in keys if key in header), None)
        if text is None:
            return None
        with parsing(lambda error: damaged(name, "MetaImage", f"its {keys[0]} makes no sense")):
            values = np.array([float(word) for word in text.split()])
            if values.shape != (count,):
                raise ValueError
        return values

    spacing = numbers(3, "ElementSpacing", "ElementSize")
    if spacing is None:
        raise InputError(
            f"'{name}' does not give the size of its voxels.",
            "Enter the spacing in mm (in Slicer: Volumes, Volume Information) and save it again.",
        )
    axes = numbers(9, "TransformMatrix", "Rotation", "Orientation")
    origin = numbers(3, "Offset", "Position", "Origin")
    directions = np.eye(3) if axes is None else axes.reshape(3, 3).T
    return LPS_TO_RAS @ affine(directions * spacing, np.zeros(3) if origin is None else origin)


def _voxels(file: BinaryIO, dtype: np.dtype, shape: tuple[int, ...], encoding: str, skip: int) -> np.ndarray:
    """Voxels (k, j, i) from the place where they begin; never more is read or unpacked than the header promises.

    Args:
        shape: (i, j, k).
        skip: bytes to pass over; -1 means that the voxels are the last ones of the file.

    Raises:
        ValueError: too few or impossible.
    """
    count = int(np.prod(shape, dtype=np.int64))
    if skip < -1:
        raise ValueError("a skip is negative")
    if encoding == "raw":
        file.seek(*((-count * dtype.itemsize, io.SEEK_END) if skip == -1 else (skip, io.SEEK_CUR)))
        return np.fromfile(file, dtype, count).reshape(shape[::-1])
    file.seek(max(skip, 0), io.SEEK_CUR)
    if encoding == "text":
        return np.fromfile(file, dtype, count, sep=" ").reshape(shape[::-1])
    unpacked = bytearray()
    for portion in _inflated(file):
        unpacked += portion
        if len(unpacked) > count * dtype.itemsize:
            raise ValueError("more voxels than the header names")
    return np.frombuffer(unpacked, dtype, count).reshape(shape[::-1])


def _inflated(file: BinaryIO) -> Iterator[bytes]:
    """Content of a zlib or gzip stream, in portions of bounded size; raises EOFError where it has no end."""
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)
    while not inflater.eof:
        packed = inflater.unconsumed_tail or file.read(_CHUNK)
        portion = inflater.decompress(packed, _CHUNK)
        if not packed and not portion:
            raise EOFError("the compressed stream ends too early")
        yield portion
