"""``--dicom``: the objects are written with the other results or not at all, and batches resume with them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest

from MedDiffFMLib.cli import main
from MedDiffFMLib.dicom.out.images import image_series
from MedDiffFMLib.dicom.out.shell import Purpose
from MedDiffFMLib.dicom.out.study import new_study
from MedDiffFMLib.imaging.io import read_volume, write_volume
from MedDiffFMLib.imaging.volume import Volume

pytest.importorskip("highdicom", reason="the extra [dicom] is not installed")


@pytest.fixture
def series(small_ct: Volume, tmp_path: Path) -> Path:
    """The small CT as a scanner would send it."""
    study = new_study("Anna", synthetic=False)
    (tmp_path / "ct").mkdir()
    for number, image in enumerate(image_series(small_ct, study, Purpose("CT", "", "", {}), None)):
        image.SeriesNumber, image.SeriesDescription, image.PatientID = 2, "Thorax", "17"
        image.save_as(tmp_path / "ct" / f"{number:03d}.dcm", enforce_file_format=True)
    return tmp_path / "ct"


def run(task: str, *words: object) -> int:
    return main([task, *map(str, words), "--device", "cpu", "--threads", "1", "--quiet"])


def series_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
def test_a_radiograph_and_its_folder(series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A task without a model, from DICOM to DICOM; a second run refuses before it computes."""
    command = ("radiograph", series, "-o", tmp_path / "out", "--dicom", tmp_path / "dicom")
    assert run(*command) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1].endswith("01_radiograph_OT") and series_of(tmp_path / "dicom") == ["ct_radiograph"]
    report = json.loads((tmp_path / "out" / "ct_radiograph.json").read_text())
    made = pydicom.dcmread(next((tmp_path / "dicom").rglob("*.dcm")))
    source = pydicom.dcmread(next(series.iterdir()))
    assert (made.PatientID, made.StudyInstanceUID, made.SeriesNumber) == ("17", source.StudyInstanceUID, 201)
    assert (
        made.SeriesDescription.startswith("SYNTHETIC ")
        and report["dicom"]["series"][0]["series"] == made.SeriesInstanceUID
    )
    assert main(["repeat", str(tmp_path / "out" / "ct_radiograph.json"), "--quiet"]) == 0
    assert run(*command, "--overwrite") == 2
    assert "exists already" in capsys.readouterr().err
    assert run("radiograph", series, "-o", tmp_path / "out2", "--dicom", series / "dicom") == 2
    assert "which is read" in capsys.readouterr().err and not (series / "dicom").exists()
    (tmp_path / "file").write_text("")
    assert run("radiograph", series, "-o", tmp_path / "out2", "--dicom", tmp_path / "file") == 2
    assert not (tmp_path / "out2" / "ct_radiograph.json").exists()


def test_a_foreign_slice_ends_it_before_anything_is_computed(
    series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = pydicom.dcmread(series / "003.dcm")
    image.PatientID = "18"
    image.save_as(series / "003.dcm")
    assert run("radiograph", series, "-o", tmp_path / "out", "--dicom", tmp_path / "dicom") == 2
    assert "mixes images of several patients: '17' and '18'" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.json")) and not list(tmp_path.glob("dicom/*"))


@pytest.mark.slow
def test_a_batch_catches_up_on_its_dicom_folders(
    small_ct: Volume, series: Path, tmp_path: Path, tiny_model_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = tmp_path / "cases"
    cases.mkdir()
    write_volume(small_ct, cases / "a.nrrd")
    series.rename(cases / "b")
    command = ("denoise", "--batch", cases, "-o", tmp_path / "out", "--noise", 20, "--model", tiny_model_file, "--json")
    assert run(*command) == 0
    capsys.readouterr()
    before = (tmp_path / "out" / "a_denoise.nrrd").read_bytes()
    for expected in ("done", "skipped"):
        assert run(*command, "--dicom", tmp_path / "dicom") == 0
        assert {row["status"] for row in json.loads(capsys.readouterr().out)["cases"]} == {expected}
    assert (tmp_path / "out" / "a_denoise.nrrd").read_bytes() == before
    assert series_of(tmp_path / "dicom" / "a_denoise") == ["01_source_CT", "02_denoised_CT", "03_noise_CT"]
    assert series_of(tmp_path / "dicom" / "b_denoise") == ["01_denoised_CT", "02_noise_CT"]
    written = read_volume(tmp_path / "dicom" / "b_denoise" / "01_denoised_CT")
    own = read_volume(tmp_path / "out" / "b_denoise.nrrd")
    assert np.array_equal(written.voxels, np.round(own.voxels)) and written.same_geometry(own)
    assert run("denoise", "--batch", cases, "--dicom", cases / "dicom", "--model", tiny_model_file) == 2
