"""Derived CT and MR series: one image a plane, 16 bits, exact to the rounding of a HU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ...imaging.modality import CT
from ...imaging.volume import Volume
from .planes import Planes, planes_of
from .shell import Purpose, code, shell
from .study import Study, new_uid

CT_IMAGE, MR_IMAGE = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
_LOWEST, _HIGHEST = -(1 << 15), (1 << 15) - 1
_NEAR_MM = 1e-3
_SERIES = ("BodyPartExamined", "PatientPosition", "ProtocolName", "Laterality")
"""Taken over from the source."""
_CT = ("KVP", "ConvolutionKernel", "DataCollectionDiameter", "ReconstructionDiameter", "GantryDetectorTilt")
_PLANE = ("AcquisitionDate", "AcquisitionTime", "AcquisitionNumber", "ContentDate", "ContentTime")
_MR = {
    "ScanningSequence": "RM", "SequenceVariant": "NONE", "ScanOptions": "", "MRAcquisitionType": "3D",
    "RepetitionTime": "", "EchoTime": "", "EchoTrainLength": "",
}  # fmt: skip
"""Attributes by which an MR of no scanner describes its sequence: research mode."""
WINDOWS = {CT: (40, 400), "difference": (0, 200)}
"""Center and width in HU."""


def image_series(
    volume: Volume, study: Study, purpose: Purpose, derivation: tuple[str, str, str] | None, window: str = CT
) -> Iterator[Any]:
    """The images of a volume.

    Args:
        volume: CT in HU or MR.
        derivation: code of what was done; None for a scan that only changed its format.
        window: which one to show it with at first.
    """
    planes, is_ct = planes_of(volume), volume.modality == CT
    stored, slope, intercept = _stored(planes.voxels, is_ct)
    series, number = new_uid(), study.next_number()
    for k, (source, exact) in enumerate(_references(planes, study)):
        made = shell(study, purpose, CT_IMAGE if is_ct else MR_IMAGE, volume.modality, series, number, k + 1)
        _describe(made, source, exact, is_ct)
        _derive(made, source, purpose, derivation)
        _place(made, planes, k, source, exact)
        put_pixels(made, stored[k])
        made.RescaleSlope, made.RescaleIntercept = decimals((slope, intercept))
        made.RescaleType = "HU" if is_ct else "US"
        if is_ct:
            made.WindowCenter, made.WindowWidth = WINDOWS[window]
        yield made


def _stored(voxels: np.ndarray, is_ct: bool) -> tuple[np.ndarray, float, float]:
    """16-bit numbers, slope and intercept: whole HU, and the finest slope for signal that is no whole numbers."""
    low, high = float(voxels.min()), float(voxels.max())
    rounded = np.round(voxels) if voxels.dtype.kind == "f" else voxels
    if not is_ct and not np.array_equal(rounded, voxels):
        slope = _as_written(max(high - low, 1e-6) / 65535)
        return np.round((voxels.astype(np.float64) - low) / slope).clip(0, 65535).astype(np.uint16), slope, low
    low, high = round(low), round(high)
    if low >= _LOWEST and high <= _HIGHEST:
        return rounded.astype(np.int16), 1, 0
    slope = max(1, -(-(high - low) // 65535))
    return np.round((rounded.astype(np.float64) - low) / slope).astype(np.uint16), slope, low


def _as_written(number: float) -> float:
    """As a decimal string holds it, in 16 characters."""
    from pydicom.valuerep import format_number_as_ds

    return float(format_number_as_ds(float(number)))


def _references(planes: Planes, study: Study) -> list[tuple[Any, bool]]:
    """For each plane the nearest source image, and whether it is that very plane; None without sources."""
    if not study.images:
        return [(None, False)] * len(planes.voxels)
    where = np.array([[float(x) for x in image.ImagePositionPatient] for image in study.images])
    first = study.images[0]
    same = (int(first.Rows), int(first.Columns)) == planes.voxels.shape[1:] and np.allclose(
        [float(x) for x in first.ImageOrientationPatient], planes.orientation, atol=1e-4
    )
    normal = planes.matrix[:3, 2] / np.linalg.norm(planes.matrix[:3, 2])
    found = []
    for position in planes.position:
        offsets = where - position
        if same and (distance := np.linalg.norm(offsets, axis=1)).min() < _NEAR_MM:
            found.append((study.images[int(distance.argmin())], True))
        else:
            found.append((study.images[int(np.abs(offsets @ normal).argmin())], False))
    return found


def _describe(made: Any, source: Any, exact: bool, is_ct: bool) -> None:
    """Add what is known of the acquisition, and all that a kind of object must say, even if that is nothing."""
    for keyword in (*_SERIES, *(_CT if is_ct else ()), *(_PLANE if exact else ())):
        if source is not None and source.get(keyword) not in (None, ""):
            made[keyword] = source[keyword]
    for keyword in ("AcquisitionNumber", "PatientPosition", *(("KVP",) if is_ct else ())):
        if keyword not in made:
            setattr(made, keyword, "")
    if not is_ct:
        for keyword, value in _MR.items():
            setattr(made, keyword, value)


def _derive(made: Any, source: Any, purpose: Purpose, derivation: tuple[str, str, str] | None) -> None:
    """Derived, from what and how."""
    from pydicom.dataset import Dataset

    made.ImageType = ["DERIVED", "SECONDARY", *(["AXIAL"] if made.SOPClassUID == CT_IMAGE else ["OTHER"])]
    made.DerivationDescription = purpose.derivation
    if derivation is not None:
        made.DerivationCodeSequence = [code(*derivation)]
    if source is not None:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
        item.PurposeOfReferenceCodeSequence = [
            code("121322", "DCM", "Source image for image processing operation"),
        ]
        made.SourceImageSequence = [item]
    lossy = "" if source is None else str(source.get("LossyImageCompression", ""))
    if lossy == "01":  # once lossy, always lossy
        for keyword in ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if keyword in source:
                made[keyword] = source[keyword]


def _place(made: Any, planes: Planes, k: int, source: Any, exact: bool) -> None:
    """Position, directions and distances."""
    between_columns, between_rows, step = planes.spacing
    made.ImagePositionPatient = decimals(planes.position[k])
    made.ImageOrientationPatient = decimals(planes.orientation)
    made.PixelSpacing = decimals((between_rows, between_columns))
    known = exact and source.get("SliceThickness")
    made.SliceThickness = source.SliceThickness if known else decimals([step])[0]


def decimals(numbers: Any) -> list[Any]:
    """Decimal strings with all the digits that 16 characters hold."""
    from pydicom.valuerep import DSfloat

    return [DSfloat(float(number) + 0.0, auto_format=True) for number in numbers]


def put_pixels(made: Any, pixels: np.ndarray) -> None:
    """One gray image (j, i) of 16 bits."""
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.Rows, made.Columns = pixels.shape
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 16, 15
    made.PixelRepresentation = 1 if pixels.dtype == np.int16 else 0
    made.PixelData = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<")).tobytes()
