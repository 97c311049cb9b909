"""Several series in one folder or on one medium: the right one, or a sentence that names them all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.fileset import FileSet

from MedDiffFMLib.cli import main
from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.dicom.series import find_series, source_files
from MedDiffFMLib.imaging.io import read_volume
from MedDiffFMLib.runner.case_files import CaseFiles
from MedDiffFMLib.runner.one_series import with_one_series
from Testing.unit.imaging.test_dicom import write_series

LUNG = {"SeriesNumber": 4, "SeriesDescription": "Lung", "StudyInstanceUID": "1.2.3", "PatientID": "17"}
SOFT = {"SeriesNumber": 5, "SeriesDescription": "Soft tissue", "StudyInstanceUID": "1.2.3", "PatientID": "17"}
SCOUT = {"SeriesNumber": 1, "SeriesDescription": "Scout", "StudyInstanceUID": "1.2.3", "PatientID": "17"}
ABOVE = np.array([(-100.0, -120.0, 2.5 * k) for k in range(6)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A scout of one image and two volumes, files of all mixed."""
    write_series(tmp_path / "ct", prefix="a", **LUNG)
    write_series(tmp_path / "ct", ABOVE, prefix="b", **SOFT)
    write_series(tmp_path / "ct", ABOVE[:1], prefix="c", **SCOUT)
    return tmp_path / "ct"


def chosen(path: Path, series: str | None = None) -> tuple[int, ...]:
    return read_volume(with_one_series(CaseFiles(path, series=series), "denoise").input).voxels.shape


def test_number_or_uid_chooses(folder: Path) -> None:
    found = find_series(folder)
    assert [(s.number, s.images, s.description) for s in found] == [
        ("1", 1, "Scout"), ("4", 8, "Lung"), ("5", 6, "Soft tissue"),
    ]  # fmt: skip
    assert chosen(folder, "5") == chosen(folder, found[2].uid) == (6, 5, 6)
    assert CaseFiles(folder, series="5").name == "ct_series5"
    with pytest.raises(InputError, match=r"2 series that could be meant: 4 'Lung' \(CT, 8 images\); 5 'Soft tissue'"):
        chosen(folder)
    with pytest.raises(InputError, match=r"no series '7'; it holds 1 'Scout' \(CT, 1 image\); 4"):
        chosen(folder, "7")
    with pytest.raises(InputError, match="no DICOM folder"):
        chosen(Path("ct.nrrd"), "4")


def test_the_only_volume_is_taken(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for path in folder.glob("b*"):
        path.unlink()
    assert chosen(folder) == (8, 5, 6)
    assert "ct: series 4 'Lung' (CT, 8 images) out of 2 was taken." in caplog.text


def test_dicomdir(folder: Path, tmp_path: Path) -> None:
    """A medium as a hospital hands it out; with a file gone it is no series that happens to be shorter."""
    medium = FileSet()
    for path in sorted(folder.iterdir()):
        dataset = pydicom.dcmread(path)
        dataset.StudyDate, dataset.StudyTime, dataset.StudyID, dataset.PatientName = "20260101", "120000", "1", "A^B"
        dataset.InstanceNumber = int(path.name[1:4]) + 1
        medium.add(dataset)
    medium.write(tmp_path / "medium")
    record = tmp_path / "medium" / "DICOMDIR"
    assert [s.number for s in find_series(record)] == ["1", "4", "5"] == [s.number for s in find_series(record.parent)]
    assert chosen(record, "5") == chosen(record.parent, "5") == (6, 5, 6)
    shutil.move(next(path for path in record.parent.glob("*/*/*/*") if path.is_file()), tmp_path / "gone")
    with pytest.raises(InputError, match="lists 15 files, of which 1 are not there"):
        chosen(record, "5")


def test_patients_are_not_mixed(folder: Path) -> None:
    path = next(folder.glob("a*"))
    stranger = pydicom.dcmread(path)
    stranger.PatientID = "18"
    stranger.save_as(path)
    with pytest.raises(InputError, match="mixes images of several patients: '17' and '18'"):
        chosen(folder, "4")


def test_results_beside_the_scan_are_not_in_the_way(folder: Path) -> None:
    """The files of a series are those that its volume is read from."""
    with source_files(next(folder.glob("b*"))) as files:
        assert sorted(files) == sorted(folder.glob("b*"))
    with source_files(Path("ct.nrrd")) as files:
        assert files == []


def test_the_table(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["series", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["number", "modality", "images", "description", "date", "series"]
    assert lines[3].split()[:5] == ["5", "CT", "6", "Soft", "tissue"]
    assert main(["series", str(folder), "--series", "5", "-o", str(tmp_path / "soft"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == 6
    assert read_volume(tmp_path / "soft").voxels.shape == (6, 5, 6)
    assert main(["series", str(folder), "--series", "5", "-o", str(tmp_path / "soft")]) == 2
    assert "exists already" in capsys.readouterr().err
