"""Files of strangers that went wrong once: what a user sees of each, from the command line.

Each row makes its files from scratch; the value that must come out stands in it. What else was told of these files is
tested where it belongs: geometry in ``imaging/test_cross_reader.py``, sources in ``imaging/test_source.py``, labels in
``imaging/test_segments.py``, lists and folders in ``runner/test_case_search.py``.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from MedDiffFMLib.cli import main
from MedDiffFMLib.imaging.io import read_volume, write_volume
from MedDiffFMLib.imaging.volume import Volume
from Testing.unit.imaging.test_dicom import image, uid_of

MATRIX = np.diag([-6.0, -6.0, 8.0, 1.0])
HEADER = [
    "NRRD0004", "type: short", "dimension: 3", "sizes: 16 16 8", "endian: little", "space: left-posterior-superior",
    "space directions: (6,0,0) (0,6,0) (0,0,8)", "space origin: (0,0,0)",
]  # fmt: skip


def voxels(seed: int = 0) -> np.ndarray:
    """A little body in air, (k, j, i)."""
    noise = np.random.default_rng(seed).normal(0, 10, (8, 16, 16))
    inside = np.hypot(*np.meshgrid(np.arange(16) - 7.5, np.arange(16) - 7.5)) < 6
    return np.rint(np.where(inside, 40, -1000) + noise - 120 * (np.arange(16) % 5 == 0)).astype(np.int16)


def series(folder: Path, seed: int = 0, heights: list[float] | None = None) -> list[Path]:
    folder.mkdir(parents=True)
    paths = []
    for k, pixels in enumerate((voxels(seed) + 1024).clip(0).astype(np.uint16)):
        place = (-45.0, -45.0, heights[k] if heights else 8.0 * k)
        made = image(pixels, place, uid_of("stranger", seed), PixelSpacing=[6, 6], SOPInstanceUID=uid_of(seed, k))
        paths.append(folder / f"IM{k:04d}.dcm")
        made.save_as(paths[-1], enforce_file_format=True)
    return paths


def info(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict]:
    code = main(["info", str(path), "--json"])
    return code, json.loads(capsys.readouterr().out)


def _jittered(folder: Path) -> Path:
    for n, path in enumerate(series(folder / "s")):
        ds = pydicom.dcmread(path)
        ds.ImageOrientationPatient = [1, 2e-7 * (n % 2) + 5e-4, 0, 0, 1, 0]
        ds.save_as(path)
    return folder / "s"


def _unmarked(folder: Path) -> Path:
    for path in series(folder / "s")[-2:]:
        path.write_bytes(path.read_bytes()[132:])
    return folder / "s"


def _copied(folder: Path) -> Path:
    shutil.copy(series(folder / "s")[2], folder / "s" / "copy.dcm")
    return folder / "s"


def _head(folder: Path) -> Path:
    series(folder / "s", heights=[0, 4, 8, 12, 16, 23, 30, 37])
    return folder / "s"


def _nifti(change: Callable[[bytearray], None]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        made = nibabel.Nifti1Image(voxels().T, None)
        made.header.set_sform(MATRIX, code=2)
        made.header.set_qform(MATRIX, code=1)
        made.header.set_xyzt_units("mm")
        made.to_filename(folder / "a.nii")
        content = bytearray((folder / "a.nii").read_bytes())
        change(content)
        (folder / "a.nii").write_bytes(content)
        return folder / "a.nii"

    return make


def _put(content: bytearray, place: int, *numbers: float, kind: str = "<f4") -> None:
    values = np.array(numbers, kind).tobytes()
    content[place : place + len(values)] = values


def _unit_sform(content: bytearray) -> None:
    _put(content, 252, 0, 1, kind="<i2")
    _put(content, 280, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)


def _no_size(content: bytearray) -> None:
    _put(content, 254, 0, kind="<i2")
    _put(content, 84, 0)


def _nrrd(*lines: str, data: bytes = b"") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "a.nhdr").write_bytes("\n".join(lines).encode() + b"\n" + data)
        return folder / "a.nhdr"

    return make


MEMBERS = b"\n" + b"".join(gzip.compress(part) for part in (voxels().tobytes()[:999], voxels().tobytes()[999:]))
SIZE = [16, 16, 8]
ROWS: dict[str, tuple[Callable[[Path], Path], str | None]] = {
    "orientations that jitter": (_jittered, None),
    "slices without the DICOM mark": (_unmarked, None),
    "a copy of a slice": (_copied, "1 of 9 images are exact copies of others"),
    "sform 23 mm above the qform": (_nifti(lambda c: _put(c, 324, 23)), "up to 23 mm apart; its qform is used"),
    "unit sform, voxels of 6 mm": (_nifti(_unit_sform), "6 x 6 x 8 mm (pixdim) and 1 x 1 x 1 mm (sform)"),
    "voxels from byte 0": (_nifti(lambda c: _put(c, 108, 0)), None),
    "gzip of two members": (_nrrd(*HEADER, "encoding: gzip", data=MEMBERS), None),
}
REFUSED = {
    "4 mm, then 7 mm": (_head, "two spacings in one series, as in head scans"),
    "no voxel size": (_nifti(_no_size), "does not give the size of its voxels"),
    "a list of files": (_nrrd(*HEADER, "encoding: raw", "data file: LIST", "s0.raw"), "over several files"),
    "hexadecimal": (_nrrd(*HEADER, "encoding: hex", data=b"\nfc00"), "encoding 'hex', which is not supported"),
    "a header cut off": (_nrrd("NRRD0004", "type: short"), "no dimension and no sizes"),
    "escape codes": (_nrrd("NRRD\x1b]0;TITLE\x07\x1b[31mRED"), "\\x1b]0;TITLE\\x07"),
}


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS)
def test_file_is_read_whole_with_what_must_be_said(
    row: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, words = ROWS[row]
    path = make(tmp_path)
    code, facts = info(path, capsys)
    assert code == 0 and facts["shape_ijk"] == SIZE and facts["spacing_mm"] == pytest.approx([6, 6, 8], abs=1e-5)
    wanted = voxels().clip(-1024) if path.is_dir() else voxels()
    assert np.array_equal(read_volume(path).voxels, wanted)
    said = " ".join(text for text in facts["warnings"] if "thick" not in text and "measures" not in text)
    assert (words in said) if words else said == ""


@pytest.mark.slow
@pytest.mark.parametrize("row", REFUSED)
def test_file_is_refused_in_words(row: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, words = REFUSED[row]
    code, answer = info(make(tmp_path), capsys)
    assert code == 2 and words in answer["cause"] and answer["remedy"] and "\x1b" not in answer["cause"]
    for python in ("invalid literal", "unpack", "Error", "object", "list index"):
        assert python not in answer["cause"]


def batch(cases: Path, out: Path, model: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, str]:
    command = ["denoise", "--batch", str(cases), "-o", str(out), "--noise", "12", "--model", str(model)]
    main([*command, "--device", "cpu", "--threads", "1", "--json", *options])
    return {row["name"]: row["status"] for row in json.loads(capsys.readouterr().out)["cases"]}


@pytest.mark.slow
def test_nested_series_are_told_apart(
    tmp_path: Path, tiny_model_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two patients in folders below folders: every way of finding out what was done before."""
    cases, out = tmp_path / "nested", tmp_path / "out"
    for seed, name in enumerate(("p1", "p2")):
        series(cases / name / "PAT" / "ST" / "SE", seed)
    hashes = [info(cases / name, capsys)[1]["sha256"] for name in ("p1", "p2")]
    assert hashes[0] != hashes[1] and len(hashes[0]) == 64
    rows = {"training": [{"image": "nested/p1"}], "validation": [{"image": "nested/p2"}]}
    (tmp_path / "list.json").write_text(json.dumps(rows))
    assert main(["prepare", str(tmp_path / "list.json"), "--output", str(tmp_path / "cache"), "--quiet"]) == 0
    dataset = ["dataset", "create", str(tmp_path / "ds"), "--datalist", str(tmp_path / "list.json"), "--quiet"]
    assert main(dataset) == main(dataset) == 0
    capsys.readouterr()
    assert batch(cases, out, tiny_model_file, capsys) == {"p1": "done", "p2": "done"}
    (cases / "p1" / "PAT" / "ST" / "SE" / ".DS_Store").touch()
    assert batch(cases, out, tiny_model_file, capsys) == {"p1": "skipped", "p2": "skipped"}
    assert main(["repeat", str(out / "p1_denoise.json"), "--quiet"]) == 0
    shutil.rmtree(cases / "p1" / "PAT")
    shutil.copytree(cases / "p2" / "PAT", cases / "p1" / "PAT")
    capsys.readouterr()
    assert batch(cases, out, tiny_model_file, capsys) == {"p1": "failed", "p2": "skipped"}
    assert main(["repeat", str(out / "p1_denoise.json"), "--quiet"]) == 2
    assert "was changed since the report" in capsys.readouterr().err
    assert main(dataset[:-1]) == 2
    assert "was added from other files" in capsys.readouterr().err
    assert batch(cases, out, tiny_model_file, capsys, "--overwrite") == {"p1": "done", "p2": "skipped"}


def test_voxels_in_a_file_with_blanks_behind_its_name_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _nrrd(*HEADER, "encoding: raw", "data file: voxels.raw ")(tmp_path)
    (tmp_path / "voxels.raw").write_bytes(voxels().tobytes())
    before = info(path, capsys)[1]["sha256"]
    (tmp_path / "voxels.raw").write_bytes((voxels() + 1).tobytes())
    assert info(path, capsys)[1]["sha256"] != before


@pytest.mark.slow
def test_a_mask_a_micrometer_off_is_taken(tmp_path: Path, tiny_model_file: Path) -> None:
    matrix = np.diag([-0.7, -0.7, 1.0, 1.0])
    write_volume(Volume(voxels(), matrix), tmp_path / "ct.nrrd")
    matrix[0, 3] = 0.000866
    mask = np.zeros((8, 16, 16), np.uint8)
    mask[3:5, 7:9, 7:9] = 1
    write_volume(Volume(mask, matrix, "mask"), tmp_path / "m.nrrd")
    command = ["inpaint", str(tmp_path / "ct.nrrd"), "--mask", str(tmp_path / "m.nrrd"), "-o", str(tmp_path / "o")]
    assert main([*command, "--steps", "1", "--model", str(tiny_model_file), "--device", "cpu", "--quiet"]) == 0
