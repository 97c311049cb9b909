"""Attacks on the readers of CTs and masks: NRRD, NIfTI and DICOM."""

from __future__ import annotations

import gzip
import random
from pathlib import Path
from typing import Any

import numpy as np

from MedDiffFMLib.imaging.io import read_volume, write_volume
from MedDiffFMLib.imaging.volume import Volume, check_ct, check_grid

from .mutations import changed_bytes
from .target import Files, Target


def small_ct() -> Volume:
    """Soft tissue in air, 9 x 8 x 7 voxels (i, j, k)."""
    voxels = np.full((7, 8, 9), -1000, np.int16)
    voxels[1:6, 2:7, 2:7] = 40
    voxels += np.random.default_rng(0).integers(-20, 20, voxels.shape, dtype=np.int16)
    matrix = np.diag([-1.5, -1.5, 2.0, 1.0])
    matrix[:3, 3] = 10, 20, -30
    return Volume(voxels, matrix)


class _File(Target):
    """One file, read as CT and as mask."""

    file = ""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.valid = self.examples(folder)
        self.contents = [content for files in self.valid for content in files.values()]

    def examples(self, folder: Path) -> list[Files]:
        """Valid inputs, each with its header in the first file."""
        raise NotImplementedError

    def make(self, rng: random.Random) -> Files:
        files = dict(rng.choice(self.valid))
        name = next(iter(files)) if rng.random() < 0.9 else rng.choice(list(files))
        return {**files, name: self.changed(files[name], rng)}

    def changed(self, content: bytes, rng: random.Random) -> bytes:
        if content[:2] == b"\x1f\x8b" and rng.random() < 0.8:  # what is inside of the compression
            return gzip.compress(changed_bytes(gzip.decompress(content), rng), 1)
        return changed_bytes(content, rng, self.contents)

    def read(self, folder: Path) -> None:
        (path,) = [path for path in folder.iterdir() if path.name.lower().startswith("in.")]
        volume = read_volume(path)
        check_ct(volume)
        check_grid(read_volume(path, modality="mask"))


class Nrrd(_File):
    """Attached and detached headers in every encoding."""

    name, weight = "nrrd", 5

    def examples(self, folder: Path) -> list[Files]:
        import nrrd

        ct = small_ct()
        write_volume(ct, folder / "own.nrrd", overwrite=True)
        header: dict[str, Any] = {
            "space": "left-posterior-superior",
            "space origin": [1.0, 2.0, 3.0],
            "kinds": ["domain"] * 3,
            "space directions": np.diag([1.5, 1.5, 2.0]),
            "space units": ["mm"] * 3,
            "comment": "x y",
        }
        made = [{"in.nrrd": (folder / "own.nrrd").read_bytes()}]
        for encoding in ("raw", "gzip", "bzip2", "text"):
            path = folder / f"{encoding}.nrrd"
            nrrd.write(str(path), ct.voxels, {**header, "encoding": encoding}, index_order="C")
            made.append({"in.nrrd": path.read_bytes()})
        nrrd.write(str(folder / "float.nrrd"), ct.voxels.astype(">f4"), {"encoding": "raw", "spacings": [1, 1, 1]})
        made.append({"in.nrrd": (folder / "float.nrrd").read_bytes()})
        detached = made[1]["in.nrrd"].partition(b"\n\n")
        for extra in (b"", b"\nline skip: 0\nbyte skip: 0", b"\nbyte skip: -1"):
            text = detached[0] + b"\ndata file: in.raw" + extra + b"\n"
            made.append({"in.nhdr": text, "in_data.raw": detached[2]})
            made.append({"in.nhdr": text.replace(b"in.raw", b"in_data.raw"), "in_data.raw": detached[2]})
        return made


class Nifti(_File):
    """NIfTI-1 and NIfTI-2, plain and compressed, both byte orders, with extensions and rescaling."""

    name, weight = "nifti", 4

    def examples(self, folder: Path) -> list[Files]:
        import nibabel

        ct = small_ct()
        made = []
        for suffix in (".nii", ".nii.gz"):
            write_volume(ct, folder / f"own{suffix}", overwrite=True)
            made.append({f"in{suffix}": (folder / f"own{suffix}").read_bytes()})
        image = nibabel.Nifti1Image(ct.voxels.T, ct.ijk_to_ras)
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"something"))
        image.header.set_slope_inter(2, -1024)
        wide = nibabel.Nifti2Image(ct.voxels.T, ct.ijk_to_ras)
        big = nibabel.Nifti1Image(ct.voxels.T, ct.ijk_to_ras, image.header.as_byteswapped(">"))
        for number, other in enumerate((image, wide, big)):
            for suffix in (".nii", ".nii.gz"):
                other.to_filename(folder / f"{number}{suffix}")
                made.append({f"in{suffix}": (folder / f"{number}{suffix}").read_bytes()})
        return made


class Dicom(Target):
    """A folder with a small series: raw, run-length encoded and deflated."""

    name, weight = "dicom", 3
    slices = 4

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from pydicom import dcmread
        from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

        from Testing.unit.imaging.test_dicom import write_series

        positions = np.array([(0.0, 0.0, 2.5 * k) for k in range(self.slices)])
        plain = write_series(folder / "plain", positions)
        rng = np.random.default_rng(2)
        for path in plain:  # air around soft tissue instead of noise, so that the series is a CT
            image = dcmread(path)
            pixels = np.full((5, 6), 24, np.uint16)
            pixels[1:4, 1:5] = rng.integers(1050, 1080, (3, 4))
            image.PixelData = pixels.tobytes()
            image.save_as(path)
        self.valid: list[Files] = [{path.name: path.read_bytes() for path in plain}]
        for name, syntax in (
            ("deflated", DeflatedExplicitVRLittleEndian),
            ("implicit", ImplicitVRLittleEndian),
            ("rle", RLELossless),
        ):
            files = {}
            for path in plain:
                image = dcmread(path)
                if name == "rle":
                    image.compress(syntax)
                else:
                    image.file_meta.TransferSyntaxUID = syntax
                (folder / name).mkdir(exist_ok=True)
                image.save_as(folder / name / path.name, implicit_vr=name == "implicit", little_endian=True)
                files[path.name] = (folder / name / path.name).read_bytes()
            self.valid.append(files)

    def make(self, rng: random.Random) -> Files:
        files = dict(rng.choice(self.valid))
        chosen = rng.sample(sorted(files), rng.choice((1, 1, 1, 2, self.slices)))
        seed = rng.random()  # the same change to several slices keeps them a series
        return {
            name: b"DICM".join(
                [content.partition(b"DICM")[0], changed_bytes(content.partition(b"DICM")[2], random.Random(seed), ())]
            )
            if name in chosen
            else content
            for name, content in files.items()
        }

    def read(self, folder: Path) -> None:
        check_ct(read_volume(folder))
