"""DICOM series made on the spot with pydicom."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless, generate_uid

from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.imaging.io import read_volume, source_of
from MedDiffFMLib.imaging.volume import check_ct

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


def stored(slices: int = 8) -> np.ndarray:
    """Unsigned 12-bit numbers (k, j, i)."""
    return np.random.default_rng(0).integers(0, 4096, (slices, 5, 6)).astype(np.uint16)


def uid_of(*words: object) -> str:
    """The same for the same words: the size of a file, and where a damage in it falls, must not change by itself."""
    return generate_uid(entropy_srcs=[str(word) for word in words])


def image(pixels: np.ndarray, position: tuple[float, ...], series: str, **changes: object) -> Dataset:
    """One CT image; ``changes`` set or (None) delete attributes."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = CT_IMAGE
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid_of(series, *position)
    ds.SeriesInstanceUID, ds.SeriesNumber, ds.SeriesDescription, ds.Modality = series, 3, "Thorax 1.0 B30f", "CT"
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.PixelSpacing, ds.SliceThickness = [0.8, 0.7], 2.5
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [float(x) for x in position], list(AXIAL)
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    ds.PixelData = pixels.tobytes()
    for key, value in changes.items():
        if value is None:
            delattr(ds, key)
        else:
            setattr(ds, key, value)
    return ds


def write_series(folder: Path, positions: np.ndarray | None = None, prefix: str = "i", **changes: object) -> list[Path]:
    """A series in shuffled file order; slice k lies at positions[k]."""
    if positions is None:
        positions = np.array([(-100.0, -120.0, -300 + 2.5 * k) for k in range(8)])
    folder.mkdir(exist_ok=True)
    uid, pixels, paths = uid_of(folder.name, prefix, changes), stored(len(positions)), []
    for name, k in enumerate(np.random.default_rng(1).permutation(len(positions))):
        paths.append(folder / f"{prefix}{name:03d}.dcm")
        image(pixels[k], positions[k], uid, **changes).save_as(paths[-1], enforce_file_format=True)
    return paths


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_volume(path)
    assert caught.value.remedy
    return str(caught.value)


def test_series_is_ordered_by_position_and_rescaled(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "ct")
    for path in (tmp_path / "ct", paths[3]):
        volume = read_volume(path)
        assert volume.voxels.dtype == np.int16
        assert np.array_equal(volume.voxels, stored().astype(int) - 1024)
        expected = np.diag([-0.7, -0.8, 2.5, 1.0])
        expected[:3, 3] = (100, 120, -300)
        assert np.allclose(volume.ijk_to_ras, expected, atol=1e-12)


def test_oblique_descending_series(tmp_path: Path) -> None:
    """Rows and columns turned; positions descend along the normal in time, and are still sorted."""
    row, column = np.array([0.6, 0.8, 0.0]), np.array([0.0, 0.0, -1.0])
    normal = np.cross(row, column)
    positions = np.array([(10, 20, 30) + 3.0 * k * normal for k in range(8)])
    write_series(tmp_path / "ct", positions, ImageOrientationPatient=[*row, *column])
    volume = read_volume(tmp_path / "ct")
    lps = np.stack([row * 0.7, column * 0.8, normal * 3.0], axis=1)
    assert np.allclose(volume.ijk_to_ras[:3, :3], LPS_TO_RAS @ lps)
    assert np.array_equal(volume.voxels, stored().astype(int) - 1024)


def test_fractional_slope_gives_floats(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", RescaleSlope=0.5, RescaleIntercept=-1000)
    volume = read_volume(tmp_path / "ct")
    assert volume.voxels.dtype == np.float32 and np.array_equal(volume.voxels, stored() * 0.5 - 1000)


def test_slope_and_intercept_may_differ_between_slices(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "ct")
    import pydicom

    for path in paths:
        ds = pydicom.dcmread(path)
        if ds.ImagePositionPatient[2] == -300:
            ds.RescaleSlope, ds.RescaleIntercept = 2.5, -500
            ds.save_as(path)
    expected = stored() - 1024.0
    expected[0] = stored()[0] * 2.5 - 500
    assert np.array_equal(read_volume(tmp_path / "ct").voxels, expected)


def test_run_length_encoding_is_read(tmp_path: Path) -> None:
    import pydicom

    for path in write_series(tmp_path / "ct"):
        ds = pydicom.dcmread(path)
        ds.compress(RLELossless)
        ds.save_as(path)
    assert np.array_equal(read_volume(tmp_path / "ct").voxels, stored().astype(int) - 1024)


def test_compression_without_decoder_names_it(tmp_path: Path, monkeypatch) -> None:
    import pydicom
    from pydicom.encaps import encapsulate
    from pydicom.pixels.common import CoderBase

    for path in write_series(tmp_path / "ct"):
        ds = pydicom.dcmread(path)
        ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
        ds.PixelData = encapsulate([b"\x00" * 20])
        ds["PixelData"].is_undefined_length = True
        ds.save_as(path)
    monkeypatch.setattr(CoderBase, "is_available", property(lambda self: False))
    assert "compressed (JPEG 2000 Image Compression (Lossless Only)) and no decoder" in refusal(tmp_path / "ct")


def test_folder_with_several_series_lists_them(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "ct", prefix="a")
    write_series(
        tmp_path / "ct", np.array([(0.0, 0, k) for k in range(3)]), "b", SeriesNumber=5, SeriesDescription="Scout"
    )
    assert refusal(tmp_path / "ct") == (
        "The folder 'ct' holds 2 series: '3 Thorax 1.0 B30f' (CT, images: 8); '5 Scout' (CT, images: 3). "
        "Give one file of the wanted series instead of the folder."
    )
    assert read_volume(paths[0]).voxels.shape == (8, 5, 6)


def test_other_files_and_subfolders_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "README.txt").write_text("export")
    write_series(tmp_path / "study" / "series")
    assert read_volume(tmp_path / "study").voxels.shape == (8, 5, 6)


def test_missing_slice(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", np.array([(0.0, 0.0, 2.5 * k) for k in (0, 1, 2, 4, 5, 6)]))
    assert "5 mm apart at 5 mm along the scan, elsewhere 2.5 mm (1 missing there)" in refusal(tmp_path / "ct")


def test_uneven_slices(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", np.array([(0.0, 0.0, z) for z in (0, 2.5, 5, 7.5, 10.9, 13.4)]))
    assert "(unevenly spaced)" in refusal(tmp_path / "ct")


def test_rounded_positions_are_even_enough(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", np.array([(0.0, 0.0, round(1.25 * k / 3, 2)) for k in range(40)]))
    assert read_volume(tmp_path / "ct").spacing[2] == pytest.approx(1.25 / 3, abs=1e-3)


def test_duplicate_positions(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", np.array([(0.0, 0.0, 2.5 * (k // 2)) for k in range(8)]))
    assert "4 of 8 images lie at the same place as another one" in refusal(tmp_path / "ct")


def test_tilted_gantry_is_read_as_it_is_and_refused_by_the_check(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", np.array([(0.0, 0.5 * k, 2.5 * k) for k in range(8)]))
    volume = read_volume(tmp_path / "ct")
    assert np.allclose(volume.ijk_to_ras[:3, 2], (0, -0.5, 2.5))
    with pytest.raises(InputError, match="up to 11.3 degrees off.*tilted gantry"):
        check_ct(volume)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Modality": "MR"}, "these are MR images, not CT"),
        ({"NumberOfFrames": 4}, "multi-frame (enhanced) DICOM is not supported"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "the images are in color"),
        ({"ImagePositionPatient": None}, "have no ImagePositionPatient"),
        ({"PixelData": b"\x00" * 10}, "its pixels cannot be decoded"),
        ({"Rows": 60000, "Columns": 60000}, "its header promises 57.6 GB"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_images_that_make_no_ct_volume(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    write_series(tmp_path / "ct", **changes)
    assert message in refusal(tmp_path / "ct")


def test_mixed_orientations_in_one_series(tmp_path: Path) -> None:
    import pydicom

    paths = write_series(tmp_path / "ct")
    ds = pydicom.dcmread(paths[0])
    ds.ImageOrientationPatient = [0.0, 1, 0, 0, 0, -1]
    ds.save_as(paths[0])
    assert "2 different orientations" in refusal(tmp_path / "ct")


def test_mask_modality_accepts_any_series(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", Modality="MR")
    assert read_volume(tmp_path / "ct", "mask").modality == "mask"


def test_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    assert "holds no DICOM images" in refusal(tmp_path)


def test_report_file_is_not_an_image(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "ct")
    report = image(stored()[0], (0, 0, 0), uid_of("report"), Rows=None, Columns=None, PixelData=None, Modality="SR")
    report.save_as(tmp_path / "ct" / "report.dcm", enforce_file_format=True)
    assert read_volume(paths[0]).voxels.shape == (8, 5, 6)
    assert "DICOM file without an image" in refusal(tmp_path / "ct" / "report.dcm")


def test_rounded_orientations_and_pixel_sizes_are_one_volume(tmp_path: Path) -> None:
    for n, path in enumerate(write_series(tmp_path / "ct")):
        ds = pydicom.dcmread(path)
        ds.ImageOrientationPatient = [1 - 2e-7 * (n % 2), 4.4e-4 * (n % 3), 0, -4.4e-4, 1, 0]
        ds.PixelSpacing = [0.8 + 1e-5 * n, 0.7]
        ds.save_as(path)
    assert read_volume(tmp_path / "ct").voxels.shape == (8, 5, 6)


def test_two_spacings_are_named_as_such(tmp_path: Path) -> None:
    heights = [0, 4, 8, 12, 16, 23, 30, 37]
    write_series(tmp_path / "head", np.array([(-45.0, -45.0, z) for z in heights]))
    assert "4 mm apart up to 16 mm along the scan and 7 mm from there on: two spacings" in refusal(tmp_path / "head")


def test_exact_copies_are_left_out_and_other_images_at_one_place_are_not(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "ct")
    whole = read_volume(tmp_path / "ct")
    shutil.copy(paths[2], tmp_path / "ct" / "a copy.dcm")
    again = pydicom.dcmread(paths[5])
    again.compress(RLELossless, generate_instance_uid=False)  # the same image in other bytes
    again.save_as(tmp_path / "ct" / "packed.dcm")
    volume = read_volume(tmp_path / "ct")
    assert np.array_equal(volume.voxels, whole.voxels) and len(volume.source.files) == 8
    assert volume.notes == ("2 of 10 images are exact copies of others; they are left out.",)
    assert source_of(tmp_path / "ct") == volume.source
    other = pydicom.dcmread(paths[4])
    other.PixelData = bytes(reversed(other.PixelData))  # another phase, which an anonymizer gave the same UID
    other.save_as(tmp_path / "ct" / "phase.dcm")
    assert "lie at the same place" in refusal(tmp_path / "ct")


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_files_without_mark_are_read(tmp_path: Path, syntax: str) -> None:
    paths = write_series(tmp_path / "ct")
    whole = read_volume(tmp_path / "ct")
    for path in paths[:2]:
        ds = pydicom.dcmread(path)
        ds.file_meta.TransferSyntaxUID = syntax
        ds.save_as(path)
        content = path.read_bytes()
        length = int.from_bytes(content[140:144], "little")  # of group 2, which some programs leave out, too
        path.write_bytes(content[144 + length :])
    assert np.array_equal(read_volume(tmp_path / "ct").voxels, whole.voxels)


def test_files_that_cannot_be_read_are_counted_aloud(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "ct")
    by_place = sorted(paths, key=lambda path: float(pydicom.dcmread(path).ImagePositionPatient[2]))
    by_place[-1].write_bytes(b"")
    by_place[-2].write_bytes(by_place[-2].read_bytes()[132:160])
    (tmp_path / "ct" / "readme.txt").write_bytes(b"")
    volume = read_volume(tmp_path / "ct")
    assert volume.voxels.shape == (6, 5, 6)
    assert volume.notes[0].startswith("2 files beside the images are empty or cannot be read and are left out")
