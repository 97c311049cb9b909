"""Masks, label maps and regions of findings as DICOM segmentations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import __version__
from ...core.extras import needed
from ...imaging.volume import Volume
from .planes import planes_of
from .shell import MAKER, MODEL_NAME, SERIAL, Purpose, finish, library_arguments
from .study import Study, new_uid

TISSUE = ("85756007", "SCT", "Tissue")
ABNORMAL = ("49755003", "SCT", "Morphologically Abnormal Structure")
FINDING = (ABNORMAL, ABNORMAL)
"""Category and type: what is unusual for the model need not be a lesion."""


@dataclass(frozen=True)
class Segment:
    """One structure.

    Attributes:
        value: in the label map.
        category, kind: codes.
        tracking: UID by which reports follow it.
    """

    value: int
    name: str
    color: tuple[int, int, int] = (220, 60, 60)
    category: tuple[str, str, str] = TISSUE
    kind: tuple[str, str, str] = TISSUE
    tracking: str = ""


def segments_of(values: Sequence[int], name: str, labels: Sequence[dict[str, Any]]) -> list[Segment]:
    """The structures of a label map.

    Args:
        values: that occur in it, without 0.
        name: of what has no name of its own.
        labels: as in the facts of a result: value, name, color, terminology.
    """
    named = {int(row["value"]): row for row in labels if isinstance(row, dict) and "value" in row}
    found = []
    for value in values:
        row = named.get(value, {})
        category, kind = _codes(str(row.get("terminology") or ""))
        called = str(row.get("name") or (name if len(values) == 1 else f"{name} {value}"))
        found.append(Segment(value, called, tuple(row.get("color") or (220, 60, 60)), category, kind, new_uid()))
    return found


def _codes(terminology: str) -> tuple[tuple[str, str, str], tuple[str, str, str]]:
    """Category and type of Slicer's serialized terminology entry; tissue where there is none."""
    parts = [tuple(part.split("^")) for part in terminology.split("~")]
    codes = [(value, scheme, meaning) for scheme, value, meaning in (p for p in parts if len(p) == 3) if value]
    return (codes[0], codes[1]) if len(codes) >= 2 else (TISSUE, TISSUE)


def segmentation(labels: Volume, segments: Sequence[Segment], study: Study, purpose: Purpose) -> Any:
    """Binary segments; planes without any are left out.

    Args:
        labels: whole numbers (k, j, i), on a grid of its own or that of the images.
        segments: not empty; each value occurs in ``labels``.
    """
    highdicom = needed("highdicom", "--dicom")
    numbers = np.zeros(int(labels.voxels.max()) + 1, np.uint16)
    numbers[[segment.value for segment in segments]] = np.arange(1, len(segments) + 1)
    renumbered = planes_of(labels.with_voxels(numbers[labels.voxels.astype(np.intp)]))
    made = highdicom.seg.Segmentation(
        source_images=study.images,
        pixel_array=renumbered.as_library_volume(study.frame),
        segmentation_type="BINARY",
        segment_descriptions=[_description(number, segment) for number, segment in enumerate(segments, 1)],
        manufacturer_model_name=MODEL_NAME,
        software_versions=__version__,
        device_serial_number=SERIAL,
        content_description=purpose.title[:64],
        content_label="SEGMENTATION",
        **library_arguments(study, purpose),
    )
    return finish(made, study, purpose)


def _description(number: int, segment: Segment) -> Any:
    highdicom = needed("highdicom", "--dicom")
    concept = highdicom.sr.CodedConcept
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=MODEL_NAME, family=concept("123110", "DCM", "Artificial Intelligence"), version=__version__, source=MAKER
    )
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment.name[:64],
        segmented_property_category=concept(*segment.category),
        segmented_property_type=concept(*segment.kind),
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
        tracking_uid=segment.tracking or new_uid(),
        tracking_id=segment.name[:64],
        display_color=highdicom.color.CIELabColor.from_rgb(*segment.color),
    )
