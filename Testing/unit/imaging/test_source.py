"""Source of a volume: exactly the files that were read, in their order, with the hashes of their bytes."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import nrrd
import numpy as np
import pytest

from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.imaging.io import files_of, read_unchanged, read_volume, source_of, write_volume
from MedDiffFMLib.imaging.source import Reading, Source
from MedDiffFMLib.imaging.volume import Volume
from Testing.unit.imaging.test_dicom import write_series


def voxels() -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 1000, (8, 5, 6)).astype(np.int16)


def _single(suffix: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        write_volume(Volume(voxels(), np.eye(4)), folder / f"a{suffix}")
        return folder / f"a{suffix}"

    return make


def _detached(folder: Path) -> Path:
    (folder / "sub").mkdir()
    lines = ["NRRD0004", "type: short", "dimension: 3", "sizes: 6 5 8", "endian: little", "encoding: raw",
             "space: left-posterior-superior", "space directions: (1,0,0) (0,1,0) (0,0,1)", "space origin: (0,0,0)",
             "data file: sub/the voxels.raw "]  # fmt: skip
    (folder / "a.nhdr").write_text("\n".join(lines) + "\n")
    (folder / "sub" / "the voxels.raw").write_bytes(voxels().tobytes())
    return folder / "a.nhdr"


def _detached_metaimage(folder: Path) -> Path:
    lines = ["ObjectType = Image", "NDims = 3", "BinaryData = True", "DimSize = 6 5 8", "ElementType = MET_SHORT",
             "ElementSpacing = 1 1 1", "ElementDataFile = the voxels.raw"]  # fmt: skip
    (folder / "a.mhd").write_text("\n".join(lines) + "\n")
    (folder / "the voxels.raw").write_bytes(voxels().tobytes())
    return folder / "a.mhd"


def _series(folder: Path) -> Path:
    write_series(folder / "series")
    return folder / "series"


def _nested(folder: Path) -> Path:
    (folder / "patient" / "study").mkdir(parents=True)
    write_series(folder / "patient" / "study" / "series")
    return folder / "patient"


def _one_of_series(folder: Path) -> Path:
    return write_series(folder / "series")[3]


def _archive(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        for file in write_series(folder / "series"):
            archive.write(file, file.name)
    return folder / "a.zip"


KINDS = {"nrrd": _single(".nrrd"), "nii": _single(".nii"), "nii.gz": _single(".nii.gz"), "mha": _single(".mha"),
         "nhdr": _detached, "mhd": _detached_metaimage, "series": _series, "nested": _nested, "zip": _archive,
         "one file of a series": _one_of_series}  # fmt: skip


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_source_names_what_was_read_and_nothing_else(make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path)
    source, files = read_volume(path).source, files_of(path)
    base = path if path.is_dir() else path.parent
    assert source == source_of(path)
    assert source.files == tuple(
        (f.relative_to(base).as_posix(), hashlib.sha256(f.read_bytes()).hexdigest()) for f in files
    )
    beside = files[-1].parent / ".DS_Store"
    beside.write_bytes(b"no image")
    (files[-1].parent / "thumbs.txt").write_text("no image")
    assert source_of(path) == read_volume(path).source == source
    shutil.move(tmp_path, tmp_path.with_name(f"{tmp_path.name}-moved"))  # names are relative
    moved = tmp_path.with_name(f"{tmp_path.name}-moved") / path.relative_to(tmp_path)
    assert source_of(moved) == source
    changed = files_of(moved)[-1]
    content = bytearray(changed.read_bytes())
    content[-20] ^= 1
    changed.write_bytes(content)
    assert source_of(moved).sha256 != source.sha256


def test_series_is_hashed_in_the_order_of_its_slices_and_one_file_as_sha256sum_does(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "ct")
    order = [paths[list(np.random.default_rng(1).permutation(8)).index(k)] for k in range(8)]
    assert files_of(tmp_path / "ct") == order
    lines = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in order)
    assert source_of(paths[0]).sha256 == source_of(tmp_path / "ct").sha256 == hashlib.sha256(lines.encode()).hexdigest()
    nrrd.write(str(tmp_path / "a.nrrd"), voxels(), {"spacings": [1, 1, 1]})
    assert source_of(tmp_path / "a.nrrd").sha256 == hashlib.sha256((tmp_path / "a.nrrd").read_bytes()).hexdigest()


def test_a_hash_of_no_file_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing was read"):
        Reading(tmp_path).source()
    with pytest.raises(ValueError, match="nothing was read"):
        Source(())
    (tmp_path / "readme.txt").write_text("no image")
    with pytest.raises(InputError, match="holds no DICOM images"):
        source_of(tmp_path)
    assert read_volume(_single(".nrrd")(tmp_path)).with_voxels(voxels() + 1).source is None


def test_what_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _single(".nrrd")(tmp_path)
    seen = source_of(path).sha256
    reading = Reading(path)
    with pytest.raises(InputError, match="changed while it was read"), reading.open(path), path.open("ab") as other:
        other.write(b"more")
    with pytest.raises(InputError, match="changed while it was read"):
        read_unchanged(path, seen)
