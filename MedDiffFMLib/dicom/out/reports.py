"""Tables, points and texts as structured reports: TID 1500 with a group for each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..packages import needed
from .segments import FINDING, Segment
from .shell import MAKER, MODEL_NAME, RESEARCH, SCHEME, Purpose, finish, library_arguments
from .study import Study, new_uid

UNITS = {
    "mm3": ("mm3", "UCUM", "cubic millimeter"),
    "mm2": ("mm2", "UCUM", "square millimeter"),
    "ml": ("ml", "UCUM", "milliliter"),
    "mm": ("mm", "UCUM", "millimeter"),
    "hu": ("[hnsf'U]", "UCUM", "Hounsfield unit"),
    "percent": ("%", "UCUM", "Percent"),
}
"""Last word of a column's name -> its unit; every other one has none."""
_NO_UNIT = ("1", "UCUM", "no units")
_PUBLIC = {"volume": ("118565006", "SCT", "Volume"), "diameter": ("81827009", "SCT", "Diameter")}
PLACE = ("r_mm", "a_mm", "s_mm")
NUMBER = "number"
_TEXT = 1000


def measurement_report(
    rows: Sequence[dict[str, Any]],
    study: Study,
    purpose: Purpose,
    regions: Any = None,
    segments: Sequence[Segment] = (),
) -> Any:
    """A row as a group of measurements, which refers to its segment, else to its place.

    Args:
        rows: not empty; numbers become measurements, words stay words.
        regions: segmentation with a segment for each row, in the same order.
        segments: of it.
    """
    highdicom = needed("highdicom", "--dicom")
    sr = highdicom.sr
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=new_uid(), name=MODEL_NAME, manufacturer_name=MAKER, model_name=MODEL_NAME
    )
    observer = sr.ObserverContext(
        observer_type=sr.CodedConcept("121007", "DCM", "Device"), observer_identifying_attributes=device
    )
    groups = [
        _group(sr, row, study, regions, segments[number] if segments else None) for number, row in enumerate(rows)
    ]
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=sr.CodedConcept("77477000", "SCT", "Computed tomography"),
        imaging_measurements=groups,
        title=sr.CodedConcept("126000", "DCM", "Imaging Measurement Report"),
    )
    evidence = [*study.images, *([regions] if regions is not None else [])]
    return _document(sr.Comprehensive3DSR, content[0], evidence, study, purpose)


def _document(kind: Any, content: Any, evidence: list[Any], study: Study, purpose: Purpose) -> Any:
    made = kind(
        evidence=evidence, content=content, is_complete=True, is_final=False, **library_arguments(study, purpose)
    )
    made.CompletionFlagDescription = RESEARCH
    return finish(made, study, purpose)


def _group(sr: Any, row: dict[str, Any], study: Study, regions: Any, segment: Segment | None) -> Any:
    """The group of one row."""
    named = str(row.get(NUMBER, ""))
    shared = {
        "finding_type": sr.CodedConcept(*FINDING[1]),
        "measurements": [_measurement(sr, name, value) for name, value in _figures(row)] or None,
    }
    tracking = sr.TrackingIdentifier(
        uid=segment.tracking if segment else new_uid(), identifier=f"Finding {named}".strip()
    )
    if segment is not None:
        group = sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            tracking, referenced_segment=_reference(sr, regions, segment, study), **shared
        )
    elif all(name in row for name in PLACE):
        group = sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            tracking, referenced_region=_point(sr, row, study.frame), **shared
        )
    else:
        group = sr.MeasurementsAndQualitativeEvaluations(tracking, **shared)
    for name, value in row.items():
        if isinstance(value, str) and value:
            group[0].ContentSequence.append(
                sr.TextContentItem(_concept(sr, name), value[:_TEXT], relationship_type="CONTAINS")
            )
    return group


def _figures(row: dict[str, Any]) -> list[tuple[str, float]]:
    """Columns with figures but those of the place."""
    figures = [(n, v) for n, v in row.items() if isinstance(v, (int, float)) and not isinstance(v, bool)]
    return [(n, float(v)) for n, v in figures if n not in (NUMBER, *PLACE) and np.isfinite(v)]


def _measurement(sr: Any, name: str, value: float) -> Any:
    unit = UNITS.get(name.rpartition("_")[2], _NO_UNIT)
    return sr.Measurement(name=_concept(sr, name), value=value, unit=sr.CodedConcept(*unit))


def _concept(sr: Any, name: str) -> Any:
    """What a column is, publicly known or not."""
    public = _PUBLIC.get(name.rpartition("_")[0])
    return sr.CodedConcept(*(public or (name[:16], SCHEME, name.replace("_", " ")[:64])))


def _reference(sr: Any, regions: Any, segment: Segment, study: Study) -> Any:
    number = next(int(s.SegmentNumber) for s in regions.SegmentSequence if s.TrackingUID == segment.tracking)
    series = sr.SourceSeriesForSegmentation(str(study.images[0].SeriesInstanceUID))
    return sr.ReferencedSegment(
        sop_class_uid=str(regions.SOPClassUID),
        sop_instance_uid=str(regions.SOPInstanceUID),
        segment_number=number,
        source_series=series,
    )


def _point(sr: Any, row: dict[str, Any], frame: str) -> Any:
    """A place in LPS mm."""
    place = np.array([[-float(row["r_mm"]), -float(row["a_mm"]), float(row["s_mm"])]])
    return sr.ImageRegion3D(graphic_type="POINT", graphic_data=place, frame_of_reference_uid=frame)


def text_report(text: str, study: Study, purpose: Purpose) -> Any:
    """A text with its title."""
    highdicom = needed("highdicom", "--dicom")
    sr = highdicom.sr
    root = sr.ContainerContentItem(sr.CodedConcept("126000", "DCM", "Imaging Measurement Report"))
    item = sr.TextContentItem(sr.CodedConcept("121106", "DCM", "Comment"), text, relationship_type="CONTAINS")
    root.ContentSequence = [item]
    return _document(sr.EnhancedSR, root, study.images[:1], study, purpose)
