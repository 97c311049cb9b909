"""DICOM segmentations and structure sets as masks: those of this software and of others, on the scan's voxels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.dicom.masks import read_mask
from MedDiffFMLib.dicom.out.export import written
from MedDiffFMLib.imaging.formats.dicom_structures import structures_file
from MedDiffFMLib.imaging.grid import Grid, to_grid
from MedDiffFMLib.imaging.io import read_volume
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.runner.case import load_case
from MedDiffFMLib.runner.case_files import CaseFiles
from Testing.harness.geometries import GEOMETRIES, orthogonal

from .toy import export_of, oblique_is_quick, result_on, scan

pytest.importorskip("highdicom", reason="the extra [dicom] is not installed")


@pytest.fixture(scope="module", params=oblique_is_quick(["plain", "oblique", "anisotropic"]))
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Volume, Path]:
    volume = scan(orthogonal(GEOMETRIES[request.param]))
    folder = tmp_path_factory.mktemp("masks") / request.param
    with written(export_of(volume), folder):
        pass
    return volume, folder


def one(folder: Path, name: str) -> Path:
    (found,) = folder.glob(f"*_{name}")
    path = structures_file(found)
    assert path is not None
    return path


def test_a_mask_comes_back_voxel_for_voxel(exported: tuple[Volume, Path]) -> None:
    """On the grid that was exported and, with the planes in the other order, on the one that is read back."""
    volume, folder = exported
    result = result_on(volume).volumes
    (series,) = folder.glob("*_source_CT")
    read = read_volume(series)
    for name, wanted, expected in (
        ("lesion_SEG", None, result["lesion"]),
        ("lesion_RTSTRUCT", None, result["lesion"]),
        ("organs_SEG", "tumor", result["organs"] == 3),
        ("organs_RTSTRUCT", "1", result["organs"] == 1),
    ):
        path = one(folder, name)
        assert np.array_equal(read_mask(path, wanted, volume).voxels, expected), name
        grid = Grid(read.voxels.shape, read.ijk_to_ras)
        truth = to_grid(volume.with_voxels(expected.astype(np.uint8)), grid, order=0, fill=0)
        assert np.array_equal(read_mask(path, wanted, read, series).voxels, truth > 0), name


def test_the_segment_of_a_cropped_object_does_not_grow(exported: tuple[Volume, Path]) -> None:
    """A scan with two voxels in place of each one: eight voxels for each of the segment's."""
    volume, folder = exported
    fine = volume.ijk_to_ras @ np.array([[0.5, 0, 0, -0.25], [0, 0.5, 0, -0.25], [0, 0, 0.5, -0.25], [0, 0, 0, 1]])
    doubled = Volume(volume.voxels.repeat(2, 0).repeat(2, 1).repeat(2, 2), fine)
    found = read_mask(one(folder, "lesion_SEG"), None, doubled).voxels
    assert np.array_equal(found, result_on(volume).volumes["lesion"].repeat(2, 0).repeat(2, 1).repeat(2, 2))


@pytest.mark.slow
def test_a_case_takes_one_structure_of_several(exported: tuple[Volume, Path]) -> None:
    volume, folder = exported
    (series,) = folder.glob("*_source_CT")
    for kind in ("SEG", "RTSTRUCT"):
        mask = one(folder, f"organs_{kind}")
        case = load_case(CaseFiles(series, mask, label="liver"), "inpaint")
        assert case.mask is not None and case.mask.sum() == (result_on(volume).volumes["organs"] == 1).sum()
        with pytest.raises(InputError, match=r"2 structures: 1 'Liver'; 2 'tumor'. Choose one with --label"):
            load_case(CaseFiles(series, mask), "inpaint")
        with pytest.raises(InputError, match=r"no structure 'spleen'; it holds 1 'Liver'"):
            load_case(CaseFiles(series, mask, label="spleen"), "inpaint")


def test_structures_of_strangers_are_refused(exported: tuple[Volume, Path], tmp_path: Path) -> None:
    volume, folder = exported
    (series,) = folder.glob("*_source_CT")
    for kind in ("SEG", "RTSTRUCT"):
        path = one(folder, f"lesion_{kind}")
        stranger = pydicom.dcmread(path)
        stranger.PatientID = "somebody"
        stranger.save_as(tmp_path / f"{kind}.dcm")
        with pytest.raises(InputError, match="is of patient 'somebody', the scan of 'case'"):
            read_mask(tmp_path / f"{kind}.dcm", None, volume, series)
        other = pydicom.dcmread(path)
        row = other if kind == "SEG" else other.ReferencedFrameOfReferenceSequence[0]
        row.FrameOfReferenceUID = "1.2.3"
        other.save_as(tmp_path / f"{kind}.dcm")
        with pytest.raises(InputError, match="another frame of reference"):
            read_mask(tmp_path / f"{kind}.dcm", None, volume, series)


def test_contours_of_other_planes_are_refused(exported: tuple[Volume, Path]) -> None:
    volume, folder = exported
    between = volume.ijk_to_ras.copy()
    between[:3, 3] += between[:3, 2] / 2
    with pytest.raises(InputError, match="drawn on other planes"):
        read_mask(one(folder, "lesion_RTSTRUCT"), None, Volume(volume.voxels, between))
    away = volume.ijk_to_ras.copy()
    away[:3, 3] += 40 * away[:3, 0]
    for kind in ("SEG", "RTSTRUCT"):
        with pytest.raises(InputError, match="marks no voxel of the scan"):
            read_mask(one(folder, f"lesion_{kind}"), None, Volume(volume.voxels, away))
