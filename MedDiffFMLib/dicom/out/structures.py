"""Masks and label maps as RT structure sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...imaging.volume import Volume
from .contours import contours
from .images import decimals
from .planes import planes_of
from .segments import Segment
from .shell import Purpose, shell
from .study import Study, new_uid

STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"
_NEAR_MM = 1e-3


def structure_set(labels: Volume, segments: Sequence[Segment], study: Study, purpose: Purpose) -> Any:
    """Closed contours of each structure on the planes of the volume."""
    from pydicom.dataset import Dataset
    from pydicom.uid import ImplicitVRLittleEndian

    made = shell(study, purpose, STRUCTURE_SET, "RTSTRUCT", new_uid(), study.next_number(), 1)
    made.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian  # explicit ones have no room for long contours
    made.StructureSetLabel, made.StructureSetName = purpose.title[:16], purpose.title[:64]
    made.StructureSetDescription = purpose.derivation
    made.StructureSetDate, made.StructureSetTime = f"{study.now:%Y%m%d}", f"{study.now:%H%M%S}"
    made.ReferencedFrameOfReferenceSequence = [_frame(study)]
    made.StructureSetROISequence, made.ROIContourSequence, made.RTROIObservationsSequence = [], [], []
    planes = planes_of(labels)
    images = _images_at(planes.position, study)
    for number, segment in enumerate(segments, 1):
        roi = Dataset()
        roi.ROINumber, roi.ROIName = number, segment.name[:64]
        roi.ReferencedFrameOfReferenceUID, roi.ROIGenerationAlgorithm = study.frame, "AUTOMATIC"
        made.StructureSetROISequence.append(roi)
        drawn = Dataset()
        drawn.ReferencedROINumber, drawn.ROIDisplayColor = number, list(segment.color)
        drawn.ContourSequence = _drawn(planes.voxels == segment.value, planes.matrix, images)
        made.ROIContourSequence.append(drawn)
        observed = Dataset()
        observed.ObservationNumber, observed.ReferencedROINumber = number, number
        observed.RTROIInterpretedType, observed.ROIInterpreter = "", ""
        made.RTROIObservationsSequence.append(observed)
    made.OperatorsName = ""
    made.ApprovalStatus = "UNAPPROVED"
    return made


def _drawn(mask: np.ndarray, matrix: np.ndarray, images: list[Any]) -> list[Any]:
    """The contours of a mask (k, j, i) in LPS mm."""
    from pydicom.dataset import Dataset

    items = []
    for k in np.flatnonzero(mask.any(axis=(1, 2))):
        for curve in contours(mask[k]):
            points = np.column_stack([curve, np.full(len(curve), k), np.ones(len(curve))]) @ matrix.T
            item = Dataset()
            if images[k] is not None:
                item.ContourImageSequence = [_reference(images[k])]
            item.ContourGeometricType, item.NumberOfContourPoints = "CLOSED_PLANAR", len(curve)
            item.ContourData = decimals(points[:, :3].round(6).ravel())
            items.append(item)
    return items


def _images_at(positions: np.ndarray, study: Study) -> list[Any]:
    """The image at each plane, None where there is none."""
    places = np.array([[float(x) for x in image.ImagePositionPatient] for image in study.images])
    found = []
    for position in positions:
        distance = np.linalg.norm(places - position, axis=1)
        found.append(study.images[int(distance.argmin())] if distance.min() < _NEAR_MM else None)
    return found


def _reference(image: Any) -> Any:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return item


def _frame(study: Study) -> Any:
    """Frame of reference, study, series and images that were drawn on."""
    from pydicom.dataset import Dataset

    series = Dataset()
    series.SeriesInstanceUID = study.images[0].SeriesInstanceUID
    series.ContourImageSequence = [_reference(image) for image in study.images]
    of = Dataset()
    of.ReferencedSOPClassUID, of.ReferencedSOPInstanceUID = _STUDY_CLASS, study.common.StudyInstanceUID
    of.RTReferencedSeriesSequence = [series]
    frame = Dataset()
    frame.FrameOfReferenceUID = study.frame
    frame.RTReferencedStudySequence = [of]
    return frame
