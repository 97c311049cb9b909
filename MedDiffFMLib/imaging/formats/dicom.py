"""DICOM series: grouping, order, rescaling to Hounsfield units."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ...core.errors import InputError
from ...core.file_hash import file_sha256
from ..source import Reading
from ..volume import Volume
from .common import MAX_COMPRESSION, Portions, check_promise, damaged, parsing, truncated
from .dicom_geometry import geometry_of, refuse_mixed, sorted_slices, without_copies

SYNTHETIC_DATA = 0x0008001C
"""Tag of 2023, which not every dictionary has: YES where an image was not acquired."""
_HEADER_TAGS: list[str | int] = [
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality", "Rows",
    "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "SliceThickness", SYNTHETIC_DATA,
]  # fmt: skip
_SUFFIXES = (".dcm", ".dicom", ".ima")
_ONE_SERIES = "Give one file of the wanted series instead of the folder."
_UNMARKED = re.compile(rb"(?s)(?:[\x02\x08]\x00.[\x00-\x20](?:[A-Z]{2}|..\x00\x00)|\x00[\x02\x08][\x00-\x20].[A-Z]{2})")
"""Beginning of data that lack preamble and mark: group 2 or 8 and an element, with or without the type of its value, in
either byte order."""


def is_dicom_file(path: Path) -> bool:
    """True when the file has DICOM's mark after its preamble, or begins as data do that some programs write bare."""
    with path.open("rb") as file:
        start = file.read(132)
    return _is_marked(start) or _UNMARKED.match(start) is not None


def _is_marked(start: bytes) -> bool:
    return start[128:132] == b"DICM"


def read_dicom(path: Path, modality: str, reading: Reading) -> Volume:
    """Read one CT series, slices ordered by position, rescaled to HU.

    Args:
        path: folder that holds one series, or one file of a series (its folder may then hold others).
        reading: opens the files.

    Raises:
        InputError: no or several series, other modality, multi-frame or color images, mixed orientations or sizes,
            duplicate, missing or unevenly spaced slices, no decoder, damaged files.
    """
    folder = path if path.is_dir() else path.parent
    with parsing(lambda error: damaged(folder.name, "DICOM", "a value makes no sense")):
        slices, unreadable = _one_series(path, reading)
        name = f"{folder.name}/{_title(slices[0])}"
        _refuse_other_images(name, slices, modality)
        found = len(slices)
        slices = _once(name, slices)
        matrix = geometry_of(name, slices)
        notes = []
        if found > len(slices):
            notes.append(f"{found - len(slices)} of {found} images are exact copies of others; they are left out.")
        if unreadable:
            notes.append(
                f"{unreadable} files beside the images are empty or cannot be read and are left out; check that the "
                "series is whole."
            )
        synthetic = any(_is_synthetic(header) for header in slices)
        return Volume(_stack(name, slices, reading), matrix, modality, tuple(notes), synthetic)


def dicom_files(path: Path) -> list[Path]:
    """The files that :func:`read_dicom` makes the volume of, in its order.

    Raises:
        InputError: as :func:`read_dicom`, but for what only the pixels tell.
    """
    with parsing(lambda error: damaged(path.name, "DICOM", "a value makes no sense")):
        slices, _ = _one_series(path, Reading(path))
        _refuse_other_images(path.name, slices, None)
        slices = _once(path.name, slices)
        geometry_of(path.name, slices)
        return [Path(header.filename) for header in slices]


def _once(name: str, slices: list[Any]) -> list[Any]:
    """Sorted slices without exact copies."""
    return without_copies(sorted_slices(slices), lambda one, other: _is_copy(name, one, other))


def _is_copy(name: str, one: Any, other: Any) -> bool:
    """Whether two files at one place have the same bytes, or the same UID and the same values."""
    first, second = Path(one.filename), Path(other.filename)
    if first.stat().st_size == second.stat().st_size and file_sha256(first) == file_sha256(second):
        return True
    if not one.get("SOPInstanceUID") or one.SOPInstanceUID != other.get("SOPInstanceUID"):
        return False
    shape = (int(one.Rows), int(one.Columns))
    left, right = (_hounsfield(name, file, shape, Reading(file)) for file in (first, second))
    return np.array_equal(left, right)


def _one_series(path: Path, reading: Reading) -> tuple[list[Any], int]:
    """Headers of the images of the one series that is meant, and the number of unreadable files beside them."""
    folder = path if path.is_dir() else path.parent
    series, unreadable = _group((file for file in sorted(folder.iterdir()) if file.is_file()), reading)
    if path.is_dir() and not series:
        series, unreadable = _group((file for file in sorted(folder.rglob("*")) if file.is_file()), reading)
    if not path.is_dir():
        uid = str(_header(path, reading).get("SeriesInstanceUID"))
        if uid not in series:
            raise InputError(f"'{path.name}' is a DICOM file without an image.", "Choose a file of a CT series.")
        return series[uid], unreadable
    if not series:
        raise InputError(f"The folder '{path.name}' holds no DICOM images.", "Choose the folder that holds the series.")
    if len(series) > 1:
        found = "; ".join(f"'{_title(s[0])}' ({s[0].get('Modality', '?')}, images: {len(s)})" for s in series.values())
        raise InputError(f"The folder '{path.name}' holds {len(series)} series: {found}.", _ONE_SERIES)
    return next(iter(series.values())), unreadable


def _group(files: Iterable[Path], reading: Reading) -> tuple[dict[str, list[Any]], int]:
    """Headers of all images by SeriesInstanceUID, and the number of files that cannot be read.

    Those are empty files called as images are, and what only begins as DICOM without its mark. Files of other kinds are
    passed over, damaged images are not.

    Raises:
        InputError: a DICOM file that cannot be read: without it a series might end early and look whole.
    """
    series: dict[str, list[Any]] = defaultdict(list)
    unreadable = 0
    for file in files:
        if not is_dicom_file(file):
            unreadable += file.suffix.lower() in _SUFFIXES and file.stat().st_size == 0
            continue
        try:
            with parsing(_damaged_file(file)):
                header = _header(file, reading)
        except InputError:
            if has_mark(file):
                raise
            unreadable += 1
            continue
        if "Rows" in header and "Columns" in header:
            series[str(header.get("SeriesInstanceUID"))].append(header)
        elif not has_mark(file):
            unreadable += 1
    return dict(series), unreadable


def has_mark(file: Path) -> bool:
    """True when the file has DICOM's mark after its preamble."""
    with file.open("rb") as stream:
        return _is_marked(stream.read(132))


def _header(file: Path, reading: Reading) -> Any:
    """The tags that grouping and order need."""
    with reading.look(file) as plain:
        return parse_dataset(file, plain, stop_before_pixels=True, specific_tags=_HEADER_TAGS)


def dataset_of(file: Path, **options: Any) -> Any:
    """Data set that pydicom reads from a file; options are those of ``pydicom.dcmread``.

    Raises:
        InputError: it is deflated: pydicom would inflate it to whatever size.
    """
    with file.open("rb") as plain:
        return parse_dataset(file, plain, **options)


def parse_dataset(file: Path, plain: BinaryIO, **options: Any) -> Any:
    """Data set that pydicom reads from a file, with no more memory than the file can need."""
    import pydicom
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    dataset = pydicom.dcmread(_ImageFile(file, plain), force=True, **options)
    if "TransferSyntaxUID" not in dataset.file_meta:  # of a bare file pydicom tells by its first element
        implicit, little = dataset.original_encoding
        by_encoding = {(True, True): ImplicitVRLittleEndian, (False, False): ExplicitVRBigEndian}
        syntax = by_encoding.get((bool(implicit), bool(little)), ExplicitVRLittleEndian)
        dataset.file_meta.TransferSyntaxUID = syntax
    dataset.filename = str(file)
    return dataset


class _ImageFile(Portions):
    """pydicom asks for all that is left only to inflate it, to whatever size."""

    def __init__(self, path: Path, file: Any) -> None:
        super().__init__(file, path.stat().st_size)
        self._path = path

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            raise InputError(
                f"'{self._path.name}' is deflated, which is not supported.", "Load it in 3D Slicer and save it as NRRD."
            )
        return super().read(size)


def _is_synthetic(header: Any) -> bool:
    return SYNTHETIC_DATA in header and str(header[SYNTHETIC_DATA].value) == "YES"


def _title(header: Any) -> str:
    """Series number and description as the radiologist knows them."""
    number, text = header.get("SeriesNumber"), header.get("SeriesDescription")
    return " ".join(str(part) for part in (number, text) if part not in (None, "")) or "without a name"


def _refuse_other_images(name: str, slices: list[Any], modality: str | None) -> None:
    """Only single-frame gray CT images of one size and orientation make a volume; without a modality, of any."""
    kinds = {str(s.get("Modality", "?")) for s in slices}
    if modality == "CT" and kinds != {"CT"}:
        raise InputError(f"'{name}': these are {' and '.join(sorted(kinds))} images, not CT.", "Choose a CT series.")
    if any(int(s.get("NumberOfFrames") or 1) > 1 for s in slices):
        raise InputError(
            f"'{name}': multi-frame (enhanced) DICOM is not supported.", "Load it in 3D Slicer and save it as NRRD."
        )
    if any(int(s.get("SamplesPerPixel") or 1) != 1 for s in slices):
        raise InputError(
            f"'{name}': the images are in color, not in Hounsfield units.", "Choose the original CT series."
        )
    refuse_mixed(name, slices)


def _stack(name: str, slices: list[Any], reading: Reading) -> np.ndarray:
    """Voxels (k, j, i) in HU: int16 or int32 where slopes and intercepts are whole numbers, else float32."""
    shape = (len(slices), int(slices[0].Rows), int(slices[0].Columns))
    _check_encoding(name, slices, shape)
    voxels: np.ndarray | None = None
    for k, header in enumerate(slices):
        image = _hounsfield(name, Path(header.filename), shape[1:], reading)
        if voxels is None:
            voxels = np.empty(shape, image.dtype)
        if voxels.dtype != image.dtype:  # one slice needs more than the others: widen all
            voxels = voxels.astype(np.result_type(voxels, image))
        voxels[k] = image
    assert voxels is not None
    return voxels


def _check_encoding(name: str, slices: list[Any], shape: tuple[int, ...]) -> None:
    """A decoder must be installed, and raw files must be long enough."""
    from pydicom.pixels import get_decoder
    from pydicom.uid import RLELossless

    syntaxes = {s.file_meta.TransferSyntaxUID for s in slices if "TransferSyntaxUID" in s.file_meta}
    for syntax in syntaxes:
        try:
            available = get_decoder(syntax).is_available
        except NotImplementedError:
            available = False
        if not available:
            raise InputError(
                f"'{name}': the images are compressed ({syntax.name}) and no decoder for that is installed.",
                "Install one (pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg), "
                "or load the series in 3D Slicer and save it as NRRD.",
            )
    kinds = {"rle" if syntax == RLELossless else "jpeg" if syntax.is_compressed else "raw" for syntax in syntaxes}
    available_bytes = sum(Path(s.filename).stat().st_size for s in slices)
    loosest = max(kinds or {"raw"}, key=lambda kind: MAX_COMPRESSION[kind])
    check_promise(name, shape, int(slices[0].get("BitsAllocated") or 16) // 8, available_bytes, loosest)


def _damaged_file(file: Path) -> Callable[[Exception], InputError]:
    return lambda error: damaged(file.name, "DICOM", "its header cannot be read")


def _hounsfield(name: str, file: Path, shape: tuple[int, ...], reading: Reading) -> np.ndarray:
    """One slice (j, i), rescaled."""
    with parsing(lambda error: truncated(f"{name}/{file.name}", "its pixels cannot be decoded")):
        with reading.open(file) as plain:
            dataset = parse_dataset(file, plain)
        stored = dataset.pixel_array
    if stored.shape != shape:
        raise damaged(file.name, "DICOM", f"its pixels are {stored.shape}, not {shape}")
    slope = float(dataset.get("RescaleSlope", 1) or 1)
    intercept = float(dataset.get("RescaleIntercept", 0) or 0)
    if slope != round(slope) or intercept != round(intercept):
        return stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    values = stored.astype(np.int64) * int(slope) + int(intercept)
    fits = np.iinfo(np.int16).min <= values.min() and values.max() <= np.iinfo(np.int16).max
    return values.astype(np.int16 if fits else np.int32)
