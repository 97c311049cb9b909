"""DICOM series: grouping, order, rescaling to Hounsfield units."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ...core.errors import InputError
from ..source import Reading
from ..volume import Volume
from .common import LPS_TO_RAS, MAX_COMPRESSION, Portions, affine, check_promise, damaged, parsing, truncated

_HEADER_TAGS = [
    "SOPClassUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality", "Rows", "Columns",
    "NumberOfFrames", "SamplesPerPixel", "BitsAllocated", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "SliceThickness",
]  # fmt: skip
_STEP_TOLERANCE = 0.05  # of the slice distance: above the rounding of positions, far below a missing slice
_ONE_SERIES = "Give one file of the wanted series instead of the folder."
_EXPORT = "Export the series again from the scanner or the archive, or convert it to NRRD with 3D Slicer."


def is_dicom_file(path: Path) -> bool:
    """True when the file has DICOM's magic word after its preamble."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


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
    with parsing(lambda error: damaged(folder.name, "DICOM", f"a value makes no sense ({type(error).__name__})")):
        slices = _one_series(path, reading)
        name = f"{folder.name}/{_title(slices[0])}"
        _refuse_other_images(name, slices, modality)
        slices, matrix = _ordered(name, slices)
        return Volume(_stack(name, slices, reading), matrix, modality)


def dicom_files(path: Path) -> list[Path]:
    """The files that :func:`read_dicom` makes the volume of, in its order.

    Raises:
        InputError: as :func:`read_dicom`, but for what only the pixels tell.
    """
    with parsing(lambda error: damaged(path.name, "DICOM", f"a value makes no sense ({type(error).__name__})")):
        slices = _one_series(path, Reading(path))
        _refuse_other_images(path.name, slices, None)
        return [Path(header.filename) for header in _ordered(path.name, slices)[0]]


def _one_series(path: Path, reading: Reading) -> list[Any]:
    """Headers of the images of the one series that is meant."""
    folder = path if path.is_dir() else path.parent
    series = _group((file for file in sorted(folder.iterdir()) if file.is_file()), reading)
    if path.is_dir() and not series:
        series = _group((file for file in sorted(folder.rglob("*")) if file.is_file()), reading)
    if not path.is_dir():
        uid = str(_header(path, reading).get("SeriesInstanceUID"))
        if uid not in series:
            raise InputError(f"'{path.name}' is a DICOM file without an image.", "Choose a file of a CT series.")
        return series[uid]
    if not series:
        raise InputError(f"The folder '{path.name}' holds no DICOM images.", "Choose the folder that holds the series.")
    if len(series) > 1:
        found = "; ".join(f"'{_title(s[0])}' ({s[0].get('Modality', '?')}, images: {len(s)})" for s in series.values())
        raise InputError(f"The folder '{path.name}' holds {len(series)} series: {found}.", _ONE_SERIES)
    return next(iter(series.values()))


def _group(files: Iterable[Path], reading: Reading) -> dict[str, list[Any]]:
    """Headers of all images, by SeriesInstanceUID; other files are passed over, damaged images are not.

    Raises:
        InputError: a DICOM file that cannot be read: without it a series might end early and look whole.
    """
    series: dict[str, list[Any]] = defaultdict(list)
    for file in files:
        if not is_dicom_file(file):
            continue
        with parsing(_damaged_file(file)):
            header = _header(file, reading)
        if "Rows" in header and "Columns" in header:
            series[str(header.get("SeriesInstanceUID"))].append(header)
    return dict(series)


def _header(file: Path, reading: Reading) -> Any:
    """The tags that grouping and order need."""
    with reading.look(file) as plain:
        return _dataset(file, plain, stop_before_pixels=True, specific_tags=_HEADER_TAGS)


def _dataset(file: Path, plain: BinaryIO, **options: Any) -> Any:
    """What pydicom makes of a file, with no more memory than the file can need."""
    import pydicom

    dataset = pydicom.dcmread(_ImageFile(file, plain), **options)
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
    for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        if any(not s.get(tag) for s in slices):
            raise InputError(f"'{name}': some images have no {tag}, so their place in the body is unknown.", _EXPORT)
    sizes = {(int(s.Columns), int(s.Rows), *np.round([float(x) for x in s.PixelSpacing], 4)) for s in slices}
    directions = {tuple(np.round([float(x) for x in s.ImageOrientationPatient], 3) + 0.0) for s in slices}
    if len(sizes) > 1 or len(directions) > 1:
        raise InputError(
            f"'{name}': its {len(slices)} images have {len(sizes)} different sizes and {len(directions)} different "
            "orientations, so they are not one volume.",
            "Remove localizer or reformatted images from the folder.",
        )


def _ordered(name: str, slices: list[Any]) -> tuple[list[Any], np.ndarray]:
    """Slices along the normal, and ijk_to_ras; the step is taken from the positions, so a tilted gantry stays visible.

    Raises:
        InputError: duplicate, missing or unevenly spaced slices.
    """
    first = slices[0]
    row, column = np.reshape([float(x) for x in first.ImageOrientationPatient], (2, 3))
    normal = np.cross(row, column)
    slices = sorted(slices, key=lambda s: float(np.dot(normal, [float(x) for x in s.ImagePositionPatient])))
    positions = np.array([[float(x) for x in s.ImagePositionPatient] for s in slices])
    if len(slices) > 1:
        step = _even_step(name, positions, positions @ normal)
    else:
        step = normal * float(first.get("SliceThickness") or 1.0)
    between_rows, between_columns = (float(x) for x in first.PixelSpacing)
    axes = np.stack([row * between_columns, column * between_rows, step], axis=1)
    return slices, LPS_TO_RAS @ affine(axes, positions[0])


def _even_step(name: str, positions: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Vector in mm from one slice to the next; positions (n, 3) sorted by their height along the normal."""
    gaps = np.diff(heights)
    doubled = int(np.count_nonzero(gaps < 1e-3))
    if doubled:
        raise InputError(
            f"'{name}': {doubled} of {len(heights)} images lie at the same place as another one (copies, or several "
            "phases or reconstructions in one series).",
            "Keep one image for each position.",
        )
    usual = float(np.median(gaps))
    worst = int(np.argmax(np.abs(gaps - usual)))
    if abs(gaps[worst] - usual) > _STEP_TOLERANCE * usual:
        missing = round(gaps[worst] / usual) - 1
        detail = f"{missing} missing there" if missing >= 1 else "unevenly spaced"
        raise InputError(
            f"'{name}': slices are {gaps[worst]:.4g} mm apart at {heights[worst]:.4g} mm along the scan, elsewhere "
            f"{usual:.4g} mm ({detail}).",
            _EXPORT,
        )
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    straight = positions[0] + np.arange(len(positions))[:, None] * step
    if np.linalg.norm(positions - straight, axis=1).max() > max(2 * _STEP_TOLERANCE * usual, 0.05):
        raise InputError(f"'{name}': the slices do not lie on a straight line.", _EXPORT)
    return step


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
    return lambda error: damaged(file.name, "DICOM", f"its header cannot be read ({type(error).__name__})")


def _hounsfield(name: str, file: Path, shape: tuple[int, ...], reading: Reading) -> np.ndarray:
    """One slice (j, i), rescaled."""
    with parsing(lambda error: truncated(f"{name}/{file.name}", "its pixels cannot be decoded")):
        with reading.open(file) as plain:
            dataset = _dataset(file, plain)
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
