"""Tables, points and texts as structured reports: TID 1500 with a group for each row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...core.extras import needed
from ...imaging.modality import CT, MR
from .segments import ABNORMAL, Segment
from .shell import MAKER, MODEL_NAME, RESEARCH, SCHEME, Purpose, finish, library_arguments
from .study import Study, new_uid

UNITS = {
    "mm3": ("mm3", "UCUM", "cubic millimeter"),
    "mm2": ("mm2", "UCUM", "square millimeter"),
    "ml": ("ml", "UCUM", "milliliter"),
    "mm": ("mm", "UCUM", "millimeter"),
    "hu": ("[hnsf'U]", "UCUM", "Hounsfield unit"),
    "l": ("l", "UCUM", "liter"),
    "cm2": ("cm2", "UCUM", "square centimeter"),
    "cm": ("cm", "UCUM", "centimeter"),
    "percent": ("%", "UCUM", "Percent"),
    "%": ("%", "UCUM", "Percent"),
}
"""Last word of a column's name, or what a column of units says -> unit; every other one has none."""
_PROCEDURES = {
    CT: ("77477000", "SCT", "Computed tomography"),
    MR: ("113091000", "SCT", "Magnetic resonance imaging"),
}
_RADIOGRAPHY = ("168537006", "SCT", "Plain radiography")
_NO_UNIT = ("1", "UCUM", "no units")
_PUBLIC = {"volume": ("118565006", "SCT", "Volume"), "diameter": ("81827009", "SCT", "Diameter")}
PLACE = ("r_mm", "a_mm", "s_mm")
NUMBER = "number"
_TEXT = 1000


def measurement_report(
    rows: Sequence[dict[str, Any]],
    study: Study,
    purpose: Purpose,
    are_findings: bool,
    regions: Any = None,
    segments: Sequence[Segment] = (),
) -> Any:
    """A row as a group of measurements, which refers to its segment, else to its place.

    Args:
        rows: not empty; numbers become measurements, words stay words.
        are_findings: each is something unusual at a place; else it is a figure.
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
        _group(sr, row, study, are_findings, regions, segments[number] if segments else None)
        for number, row in enumerate(rows)
    ]
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=sr.CodedConcept(*_procedure(study)),
        imaging_measurements=groups,
        title=sr.CodedConcept("126000", "DCM", "Imaging Measurement Report"),
    )
    evidence = [*study.evidence, *([regions] if regions is not None else [])]
    return _document(sr.Comprehensive3DSR, content[0], evidence, study, purpose)


def _procedure(study: Study) -> tuple[str, str, str]:
    """By the images that the report is about."""
    if study.pictures and not study.images:
        return _RADIOGRAPHY
    return _PROCEDURES.get(str(study.images[0].Modality) if study.images else CT, _PROCEDURES[CT])


def _document(kind: Any, content: Any, evidence: list[Any], study: Study, purpose: Purpose) -> Any:
    made = kind(
        evidence=evidence, content=content, is_complete=True, is_final=False, **library_arguments(study, purpose)
    )
    made.CompletionFlagDescription = RESEARCH
    return finish(made, study, purpose)


def _group(sr: Any, row: dict[str, Any], study: Study, is_finding: bool, regions: Any, segment: Segment | None) -> Any:
    """The group of one row."""
    shared = {
        "finding_type": sr.CodedConcept(*ABNORMAL) if is_finding else None,
        "measurements": [_measurement(sr, name, value, unit_of(name, row)) for name, value in _figures(row)] or None,
    }
    called = f"{'Finding' if is_finding else 'Row'} {row.get(NUMBER, '')}".strip()
    tracking = sr.TrackingIdentifier(uid=segment.tracking if segment else new_uid(), identifier=called)
    if segment is not None:
        group = sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            tracking, referenced_segment=_reference(sr, regions, segment, study), **shared
        )
    elif all(_is_number(row.get(name)) for name in PLACE):
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
    return [(name, float(row[name])) for name in row if name not in (NUMBER, *PLACE) and _is_number(row[name])]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and bool(np.isfinite(value))


def _measurement(sr: Any, name: str, value: float, unit: tuple[str, str, str]) -> Any:
    return sr.Measurement(name=_concept(sr, name), value=value, unit=sr.CodedConcept(*unit))


def unit_of(name: str, row: dict[str, Any]) -> tuple[str, str, str]:
    """By the end of a column's name; of a column ``value`` what the column ``unit`` says."""
    said = str(row.get("unit") or "")
    if name != "value" or not said:
        return UNITS.get(name.rpartition("_")[2], _NO_UNIT)
    words = re.sub(r"[^A-Za-z0-9/%]+", "_", said)[:14]
    return UNITS.get(said.lower(), (f"{{{words}}}", "UCUM", said[:64]))


def _concept(sr: Any, name: str) -> Any:
    """Coded concept of a column, a public code where there is one."""
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
    return _document(sr.EnhancedSR, root, study.evidence[:1], study, purpose)
