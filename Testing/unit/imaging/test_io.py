"""NRRD and NIfTI: exact round trips, foreign conventions, damaged files, nothing half-written."""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import nibabel
import nrrd
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from MedDiffFMLib.core.errors import InputError, OutputError
from MedDiffFMLib.imaging.io import read_volume, write_volume
from MedDiffFMLib.imaging.volume import Volume

SUFFIXES = (".nrrd", ".nii", ".nii.gz")
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def oblique() -> np.ndarray:
    cosine, sine = np.cos(0.3), np.sin(0.3)
    matrix = np.array([[cosine, -sine, 0, 12.3], [sine, cosine, 0, -456.7], [0, 0, -1, 89.01], [0, 0, 0, 1.0]])
    return matrix @ np.diag([0.7, 0.8, 2.5, 1.0])


def voxels(dtype: type = np.int16, shape: tuple[int, int, int] = (4, 5, 6)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("given_type", "low", "high", "mask", "stored"),
    [
        (np.int16, -1024, 3071, False, np.int16),
        (np.uint16, 0, 65535, False, np.int32),
        (np.int32, -100_000, 100_000, False, np.int32),
        (np.int64, -1024, 2**40, False, np.int64),
        (np.uint8, 0, 255, True, np.uint8),
        (np.int64, 0, 117, True, np.uint8),
        (np.uint16, 0, 1000, True, np.int16),
        (np.float32, 0, 117, True, np.uint8),
        (bool, 0, 1, True, np.uint8),
    ],
)
def test_integers_survive_exactly(tmp_path: Path, suffix, given_type, low, high, mask, stored) -> None:
    values = np.random.default_rng(0).integers(low, high + 1, (4, 5, 6))
    values.flat[:2] = low, high
    written = Volume(values.astype(given_type), oblique())
    write_volume(written, tmp_path / f"a{suffix}", mask=mask)
    read = read_volume(tmp_path / f"a{suffix}", "mask" if mask else "CT")
    assert read.voxels.dtype == stored and np.array_equal(read.voxels, values)
    assert read.same_geometry(written, 1e-4) and read.modality == ("mask" if mask else "CT") and read.notes == ()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_floats_survive_as_float32(tmp_path: Path, suffix: str) -> None:
    values = np.random.default_rng(0).normal(0, 1000, (4, 5, 6))
    write_volume(Volume(values, oblique()), tmp_path / f"a{suffix}")
    read = read_volume(tmp_path / f"a{suffix}").voxels
    assert read.dtype == np.float32 and np.array_equal(read, values.astype(np.float32))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=12, max_size=12))
def test_nrrd_keeps_every_digit_of_the_geometry(tmp_path_factory, numbers: list[float]) -> None:
    matrix = np.vstack([np.reshape(numbers, (3, 4)), [0, 0, 0, 1]])
    path = tmp_path_factory.mktemp("g") / "a.nrrd"
    write_volume(Volume(voxels(), matrix), path)
    assert np.array_equal(read_volume(path).ijk_to_ras, matrix)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_same_volume_gives_same_bytes(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        write_volume(Volume(voxels(), oblique()), tmp_path / (name + suffix))
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_synthetic_images_are_recognized_by_us_and_by_others(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    for synthetic in (True, False):
        write_volume(Volume(voxels(), oblique(), synthetic=synthetic), path, overwrite=True)
        assert read_volume(path).synthetic is synthetic
        text = nrrd.read_header(str(path)).get("synthetic", "") if suffix == ".nrrd" else _description(path)
        assert ("SYNTHETIC" in text and "in whole or part" in text) is synthetic


def _description(path: Path) -> str:
    return bytes(nibabel.load(path).header["descrip"].item()).decode()  # type: ignore[attr-defined]


def test_a_foreign_remark_does_not_make_an_image_synthetic(tmp_path: Path) -> None:
    nrrd.write(str(tmp_path / "a.nrrd"), voxels(), {"spacings": [1.0, 1.0, 1.0], "synthetic": "no"})
    assert not read_volume(tmp_path / "a.nrrd").synthetic


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_other_readers_agree(tmp_path: Path, suffix: str) -> None:
    """SimpleITK is an independent implementation of both formats."""
    itk = pytest.importorskip("SimpleITK")
    path = tmp_path / f"a{suffix}"
    volume = Volume(voxels(), oblique())
    write_volume(volume, path)
    image = itk.ReadImage(str(path))
    assert np.array_equal(itk.GetArrayFromImage(image), volume.voxels)
    for index in ((0, 0, 0), (5, 4, 3), (1, 2, 3)):
        lps = image.TransformIndexToPhysicalPoint(index)
        assert np.allclose(lps, (LPS_TO_RAS @ volume.ijk_to_ras @ (*index, 1))[:3], atol=1e-3)


@pytest.mark.parametrize(
    ("space", "to_ras"),
    [
        ("left-posterior-superior", (-1, -1, 1)),
        ("LPS", (-1, -1, 1)),
        ("right-anterior-superior", (1, 1, 1)),
        ("RAS", (1, 1, 1)),
        ("left-anterior-superior", (-1, 1, 1)),
    ],
)
def test_nrrd_spaces(tmp_path: Path, space: str, to_ras: tuple[int, ...]) -> None:
    directions = np.array([[0, -2.0, 0], [0.7, 0, 0], [0, 0, -3]])  # rows: i, j, k axes, permuted and flipped
    header = {"space": space, "space directions": directions, "space origin": np.array([10.0, 20, 30])}
    nrrd.write(str(tmp_path / "a.nrrd"), voxels(), header, index_order="C")
    volume = read_volume(tmp_path / "a.nrrd")
    assert np.array_equal(volume.voxels, voxels())
    assert np.array_equal(volume.ijk_to_ras[:3, :3], np.diag(to_ras) @ directions.T)
    assert np.array_equal(volume.ijk_to_ras[:3, 3], np.array(to_ras) * (10, 20, 30)) and volume.notes == ()


def test_nrrd_without_space_is_read_as_lps_and_says_so(tmp_path: Path) -> None:
    nrrd.write(str(tmp_path / "a.nrrd"), voxels(), {"spacings": [0.5, 0.6, 2.0]}, index_order="C")
    volume = read_volume(tmp_path / "a.nrrd")
    assert np.array_equal(volume.ijk_to_ras, np.diag([-0.5, -0.6, 2.0, 1.0]))
    assert "patient lies" in volume.notes[0] and "no origin" in volume.notes[1]


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "ascii"])
def test_detached_nrrd_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    header = {"encoding": encoding, "space": "RAS", "space directions": np.eye(3), "space origin": np.zeros(3)}
    nrrd.write(str(tmp_path / "a.nhdr"), voxels(), header, index_order="C")
    assert np.array_equal(read_volume(tmp_path / "a.nhdr").voxels, voxels())
    next(file for file in tmp_path.iterdir() if file.suffix != ".nhdr").unlink()
    with pytest.raises(InputError, match="which is missing. Put both files into one folder"):
        read_volume(tmp_path / "a.nhdr")


def test_nrrd_big_endian_and_other_units(tmp_path: Path) -> None:
    header = {"space": "RAS", "space directions": np.eye(3) / 10, "space origin": np.ones(3), "space units": ["cm"] * 3}
    nrrd.write(str(tmp_path / "a.nrrd"), voxels(">i2"), header, index_order="C")
    volume = read_volume(tmp_path / "a.nrrd")
    assert volume.spacing == pytest.approx((1, 1, 1)) and volume.ijk_to_ras[0, 3] == pytest.approx(10)
    assert volume.voxels.dtype == np.int16 and volume.voxels.dtype.isnative and np.array_equal(volume.voxels, voxels())


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_nrrd_that_promises_terabytes_is_refused_without_allocating(tmp_path: Path, encoding: str) -> None:
    text = (
        "NRRD0004\ntype: short\ndimension: 3\nspace: RAS\nsizes: 100000 100000 1000\nendian: little\n"
        f"space directions: (1,0,0) (0,1,0) (0,0,1)\nencoding: {encoding}\n\n"
    )
    (tmp_path / "a.nrrd").write_bytes(text.encode() + gzip.compress(bytes(5000)))
    with pytest.raises(InputError, match="promises 20 TB"):
        read_volume(tmp_path / "a.nrrd")


def test_nifti_that_promises_terabytes_is_refused_without_allocating(tmp_path: Path) -> None:
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((30000, 30000, 30000))
    header["magic"] = b"n+1"
    header["vox_offset"] = 352
    for name, compress in (("a.nii", bytes), ("a.nii.gz", gzip.compress)):
        (tmp_path / name).write_bytes(compress(header.binaryblock + bytes(5000)))
        with pytest.raises(InputError, match="promises 54 TB"):
            read_volume(tmp_path / name)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("keep", [0.02, 0.5, 0.97])
def test_every_truncation_is_refused(tmp_path: Path, suffix: str, keep: float) -> None:
    path = tmp_path / f"a{suffix}"
    write_volume(Volume(np.random.default_rng(0).integers(-1000, 1000, (20, 20, 20)), oblique()), path)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(InputError, match="damaged|not a readable"):
        read_volume(path)


@pytest.mark.parametrize("suffix", [".nrrd", ".nii.gz"])
def test_flipped_bits_in_compressed_data_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_volume(Volume(np.random.default_rng(0).integers(-1000, 1000, (20, 20, 20)), oblique()), path)
    data = bytearray(path.read_bytes())
    for position in range(len(data) // 2, len(data) // 2 + 50):
        data[position] ^= 0x5A
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        read_volume(path)


@pytest.mark.parametrize("name", ["a.nrrd", "a.nii", "a.nii.gz", "a.dcm", "a.mgz", "a"])
@pytest.mark.parametrize("content", [b"", b"\x00" * 1000, b"NRRD0004\n", b"not an image at all" * 100])
def test_nonsense_is_refused_with_a_remedy(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_volume(tmp_path / name)
    assert name in caught.value.cause and caught.value.remedy


@pytest.mark.parametrize(
    ("slope", "inter", "expected_type"), [(1, -1024, np.int16), (1, 40_000, np.int32), (0.5, -1000, np.float32)]
)
def test_nifti_slope_and_intercept(tmp_path: Path, slope: float, inter: float, expected_type: type) -> None:
    image = nibabel.Nifti1Image(voxels().T, np.eye(4))
    image.header.set_slope_inter(slope, inter)
    image.to_filename(tmp_path / "a.nii.gz")
    data = bytearray(gzip.decompress((tmp_path / "a.nii.gz").read_bytes()))
    data[352:] = voxels().tobytes()  # nibabel rescales while writing: put the plain numbers back
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(bytes(data)))
    read = read_volume(tmp_path / "a.nii.gz").voxels
    assert read.dtype == expected_type and np.array_equal(read, voxels(np.int32) * slope + inter)


def test_nifti_with_length_one_time_axis_is_a_volume(tmp_path: Path) -> None:
    nibabel.Nifti1Image(voxels().T[..., None], oblique()).to_filename(tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    assert np.array_equal(volume.voxels, voxels()) and np.allclose(volume.ijk_to_ras, oblique(), atol=1e-4)


def test_nifti_without_orientation_says_so(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(voxels().T, None)
    image.header.set_zooms((0.5, 0.6, 2))
    image.to_filename(tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    assert volume.spacing == pytest.approx((0.5, 0.6, 2)) and "patient lies" in volume.notes[0]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_overwriting_needs_permission_and_failure_keeps_the_old_file(tmp_path: Path, monkeypatch, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_volume(Volume(voxels(), oblique()), path)
    before = path.read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        write_volume(Volume(voxels() * 2, oblique()), path)

    def full(*_) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OutputError, match="disk is full"):
            write_volume(Volume(voxels() * 2, oblique()), path, overwrite=True)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    write_volume(Volume(voxels() * 2, oblique()), path, overwrite=True)
    assert np.array_equal(read_volume(path).voxels, voxels() * 2)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.skipif(sys.platform == "win32", reason="resource limits are POSIX")
def test_file_system_that_stops_midway_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    """The operating system itself refuses after 20 kB."""
    program = (
        "import resource, sys, numpy as np\n"
        "from MedDiffFMLib.imaging.io import write_volume; from MedDiffFMLib.imaging.volume import Volume\n"
        "from MedDiffFMLib.core.errors import OutputError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "values = np.random.default_rng(0).integers(-1000, 1000, (40, 40, 40))\n"
        "try:\n    write_volume(Volume(values, np.eye(4)), sys.argv[1])\n"
        "except OutputError as error:\n    print(error)\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / f"a{suffix}")], capture_output=True, text=True, check=True
    ).stdout
    assert "could not be written" in output and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_full_disk_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    """A real file system of 64 kB, where the tests may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting needs administrator rights")
    try:
        values = np.random.default_rng(0).integers(-1000, 1000, (60, 60, 60))
        with pytest.raises(OutputError, match="The disk is full"):
            write_volume(Volume(values, oblique()), disk / f"a{suffix}")
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_missing_parent_folders_are_made(tmp_path: Path) -> None:
    write_volume(Volume(voxels(), oblique()), tmp_path / "new" / "folder" / "a.nrrd")
    assert np.array_equal(read_volume(tmp_path / "new" / "folder" / "a.nrrd").voxels, voxels())


def test_unknown_suffix_and_folder_as_output(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no suffix that can be written"):
        write_volume(Volume(voxels(), oblique()), tmp_path / "a.mgz")
    (tmp_path / "b.nrrd").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        write_volume(Volume(voxels(), oblique()), tmp_path / "b.nrrd", overwrite=True)


def test_fractional_mask_is_a_programming_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="whole numbers"):
        write_volume(Volume(np.full((4, 4, 4), 0.5), np.eye(4)), tmp_path / "a.nrrd", mask=True)


def _contradicting(path: Path, sform: int, qform: int, sizes: tuple[float, ...] = (6, 6, 8), step: float = 6.0) -> Path:
    """A NIfTI whose sform lies 23 mm above its qform, with voxels of ``step`` mm along i in the sform."""
    image = nibabel.Nifti1Image(voxels().T, None)
    matrix = np.diag([6.0, 6.0, 8.0, 1.0])
    image.header.set_qform(matrix, code=qform)
    matrix[0, 0], matrix[2, 3] = step, 23
    image.header.set_sform(matrix, code=sform)
    image.header.set_xyzt_units("mm")
    image.to_filename(path)
    content = bytearray(path.read_bytes())
    content[80:92] = struct.pack("<3f", *sizes)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("codes", "height", "words"),
    [((2, 1), 0, "up to 23 mm apart; its qform is used"), ((1, 1), 23, ""), ((4, 0), 23, ""), ((0, 2), 0, ""),
     ((0, 0), 0, "does not say how the patient lies")],
)  # fmt: skip
def test_nifti_lies_where_slicer_shows_it(tmp_path: Path, codes: tuple[int, int], height: float, words: str) -> None:
    volume = read_volume(_contradicting(tmp_path / "a.nii", *codes))
    assert volume.ijk_to_ras[2, 3] == height and words in " ".join(volume.notes) and bool(words) == bool(volume.notes)


def test_nifti_that_contradicts_itself_about_sizes(tmp_path: Path) -> None:
    volume = read_volume(_contradicting(tmp_path / "a.nii", 1, 0, step=1.0))
    assert volume.spacing == (6, 6, 8)
    assert "two sizes, 6 x 6 x 8 mm (pixdim) and 1 x 6 x 8 mm (sform)" in volume.notes[0]
    for sizes in ((0.0, 6, 8), (6, float("nan"), 8), (6, 6, -8)):
        with pytest.raises(InputError, match="does not give the size of its voxels"):
            read_volume(_contradicting(tmp_path / "a.nii", 0, 1, sizes))
        assert read_volume(_contradicting(tmp_path / "a.nii", 1, 1, sizes)).spacing == (6, 6, 8)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_whose_voxels_begin_at_0_has_them_behind_the_header(tmp_path: Path, suffix: str) -> None:
    for offset in (0.0, 200.0):
        nibabel.Nifti1Image(voxels().T, np.eye(4)).to_filename(tmp_path / "a.nii")
        content = bytearray((tmp_path / "a.nii").read_bytes())
        content[108:112] = struct.pack("<f", offset)
        packed = gzip.compress(content) if suffix == ".nii.gz" else bytes(content)
        (tmp_path / f"a{suffix}").write_bytes(packed)
        if offset == 0:
            assert np.array_equal(read_volume(tmp_path / f"a{suffix}").voxels, voxels())
        else:
            with pytest.raises(InputError, match="makes no sense"):
                read_volume(tmp_path / f"a{suffix}")


def test_what_nrrd_headers_leave_open_is_said_in_words(tmp_path: Path) -> None:
    plain = ["NRRD0004", "type: short", "dimension: 3", "sizes: 6 5 4", "endian: little", "spacings: 1 1 1"]
    for lines, words in (
        (["NRRD0004", "type: short"], "has no dimension and no sizes"),
        ([*plain, "encoding: hex", ""], "encoding 'hex', which is not supported"),
        ([*plain, "encoding: raw", "data file: LIST", "s0.raw", "s1.raw"], "spreads its voxels over several files"),
    ):
        (tmp_path / "a.nhdr").write_text("\n".join(lines) + "\n")
        with pytest.raises(InputError, match=words):
            read_volume(tmp_path / "a.nhdr")
    members = [gzip.compress(part) for part in (voxels().tobytes()[:100], voxels().tobytes()[100:])]
    header = "\n".join([*plain, "encoding: gzip", "", ""]).encode()
    (tmp_path / "a.nrrd").write_bytes(header + b"".join(members))
    assert np.array_equal(read_volume(tmp_path / "a.nrrd").voxels, voxels())
