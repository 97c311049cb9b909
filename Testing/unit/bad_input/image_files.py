"""Files of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from MedDiffFMLib.imaging.io import read_volume, write_volume
from Testing.unit.phantoms import body

from .rows import case


def _nrrd(path: Path, voxels: np.ndarray, **header: object) -> Path:
    """A NRRD of any dimension or kind, as other programs write it."""
    import nrrd

    nrrd.write(str(path), voxels, header, index_order="C")
    return path


@case("missing file", "There is no file or folder '{folder}/thorax.nrrd'. Check the path.")
def _missing(folder: Path, _: pytest.MonkeyPatch) -> None:
    read_volume(folder / "thorax.nrrd")


@case(
    "truncated NRRD",
    "'thorax.nrrd' is incomplete or damaged: its voxels do not fill 60 x 60 x 40. Copy or export it again.",
)
def _truncated(folder: Path, _: pytest.MonkeyPatch) -> None:
    path = folder / "thorax.nrrd"
    write_volume(body(), path)
    path.write_bytes(path.read_bytes()[:-5000])
    read_volume(path)


@case(
    "header that promises more than the file holds",
    "'thorax.nrrd' is incomplete or damaged: its header promises 16 TB, the file holds 86.4 kB. "
    "Copy or export it again.",
)
def _huge(folder: Path, _: pytest.MonkeyPatch) -> None:
    path = _nrrd(folder / "thorax.nrrd", body((30, 30, 48)).voxels, encoding="raw", spacings=[1.0, 1.0, 1.0])
    path.write_bytes(path.read_bytes().replace(b"sizes: 48 30 30", b"sizes: 20000 20000 20000"))
    read_volume(path)


@case(
    "wrong magic",
    "'thorax.nrrd' is not a readable NRRD file: it does not start with 'NRRD'. "
    "Check that the suffix fits the content, or export it again.",
)
def _magic(folder: Path, _: pytest.MonkeyPatch) -> None:
    (folder / "thorax.nrrd").write_bytes(b"PK\x03\x04 this is a zip archive")
    read_volume(folder / "thorax.nrrd")


@case(
    "format that cannot be read",
    "'thorax.mgz' is of a format that cannot be read. "
    "Give a .nrrd, .nhdr, .nii, .nii.gz, .mha or .mhd file, a DICOM folder or a .zip of one, or one file of a DICOM "
    "series.",
)
def _format(folder: Path, _: pytest.MonkeyPatch) -> None:
    (folder / "thorax.mgz").write_bytes(bytes(400))
    read_volume(folder / "thorax.mgz")


@case("2-D image", "'slice.nrrd' is a 2-D image (60 x 60), not a 3-D volume. Load the whole series.")
def _flat(folder: Path, _: pytest.MonkeyPatch) -> None:
    read_volume(_nrrd(folder / "slice.nrrd", body().voxels[20]))


@case(
    "4-D image",
    "'phases.nrrd' is a 4-D image (60 x 60 x 40 x 2): a time series or several channels. "
    "Save the one 3-D volume that you want and use that.",
)
def _series(folder: Path, _: pytest.MonkeyPatch) -> None:
    read_volume(_nrrd(folder / "phases.nrrd", np.stack([body().voxels] * 2)))


@case(
    "RGB image",
    "'photo.nrrd' holds colors or vectors (3 x 60 x 60 x 40), not one number per voxel. Use a scalar CT volume.",
)
def _rgb(folder: Path, _: pytest.MonkeyPatch) -> None:
    voxels = np.stack([body().voxels] * 3, axis=-1).astype(np.uint8)
    read_volume(_nrrd(folder / "photo.nrrd", voxels, kinds=["RGB-color", "domain", "domain", "domain"]))
