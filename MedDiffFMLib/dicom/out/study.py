"""Study that the objects of an export belong to: that of the scan where it came as DICOM, else a new one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import InputError
from ...imaging.formats.common import damaged, parsing
from ...imaging.formats.dicom import dataset_of
from ...imaging.volume import Volume
from ..series import patient_of
from .planes import planes_of

UNICODE = "ISO_IR 192"
"""Everything is written in UTF-8, which holds the names of every source."""
PATIENT = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "OtherPatientIDs",
    "PatientSpeciesDescription", "PatientSpeciesCodeSequence", "PatientBreedDescription", "PatientBreedCodeSequence",
    "BreedRegistrationSequence", "ResponsiblePerson", "ResponsibleOrganization",
    "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
    "ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName", "ClinicalTrialSiteID",
    "ClinicalTrialSiteName", "ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID",
)  # fmt: skip
STUDY = (
    "StudyInstanceUID", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber",
    "IssuerOfAccessionNumberSequence", "StudyDescription", "PatientAge", "PatientSize", "PatientWeight",
    "ClinicalTrialTimePointID", "LongitudinalTemporalInformationModified",
)  # fmt: skip
FRAME = ("FrameOfReferenceUID", "PositionReferenceIndicator")
_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "ReferringPhysicianName",
    "StudyID", "AccessionNumber", "PositionReferenceIndicator",
)  # fmt: skip
"""Must be there, and may say nothing."""
_SAME_PLACE_MM = 0.1
_NEEDED = ("SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "ImagePositionPatient", "ImageOrientationPatient")


@dataclass
class Study:
    """Study and headers that all objects of an export share.

    Attributes:
        common: patient, study and frame of reference.
        images: headers of the series that they refer to, one a plane.
        pictures: headers of radiographs, which lie in no frame; reports refer to them where there are no images.
        is_new: there was no such study before.
        now: time of the export.
        number: of the last series; each new one takes the next.
        notes: what had to be assumed, a sentence each.
    """

    common: Any
    images: list[Any] = field(default_factory=list)
    is_new: bool = True
    now: datetime = field(default_factory=datetime.now)
    number: int = 0
    notes: list[str] = field(default_factory=list)
    pictures: list[Any] = field(default_factory=list)

    @property
    def evidence(self) -> list[Any]:
        """What a report rests on."""
        return self.images or self.pictures

    def next_number(self) -> int:
        """Number of a new series."""
        self.number += 1
        return self.number

    @property
    def frame(self) -> str:
        """UID of the frame of reference."""
        return str(self.common.FrameOfReferenceUID)


def new_uid() -> str:
    """A UID that no other object has, from a random UUID."""
    from pydicom.uid import generate_uid

    return str(generate_uid(prefix=None))


def new_study(name: str, synthetic: bool) -> Study:
    """A study for a scan that came without one.

    Args:
        name: what the patient is called, as nothing else is known.
        synthetic: there is no patient.
    """
    from pydicom.dataset import Dataset

    now = datetime.now()
    called = re.sub(r"[\\^=\x00-\x1f]", "_", name)[:48] or "unnamed"
    common = Dataset()
    common.SpecificCharacterSet = UNICODE
    for keyword in _EMPTY:
        setattr(common, keyword, "")
    common.PatientName = f"SYNTHETIC^{called}" if synthetic else f"{called}^"
    common.PatientID = called
    common.StudyInstanceUID, common.FrameOfReferenceUID = new_uid(), new_uid()
    common.StudyDate, common.StudyTime = f"{now:%Y%m%d}", f"{now:%H%M%S}"
    common.StudyID = "1"
    common.StudyDescription = "MedDiff-FM, research use only"
    return Study(common, now=now)


def study_of(files: Sequence[Path]) -> Study:
    """The study of the images of one series.

    Raises:
        InputError: damaged, of several patients or studies, or without what a reference needs.
    """
    name = files[0].parent.name
    images = [decoded(file) for file in files]
    images = [image for image in images if "Rows" in image]
    for keyword in _NEEDED:
        if any(not image.get(keyword) for image in images) or not images:
            raise InputError(
                f"'{name}': some images have no {keyword}, so no DICOM object can refer to them.",
                "Export the series again from the archive, or leave --dicom out.",
            )
    _refuse_mixture(name, images)
    images = _in_order(images)
    study = Study(_common(images[0]), images, is_new=False)
    number = images[0].get("SeriesNumber")
    study.number = int(number) * 100 if number is not None and 0 < int(number) < 10_000_000 else 900
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID"):
        if not study.common.get(keyword):
            study.notes.append(f"The images have no {keyword}: the DICOM objects got a new one.")
            setattr(study.common, keyword, new_uid())
    if not study.common.PatientID:
        study.notes.append("The images name no patient ID: the DICOM objects have none either.")
    for image in images:
        _complete(image, study.common)
    return study


def lies_on(volume: Volume, images: Sequence[Any]) -> bool:
    """Whether the planes of a volume are those of images, so that they have one frame of reference.

    Args:
        images: datasets with positions; a volume may have been moved since it was loaded from them.
    """
    try:
        places = np.array([[float(x) for x in image.ImagePositionPatient] for image in images])
    except (AttributeError, TypeError, ValueError):
        return False
    planes = planes_of(volume).position
    ends = np.linalg.norm(places[None] - planes[[0, -1]][:, None], axis=2).min(axis=1)
    return len(places) == len(planes) and bool(ends.max() < _SAME_PLACE_MM)


def decoded(file: Path, pixels: bool = False) -> Any:
    """A dataset in Unicode, without private tags, and without pixels unless asked for.

    Raises:
        InputError: damaged.
    """
    with parsing(lambda error: damaged(file.name, "DICOM", "its header cannot be read")):
        image = dataset_of(file, stop_before_pixels=not pixels)
        image.remove_private_tags()
        image.decode()
        for element in list(image):
            if element.VR == "PN" and not isinstance(element.value, (list, tuple)):
                element.value = str(element.value)
        image.SpecificCharacterSet = UNICODE
        return image


def _refuse_mixture(name: str, images: Sequence[Any]) -> None:
    """Objects of one patient and study are made out of images of one patient and study."""
    kinds = {
        "patients": {patient_of(image) for image in images} - {""},
        "studies": {str(image.get("StudyInstanceUID", "")) for image in images},
        "frames of reference": {str(image.get("FrameOfReferenceUID", "")) for image in images},
    }
    for kind, values in kinds.items():
        if len(values) > 1:
            raise InputError(
                f"'{name}' mixes images of several {kind}: {' and '.join(sorted(map(repr, values))[:3])}.",
                "Export the series again; nothing is made out of a mixture.",
            )


def _in_order(images: list[Any]) -> list[Any]:
    """Along the normal of the images, as the reader of volumes has them."""
    row, column = np.reshape([float(x) for x in images[0].ImageOrientationPatient], (2, 3))
    normal = np.cross(row, column)
    return sorted(images, key=lambda image: float(normal @ [float(x) for x in image.ImagePositionPatient]))


def _common(image: Any) -> Any:
    """Patient, study and frame of reference of an image."""
    from pydicom.dataset import Dataset

    common = Dataset()
    common.SpecificCharacterSet = UNICODE
    for keyword in (*PATIENT, *STUDY, *FRAME):
        if keyword in image:
            common[keyword] = image[keyword]
    for keyword in _EMPTY:
        if keyword not in common:
            setattr(common, keyword, "")
    return common


def _complete(image: Any, common: Any) -> None:
    """Fill what an image lacks of what its study has: libraries ask for it."""
    for element in common:
        if element.tag not in image or not image[element.tag].value:
            image[element.tag] = element
