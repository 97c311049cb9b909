"""Results as DICOM: what other programs read back is what the task gave, where it gave it."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK

from MedDiffFMLib.core.errors import DependencyError, InputError, OutputError
from MedDiffFMLib.dicom.out.contours import contours, filled
from MedDiffFMLib.dicom.out.export import check_folder, written
from MedDiffFMLib.dicom.out.reports import unit_of
from MedDiffFMLib.dicom.series import find_series, source_files
from MedDiffFMLib.imaging.io import read_volume
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.tasks.base import TaskResult
from Testing.harness.geometries import GEOMETRIES, orthogonal
from Testing.unit.imaging.test_dicom import write_series

from .toy import export_of, oblique_is_quick, result_on, scan

highdicom = pytest.importorskip("highdicom", reason="the extra [dicom] is not installed")

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
NEAR_MM = 1e-3


@pytest.fixture(scope="module", params=oblique_is_quick(GEOMETRIES))
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Volume, Path]:
    """A scan without DICOM on one of the grids that a volume may have, and the folder of its export."""
    volume = scan(orthogonal(GEOMETRIES[request.param]))
    folder = tmp_path_factory.mktemp("dicom") / request.param
    with written(export_of(volume), folder):
        pass
    return volume, folder


def only(folder: Path, name: str) -> Path:
    """The file of a series with one."""
    (file,) = folder.glob(f"*_{name}/*.dcm")
    return file


def assert_same(expected: np.ndarray, to_ras: np.ndarray, found: np.ndarray, found_to_ras: np.ndarray) -> None:
    """Each voxel of one (k, j, i) is a voxel of the other, at the same place in the patient."""
    index = np.array([(i, j, k, 1) for k, j, i in np.ndindex(expected.shape)]).T
    there = np.linalg.solve(found_to_ras, to_ras @ index)[:3]
    nearest = np.round(there).astype(int)
    offset = found_to_ras[:3, :3] @ (there - nearest)
    assert np.linalg.norm(offset, axis=0).max() < NEAR_MM
    assert np.array_equal(found[nearest[2], nearest[1], nearest[0]], expected.ravel())


def test_ct_series_are_exact_to_the_rounding_of_a_hu(exported: tuple[Volume, Path]) -> None:
    volume, folder = exported
    result = result_on(volume).volumes
    for name in ("source", "denoised", "filled", "noise"):
        expected = np.round(result.get(name, volume.voxels))
        (series,) = folder.glob(f"*_{name}_CT")
        own = read_volume(series)
        assert own.synthetic == (name == "filled")
        assert_same(expected, volume.ijk_to_ras, own.voxels, own.ijk_to_ras)
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series)))
        image = reader.Execute()
        axes = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
        matrix = np.vstack([np.column_stack([axes, image.GetOrigin()]), [0, 0, 0, 1]])
        assert_same(expected, volume.ijk_to_ras, SimpleITK.GetArrayFromImage(image), LPS @ matrix)


def test_segments_and_maps_lie_where_they_were(exported: tuple[Volume, Path]) -> None:
    volume, folder = exported
    result = result_on(volume)
    for name, value in (("lesion_SEG", 1), ("organs_SEG", 1), ("organs_SEG", 2), ("findings_SEG", 2)):
        seg = highdicom.seg.segread(only(folder, name))
        truth = {"lesion": result.volumes["lesion"], "organs": result.volumes["organs"]}
        label = {"lesion_SEG": True, "organs_SEG": {1: 1, 2: 3}.get(value), "findings_SEG": 2}[name]
        expected = truth.get(name.partition("_")[0], result.regions["findings"]) == label
        found = seg.get_volume(segment_numbers=[value], combine_segments=True)
        matrix = (LPS @ found.affine)[:, [2, 1, 0, 3]]
        points = np.argwhere(found.array)[:, ::-1]
        placed = matrix @ np.column_stack([points, np.ones(len(points))]).T
        index = np.linalg.solve(volume.ijk_to_ras, placed)[:3]
        assert np.abs(index - np.round(index)).max() * max(volume.spacing) < NEAR_MM
        again = np.zeros(volume.voxels.shape, bool)
        i, j, k = np.round(index).astype(int)
        again[k, j, i] = True
        assert np.array_equal(again, expected)
    for name in ("z", "usual"):
        found = highdicom.imread(only(folder, f"{name}_OT")).get_volume()
        assert_same(
            result.volumes[name],
            volume.ijk_to_ras,
            found.array.astype(np.float32),
            (LPS @ found.affine)[:, [2, 1, 0, 3]],
        )


def test_contours_give_the_mask_back(exported: tuple[Volume, Path]) -> None:
    volume, folder = exported
    structures = pydicom.dcmread(only(folder, "lesion_RTSTRUCT"))
    again = np.zeros(volume.voxels.shape, bool)
    for contour in structures.ROIContourSequence[0].ContourSequence:
        points = np.reshape([float(x) for x in contour.ContourData], (-1, 3)).T
        index = np.linalg.solve(volume.ijk_to_ras, LPS @ np.vstack([points, np.ones(points.shape[1])]))
        k = round(float(index[2].mean()))
        assert np.abs(index[2] - k).max() * volume.spacing[2] < NEAR_MM
        again[k] ^= filled([index[:2].T], volume.voxels.shape[1:])
    assert np.array_equal(again, result_on(volume).volumes["lesion"])


def test_a_keyhole_leads_to_every_hole() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        mask = rng.random((14, 17)) < 0.6
        assert np.array_equal(filled(contours(mask), mask.shape), mask)


def test_findings_name_their_segment_and_their_figures(exported: tuple[Volume, Path]) -> None:
    _, folder = exported
    report = pydicom.dcmread(only(folder, "findings_SR"))
    segments = pydicom.dcmread(only(folder, "findings_SEG"))
    assert report.CurrentRequestedProcedureEvidenceSequence
    text = report.to_json()
    assert segments.SOPInstanceUID in text and "mean hu" in text and "[hnsf'U]" in text and "here" in text
    read = highdicom.sr.srread(only(folder, "findings_SR")).content.get_volumetric_roi_measurement_groups()
    assert [group.tracking_identifier for group in read] == ["Finding 1", "Finding 2"]
    assert [group.tracking_uid for group in read] == [segment.TrackingUID for segment in segments.SegmentSequence]
    assert {float(m.value) for group in read for m in group.get_measurements()} == {10.5, 4.25, -5.0}


def test_figures_have_the_units_that_their_rows_say() -> None:
    assert [unit_of(name, {})[0] for name in ("peak_z", "mean_hu", "value")] == ["1", "[hnsf'U]", "1"]
    assert [unit_of("value", {"unit": unit})[0] for unit in ("mm", "slices a cm")] == ["mm", "{slices_a_cm}"]


@pytest.mark.slow
def test_the_same_result_gives_the_same_objects_but_for_uids_and_times(tmp_path: Path) -> None:
    volume = scan(orthogonal(GEOMETRIES["oblique"]))
    for name in ("one", "two"):
        with written(export_of(volume), tmp_path / name):
            pass
    files = sorted(path.relative_to(tmp_path / "one") for path in tmp_path.glob("one/*/*.dcm"))
    assert files == sorted(path.relative_to(tmp_path / "two") for path in tmp_path.glob("two/*/*.dcm"))
    for file in files:
        one, two = (_without_identity(pydicom.dcmread(tmp_path / name / file)) for name in ("one", "two"))
        assert one == two, file


def _without_identity(dataset: pydicom.Dataset) -> pydicom.Dataset:
    """A dataset without UIDs, dates and times, at any depth."""

    def forget(level: pydicom.Dataset, element: pydicom.DataElement) -> None:
        if element.VR in ("UI", "DA", "TM", "DT"):
            del level[element.tag]

    dataset.walk(forget)
    return dataset


def test_what_is_invented_says_so(exported: tuple[Volume, Path]) -> None:
    _, folder = exported
    for file in folder.glob("*/00001.dcm"):
        made = pydicom.dcmread(file)
        invented = "_filled_" in file.parent.name
        assert ("SYNTHETIC" in made.SeriesDescription) == invented
        assert (made.get("SyntheticData") == "YES") == invented
        assert "research" in made.SeriesDescription and len(made.SeriesDescription) <= 64
        assert made.ContributingEquipmentSequence[-1].ManufacturerModelName == "MedDiff-FM"
        if made.Modality in ("CT", "MR"):
            assert list(made.ImageType[:2]) == ["DERIVED", "SECONDARY"]
            assert "seed 3" in made.DerivationDescription or "source" in file.parent.name


@pytest.mark.slow
def test_validators_find_no_error(tmp_path: Path) -> None:
    if not shutil.which("dciodvfy") or not shutil.which("dcmdump"):
        pytest.skip("dciodvfy or dcmdump is not installed: apt-get install dicom3tools dcmtk")
    with written(export_of(scan(orthogonal(GEOMETRIES["oblique"]))), tmp_path / "out"):
        pass
    for file in sorted(tmp_path.glob("out/*/00001.dcm")):
        said = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True)
        errors = [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")]
        # its dictionary is older than Synthetic Data (0008,001C)
        assert [line for line in errors if "(0x0008,0x001c)" not in line] == [], file.parent.name
        dumped = subprocess.run(["dcmdump", "+E", str(file)], capture_output=True, text=True)
        assert dumped.returncode == 0 and dumped.stderr == ""
        if "_SR" in file.parent.name:
            shown = subprocess.run(["dsrdump", str(file)], capture_output=True, text=True)
            assert shown.returncode == 0 and "Comment" in shown.stdout or "Measurement Group" in shown.stdout
            assert "E:" not in shown.stderr


PATIENT = {
    "PatientName": "Grün^Anna", "PatientID": "17", "StudyInstanceUID": "1.2.3.4", "FrameOfReferenceUID": "1.2.3.5",
    "SpecificCharacterSet": "ISO_IR 100", "Manufacturer": "ACME", "StudyID": "S1", "KVP": 120,
    "BodyPartExamined": "CHEST", "PatientPosition": "HFS", "AccessionNumber": "A7",
}  # fmt: skip


def test_results_stay_in_the_study_of_the_scan(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", **PATIENT)
    volume = read_volume(tmp_path / "ct")
    before = {file: file.read_bytes() for file in (tmp_path / "ct").iterdir()}
    result = TaskResult({"denoised": volume.voxels, "z": volume.voxels.astype(np.float32)})
    with (
        source_files(tmp_path / "ct") as files,
        written(export_of(volume, files, result=result), tmp_path / "out") as made,
    ):
        assert [row.output for row in made] == ["denoised", "z"]
    originals = {str(pydicom.dcmread(file).SOPInstanceUID): pydicom.dcmread(file) for file in before}
    uids = set()
    for file in sorted(tmp_path.glob("out/*/*.dcm")):
        made = pydicom.dcmread(file)
        uids.add(made.SOPInstanceUID)
        assert (made.StudyInstanceUID, made.FrameOfReferenceUID, made.PatientID) == ("1.2.3.4", "1.2.3.5", "17")
        assert made.PatientName == "Grün^Anna" and made.AccessionNumber == "A7"
        assert made.SeriesNumber in (301, 302)
        assert made.ContributingEquipmentSequence[0].Manufacturer == "ACME"
        if made.Modality == "CT":
            source = originals[made.SourceImageSequence[0].ReferencedSOPInstanceUID]
            assert source.ImagePositionPatient == made.ImagePositionPatient
            assert np.array_equal(source.pixel_array.astype(int) - 1024, made.pixel_array)
            assert made.KVP == 120 and made.BodyPartExamined == "CHEST"
    assert len(uids) == 9 and not uids & set(originals)
    assert {file: file.read_bytes() for file in (tmp_path / "ct").iterdir()} == before
    assert [s.modality for s in find_series(tmp_path / "out")] == ["CT", "OT"]


def test_a_mixture_is_refused(tmp_path: Path) -> None:
    files = write_series(tmp_path / "ct", **PATIENT)
    stranger = pydicom.dcmread(files[2])
    stranger.PatientID = "18"
    stranger.save_as(files[2])
    export = export_of(read_volume(tmp_path / "ct"), files, result=TaskResult())
    with pytest.raises(InputError, match="several patients: '17' and '18'"), written(export, tmp_path / "out"):
        pytest.fail("nothing is made out of a mixture")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ct"]


def test_missing_tags_are_made_up_for(tmp_path: Path) -> None:
    """The series of the older tests names no patient, study or frame of reference."""
    files = write_series(tmp_path / "ct")
    volume = read_volume(tmp_path / "ct")
    row = {"number": 1, "r_mm": 1.0, "a_mm": 2.0, "s_mm": 3.0, "volume_ml": 4.0}
    export = export_of(volume, files, result=TaskResult({"denoised": volume.voxels}, {"findings": [row]}))
    with written(export, tmp_path / "out"):
        pass
    assert len(export.notes) == 3
    studies = {pydicom.dcmread(file).StudyInstanceUID for file in tmp_path.glob("out/*/*.dcm")}
    assert len(studies) == 1
    (group,) = highdicom.sr.srread(only(tmp_path / "out", "findings_SR")).content.get_planar_roi_measurement_groups()
    assert np.array_equal(group.roi.value, [[-1, -2, 3]])


@pytest.mark.slow
def test_nothing_is_overwritten_and_nothing_half_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export = export_of(scan(orthogonal(GEOMETRIES["plain"])))
    (tmp_path / "there").mkdir()
    with pytest.raises(OutputError, match="exists already"):
        check_folder(tmp_path / "there")
    with pytest.raises(OutputError, match="exists already"), written(export, tmp_path / "there"):
        pytest.fail("an existing folder is left alone")
    with pytest.raises(RuntimeError), written(export, tmp_path / "out"):
        raise RuntimeError("publishing the other results failed")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be used"):
        check_folder(tmp_path / "file" / "out")
    broken = export_of(scan(orthogonal(GEOMETRIES["plain"])))
    broken.result.ijk_to_ras["z"] = np.array([[1, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    with pytest.raises(InputError, match="right angles"), written(broken, tmp_path / "out"):
        pytest.fail("a sheared map has no place in DICOM")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "there"]
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(DependencyError, match=r"meddifffm\[dicom\]"):
        check_folder(tmp_path / "out")


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is full in the middle of the second series."""
    room = 12

    def written_file(path: Path, *words: str) -> Any:
        nonlocal room
        room -= 1
        if room == 0:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return open(path, *words)

    monkeypatch.setattr(Path, "open", written_file)
    export = export_of(scan(orthogonal(GEOMETRIES["plain"])))
    with pytest.raises(OutputError, match="No space left on device"), written(export, tmp_path / "out"):
        pytest.fail("the disk is full")
    assert list(tmp_path.iterdir()) == []
