"""MetaImage files and ZIP archives: what ITK writes is read as ITK reads it, and the other way round."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.imaging.image_files import stem_of
from MedDiffFMLib.imaging.io import read_volume, source_of, write_volume
from MedDiffFMLib.imaging.volume import Volume
from Testing.unit.imaging.test_dicom import write_series


def _matrix(image: object) -> np.ndarray:
    """ijk_to_ras of an image of SimpleITK."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()  # type: ignore[attr-defined]
    matrix[:3, 3] = image.GetOrigin()  # type: ignore[attr-defined]
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix


@pytest.mark.parametrize("suffix", [".mha", ".mhd"])
def test_itk_and_the_product_read_what_the_other_writes(suffix: str, tmp_path: Path) -> None:
    itk = pytest.importorskip("SimpleITK")
    voxels = np.random.default_rng(1).integers(-1000, 1000, (5, 6, 7))
    for kind in (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.int64, np.float32, np.float64):
        image = itk.GetImageFromArray(voxels.astype(kind))
        image.SetDirection(Rotation.from_euler("xyz", [20, 12, -33], degrees=True).as_matrix().ravel().tolist())
        image.SetSpacing((0.7, 0.8, 2.5))
        image.SetOrigin((1.5, -30, 200.25))
        for packed in (False, True):
            theirs, own = tmp_path / f"theirs{suffix}", tmp_path / f"own{suffix}"
            itk.WriteImage(image, str(theirs), packed)
            volume = read_volume(theirs, "mask")
            assert volume.voxels.dtype == kind and np.array_equal(volume.voxels, voxels.astype(kind))
            assert np.abs(volume.ijk_to_ras - _matrix(image)).max() < 1e-9
            write_volume(Volume(volume.voxels, volume.ijk_to_ras, synthetic=True), own, overwrite=True)
            again = itk.ReadImage(str(own))
            assert np.array_equal(itk.GetArrayFromImage(again), volume.voxels.astype(np.float32))
            assert np.abs(_matrix(again) - volume.ijk_to_ras).max() < 1e-9 and read_volume(own).synthetic


def test_hash_covers_detached_voxels(tmp_path: Path) -> None:
    itk = pytest.importorskip("SimpleITK")
    path = tmp_path / "ct scan.mhd"
    itk.WriteImage(itk.GetImageFromArray(np.zeros((4, 4, 4), np.int16)), str(path))
    before, raw = source_of(path), tmp_path / "ct scan.raw"
    raw.write_bytes(b"\1" + raw.read_bytes()[1:])
    assert source_of(path) != before


GOOD = {
    "ObjectType": "Image",
    "NDims": "3",
    "BinaryData": "True",
    "ElementSpacing": "1 1 1",
    "DimSize": "4 4 4",
    "ElementType": "MET_SHORT",
    "ElementDataFile": "LOCAL",
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"DimSize": "4 4 5"}, "its header promises 160 bytes"),
        ({"DimSize": "400000 400000 400000"}, "its header promises"),
        ({"DimSize": "4 4 -4"}, "its header makes no sense"),
        ({"CompressedData": "True"}, "its voxels do not fill 4 x 4 x 4"),
        ({"HeaderSize": "8"}, "its voxels do not fill 4 x 4 x 4"),
        ({"ElementType": "MET_STRING"}, "its header makes no sense"),
        ({"ElementNumberOfChannels": "3"}, "holds colors or vectors"),
        ({"NDims": "2", "DimSize": "8 8"}, "is a 2-D image"),
        ({"ElementSpacing": "1 1"}, "its ElementSpacing makes no sense"),
        ({"ElementDataFile": "LIST"}, "over several files"),
        ({"ElementDataFile": "slice%03d.raw 1 4 1"}, "over several files"),
        ({"ElementDataFile": "gone.raw"}, "which is missing"),
    ],
)
def test_damaged_headers_are_refused_in_words(changes: dict[str, str], words: str, tmp_path: Path) -> None:
    path = tmp_path / "ct.mha"
    fields = {**GOOD, **changes}
    fields["ElementDataFile"] = fields.pop("ElementDataFile")  # the last one
    header = "".join(f"{key} = {value}\n" for key, value in fields.items())
    path.write_bytes(header.encode() + np.arange(64, dtype="<i2").tobytes())
    with pytest.raises(InputError, match=words):
        read_volume(path)


def test_no_voxel_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ct.mha"
    path.write_bytes(b"NDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n" + bytes(64))
    with pytest.raises(InputError, match="does not give the size of its voxels"):
        read_volume(path)


# Archives


def _zipped(folder: Path, path: Path, *extra: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"../../STUDY/{file.name}")
        for name in extra:
            archive.writestr(name, b"\0\5\x16\7" * 50)
    return path


def test_zip_of_a_series_is_read_as_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    folder = tmp_path / "series"
    write_series(folder)
    path = _zipped(folder, tmp_path / "thorax.zip", "__MACOSX/STUDY/._i000.dcm", "STUDY/.DS_Store", "viewer.exe")
    volume, loose = read_volume(path), read_volume(folder)
    assert np.array_equal(volume.voxels, loose.voxels) and np.array_equal(volume.ijk_to_ras, loose.ijk_to_ras)
    assert not list(temporary.iterdir()) and stem_of(path) == "thorax"


def test_bad_archives_are_refused_in_words(tmp_path: Path) -> None:
    empty, damaged, bomb = tmp_path / "empty.zip", tmp_path / "damaged.zip", tmp_path / "bomb.zip"
    (tmp_path / "none").mkdir()
    _zipped(tmp_path / "none", empty, "readme.txt")
    damaged.write_bytes(empty.read_bytes()[:60])
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("zeros", bytes(10_000_000))
    for path, words in ((empty, "holds no DICOM images"), (damaged, "not a readable ZIP"), (bomb, "it promises more")):
        with pytest.raises(InputError, match=words):
            read_volume(path)
