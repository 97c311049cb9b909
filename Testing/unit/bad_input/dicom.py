"""DICOM and archives."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from MedDiffFMLib.core.errors import DependencyError, OutputError
from MedDiffFMLib.dicom.out.export import check_folder
from MedDiffFMLib.dicom.sources.address import parse_address
from MedDiffFMLib.imaging.io import read_volume
from MedDiffFMLib.runner.case_files import CaseFiles
from MedDiffFMLib.runner.one_series import with_one_series

from .rows import case


@case(
    "several DICOM series in one folder",
    "The folder 'study' holds 2 series: '1 Scout' (CT, images: 1); '2 Thorax' (CT, images: 1). "
    "Give one file of the wanted series instead of the folder.",
)
def _mixed(folder: Path, _: pytest.MonkeyPatch) -> None:
    from Testing.unit.imaging.test_dicom import image, stored

    (folder / "study").mkdir()
    for number, title in enumerate(("Scout", "Thorax"), start=1):
        one = image(stored()[0], (0, 0, 0), f"1.2.{number}", SeriesNumber=number, SeriesDescription=title)
        one.save_as(folder / "study" / f"{title}.dcm", enforce_file_format=True)
    read_volume(folder / "study")


@case(
    "DICOM series with a missing slice",
    "'study/3 Thorax 1.0 B30f': slices are 5 mm apart at 2.5 mm along the scan, elsewhere 2.5 mm "
    "(1 missing there). Export the series again from the scanner or the archive, or convert it to NRRD with 3D Slicer.",
)
def _gap(folder: Path, _: pytest.MonkeyPatch) -> None:
    from Testing.unit.imaging.test_dicom import write_series

    write_series(folder / "study", np.array([(0.0, 0.0, 2.5 * k) for k in (0, 1, 3, 4, 5)]))
    read_volume(folder / "study")


@case(
    "DICOM series with a damaged file",
    "'i003.dcm' is not a readable DICOM file: its header cannot be read. "
    "Check that the suffix fits the content, or export it again.",
)
def _damaged_slice(folder: Path, _: pytest.MonkeyPatch) -> None:
    from Testing.unit.imaging.test_dicom import write_series

    path = write_series(folder / "study")[3]
    content = path.read_bytes()
    at = content.index(b"\x02\x00\x00\x00UL") + 6
    path.write_bytes(content[:at] + b"\xff\x7f" + content[at + 2 :])
    read_volume(folder / "study")


def _studies(folder: Path, *descriptions: str) -> Path:
    """A DICOM folder with a series of eight slices for each description."""
    from Testing.unit.imaging.test_dicom import write_series

    for number, text in enumerate(descriptions, start=2):
        write_series(folder / "study", prefix=text[0], SeriesNumber=number, SeriesDescription=text, PatientID="17")
    return folder / "study"


@case(
    "several DICOM series that could be meant, on the command line",
    "'study' holds 2 series that could be meant: 2 'Lung' (CT, 8 images); 3 'Soft' (CT, 8 images). "
    "Choose one: --series 2, or by UID, see `meddifffm series`.",
)
def _which_series(folder: Path, _: pytest.MonkeyPatch) -> None:
    with_one_series(CaseFiles(_studies(folder, "Lung", "Soft")), "denoise")


@case(
    "DICOM series with a slice of another patient",
    "Series 2 'Lung' (CT, 8 images) in 'study' mixes images of several patients: '17' and '18'. "
    "Export each patient's series again; nothing is made out of a mixture.",
)
def _two_patients(folder: Path, _: pytest.MonkeyPatch) -> None:
    import pydicom

    study = _studies(folder, "Lung")
    path = next(study.iterdir())
    image = pydicom.dcmread(path)
    image.PatientID = "18"
    image.save_as(path)
    with_one_series(CaseFiles(study), "denoise")


@case(
    "DICOM folder of results that exists",
    "The DICOM folder '{folder}/ct_denoise' exists already. Choose another folder or move it away: DICOM objects are "
    "never overwritten, not with --overwrite either.",
    OutputError,
)
def _dicom_folder_exists(folder: Path, _: pytest.MonkeyPatch) -> None:
    pytest.importorskip("highdicom", reason="the extra [dicom] is not installed")
    (folder / "ct_denoise").mkdir()
    check_folder(folder / "ct_denoise")


@case(
    "DICOM folder of results without highdicom",
    "The Python package highdicom is missing, which --dicom needs. Install it: pip install --upgrade "
    "'meddifffm[dicom]' (in Slicer: pip_install('-U highdicom')).",
    DependencyError,
)
def _no_highdicom(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "highdicom", None)
    check_folder(folder / "ct_denoise")


@case(
    "DICOM folder of results with a highdicom of earlier years",
    "highdicom 0.26.1 is too old: --dicom needs 0.28 or newer. Install it: pip install --upgrade 'meddifffm[dicom]' "
    "(in Slicer: pip_install('-U highdicom')).",
    DependencyError,
)
def _old_highdicom(folder: Path, patch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("highdicom", reason="the extra [dicom] is not installed")
    patch.setattr("importlib.metadata.version", lambda name: "0.26.1")
    check_folder(folder / "ct_denoise")


@case(
    "address of an archive without a question",
    "'dicomweb://pacs.example/dicom-web' asks for everything in the archive. "
    "Say which study: add ?PatientID=ID or a UID.",
)
def _everything(*_: object) -> None:
    parse_address("dicomweb://pacs.example/dicom-web")


@case(
    "address with a password",
    "A password stands in the address, where others can read it. Put it into ~/.netrc, and leave it out.",
)
def _password(*_: object) -> None:
    parse_address("dicomweb://anna:secret@pacs.example/dicom-web?PatientID=17")
