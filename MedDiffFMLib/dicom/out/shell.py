"""Parts that every object has: patient and study, series, maker, marks of what it is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ... import __version__
from ...core.json_files import json_ready
from ...imaging.formats.dicom import SYNTHETIC_DATA
from .study import FRAME, Study, new_uid

MAKER = "MedDiff-FM contributors"
MODEL_NAME = "MedDiff-FM"
SERIAL = "none"
SCHEME = "99MEDDIFFFM"
"""Designator of the codes that DICOM has no public ones for."""
RESEARCH = "Research use only."
_LONG_STRING, _SHORT_TEXT = 64, 1024


@dataclass(frozen=True)
class Purpose:
    """Origin of an object, as the object itself states it.

    Attributes:
        title: of the output, for a radiologist.
        task: what was done, a sentence.
        model: name and start of the SHA-256 of the weights.
        parameters: of the task.
        invented: shows no patient, or tissue that the patient does not have.
        seed: start of the random numbers.
    """

    title: str
    task: str
    model: str
    parameters: dict[str, Any]
    invented: bool = False
    seed: int = 0

    @property
    def series_description(self) -> str:
        """At most 64 characters; "synthetic" comes first, where a list of series cannot cut it off."""
        mark = "SYNTHETIC " if self.invented else ""
        return f"{mark}{self.title} ({MODEL_NAME}, research)"[:_LONG_STRING]

    @property
    def derivation(self) -> str:
        """Derivation description, at most 1024 characters."""
        mark = "Synthetic, in whole or in part: not as scanned. " if self.invented else ""
        values = json.dumps(json_ready(self.parameters), sort_keys=True)
        text = f"{mark}{RESEARCH} {self.task} {MODEL_NAME} {__version__}, {self.model}, seed {self.seed}, {values}"
        return text.replace("\\", "/")[:_SHORT_TEXT]


def code(value: str, scheme: str, meaning: str) -> Any:
    """An item of a code sequence."""
    from pydicom.dataset import Dataset

    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def shell(
    study: Study, purpose: Purpose, sop_class: str, modality: str, series: str, number: int, instance: int
) -> Any:
    """A dataset with everything but its content.

    Args:
        series: UID of its series.
        number: of its series.
        instance: number within the series, from 1.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    made = Dataset()
    made.update(study.common)
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = sop_class, new_uid()
    made.InstanceCreationDate = made.SeriesDate = f"{study.now:%Y%m%d}"
    made.InstanceCreationTime = made.SeriesTime = f"{study.now:%H%M%S}"
    made.Modality, made.SeriesInstanceUID, made.SeriesNumber = modality, series, number
    made.SeriesDescription, made.InstanceNumber = purpose.series_description, instance
    made.Manufacturer, made.ManufacturerModelName = MAKER, MODEL_NAME
    made.SoftwareVersions, made.DeviceSerialNumber = __version__, SERIAL
    made.ContributingEquipmentSequence = equipment(study, purpose)
    mark(made, purpose)
    _say_no_side(made)
    return made


def _say_no_side(made: Any) -> None:
    """Leave left or right open outright, as DICOM asks where no body part is named."""
    if made.Modality not in ("SEG", "SR", "RTSTRUCT") and "BodyPartExamined" not in made:
        made.Laterality = ""


def mark(made: Any, purpose: Purpose) -> None:
    """Say outright what is synthetic (Synthetic Data, 2023)."""
    if purpose.invented:
        made.add_new(SYNTHETIC_DATA, "CS", "YES")


def equipment(study: Study, purpose: Purpose) -> list[Any]:
    """The scanner, where it is known, and this software."""
    from pydicom.dataset import Dataset

    items = []
    source = study.images[0] if study.images and not study.is_new else None
    if source is not None and source.get("Manufacturer"):
        scanner = Dataset()
        scanner.PurposeOfReferenceCodeSequence = [code("109101", "DCM", "Acquisition Equipment")]
        for keyword in ("Manufacturer", "InstitutionName", "StationName", "ManufacturerModelName", "SoftwareVersions"):
            if source.get(keyword):
                setattr(scanner, keyword, source.get(keyword))
        items.append(scanner)
    software = Dataset()
    software.PurposeOfReferenceCodeSequence = [code("109102", "DCM", "Processing Equipment")]
    software.Manufacturer, software.ManufacturerModelName = MAKER, MODEL_NAME
    software.SoftwareVersions, software.DeviceSerialNumber = __version__, SERIAL
    software.ContributionDateTime = f"{study.now:%Y%m%d%H%M%S}"
    software.ContributionDescription = purpose.derivation
    return [*items, software]


def library_arguments(study: Study, purpose: Purpose) -> dict[str, Any]:
    """Arguments of highdicom's objects, which take them instead of a shell."""
    return {
        "series_instance_uid": new_uid(),
        "series_number": study.next_number(),
        "sop_instance_uid": new_uid(),
        "instance_number": 1,
        "manufacturer": MAKER,
        "series_description": purpose.series_description,
        "specific_character_set": "ISO_IR 192",
    }


def finish(made: Any, study: Study, purpose: Purpose) -> Any:
    """Add what highdicom's objects lack."""
    for element in study.common:
        if element.tag not in made and (made.Modality != "SR" or element.keyword not in FRAME):
            made[element.tag] = element
    _say_no_side(made)
    made.ContributingEquipmentSequence = equipment(study, purpose)
    mark(made, purpose)
    return made
