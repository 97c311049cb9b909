"""Organ maps of TotalSegmentator: names win over numbers, single masks become one map, an organ can be a mask."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from MedDiffFMLib.cli import main
from MedDiffFMLib.conditioning.anatomy import check_anatomy
from MedDiffFMLib.conditioning.totalsegmentator_labels import organ_number
from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.imaging.io import read_volume, write_volume
from MedDiffFMLib.imaging.segments import Segment
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.runner.case import checked_case

XML = (
    '<?xml version="1.0" encoding="UTF-8"?><CaretExtension><VolumeInformation Index="0"><LabelTable>'
    '<Label Key="1" Red="0.9" Green="0.5" Blue="0.1" Alpha="1"><![CDATA[liver]]></Label>'
    '<Label Key="4" Red="0.9" Green="0.5" Blue="0.1" Alpha="1"><![CDATA[my tumor]]></Label>'
    "</LabelTable></VolumeInformation></CaretExtension>"
)


def labels(*numbers: int) -> np.ndarray:
    """(k, j, i) with a slab of each number."""
    voxels = np.zeros((8, 6, 6), np.uint8)
    for place, number in enumerate(numbers):
        voxels[1 + place] = number
    return voxels


def test_names_of_a_nifti_file_win_over_its_numbers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As TotalSegmentator writes them, here with the numbers of another version; numbers alone stay what they are."""
    path = tmp_path / "organs.nii.gz"
    image = nib.Nifti1Image(labels(1, 4).T, np.diag([-2.0, -2, 2, 1]))
    image.header.extensions.append(nib.nifti1.Nifti1Extension(0, XML.encode()))
    nib.save(image, path)
    volume = read_volume(path, "mask")
    assert [(segment.name, segment.value) for segment in volume.segments] == [("liver", 1), ("my tumor", 4)]
    organs = check_anatomy(volume, None)
    assert set(np.unique(organs)) == {0, organ_number("liver")}
    assert "my tumor" in caplog.text
    plain = Volume(labels(1, 4), volume.ijk_to_ras, "mask")
    assert set(np.unique(check_anatomy(plain, None))) == {0, 1, 4}


def test_segments_of_slicer_are_organs_by_their_names() -> None:
    """Numbers in a segmentation count from 1 in the order of its segments."""
    segments = (Segment("Spleen", 1, (1, 3)), Segment("lung upper lobe left", 2, (2,)))
    volume = Volume(labels(1, 2, 3), np.eye(4), "mask", segments=segments)
    expected = {0, organ_number("spleen"), organ_number("lung_upper_lobe_left")}
    assert set(np.unique(check_anatomy(volume, None))) == expected


def test_an_organ_of_a_map_is_a_mask_by_its_name(small_ct: Volume) -> None:
    voxels = np.zeros(small_ct.voxels.shape, np.uint8)
    voxels[10:20, 20:30, 10:20] = organ_number("liver")
    voxels[25:30, 20:30, 10:20] = 2
    mask = Volume(voxels, small_ct.ijk_to_ras, "mask")
    case = checked_case("inpaint", {"volume": small_ct, "mask": mask}, label="liver")
    assert case.mask is not None and case.mask.sum() == (voxels == organ_number("liver")).sum()
    with pytest.raises(InputError, match="no label 'heart'|no label '51'"):
        checked_case("inpaint", {"volume": small_ct, "mask": mask}, label="heart")


def test_masks_of_single_organs_become_one_map(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "segmentations"
    for name, slab in (("liver", 1), ("spleen", 2), ("notes_of_mine", 3)):
        voxels = np.zeros((8, 6, 6), np.uint8)
        voxels[slab] = 1
        write_volume(Volume(voxels, np.eye(4), "mask"), folder / f"{name}.nii.gz", mask=True)
    assert main(["organs", str(folder), "-o", str(tmp_path / "organs.nii.gz")]) == 0
    assert "notes_of_mine" in capsys.readouterr().err
    merged = read_volume(tmp_path / "organs.nii.gz", "mask").voxels
    assert set(np.unique(merged[1])) == {organ_number("liver")} and set(np.unique(merged[2])) == {
        organ_number("spleen")
    }
    assert not merged[3].any()
    write_volume(Volume(voxels, 2 * np.eye(4), "mask"), folder / "heart.nii.gz", mask=True)
    assert main(["organs", str(folder), "-o", str(tmp_path / "x.nii.gz")]) == 2
    assert "another grid" in capsys.readouterr().err
    assert main(["organs", str(tmp_path), "-o", str(tmp_path / "x.nrrd")]) == 2
