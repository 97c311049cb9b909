"""Variants of stored CTs, read here and by SimpleITK (ITK and GDCM, the readers of 3D Slicer): same place, same HU.

Meant differences: NIfTI-2, bzip2 in NRRD, and DICOM files without preamble and mark are read here, not by ITK. A NIfTI
that names no voxel size is refused here, where ITK takes 1 mm. A sheared matrix is refused by ITK when it is read, and
here by the checks of every task.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel
import nrrd
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import get_encoder
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from MedDiffFMLib.imaging.io import read_volume, write_volume
from MedDiffFMLib.imaging.volume import Volume
from Testing.unit.imaging.test_dicom import image, uid_of

sitk = pytest.importorskip("SimpleITK")

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SHAPE = (5, 12, 16)
"""(k, j, i)."""
SPACING = (0.703125, 0.8, 2.5)
AXES = [
    (order, flips)
    for order in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]  # fmt: skip
ANGLES = ((0.0, 0.0, 0.0), (20.0, 0.0, 0.0), (7.0, -12.0, 33.0))
NIFTI_TYPES = ("int16", "uint16", "int32", "float32", "uint8")
SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless, JPEGLSLossless)


def voxels(kind: str = "int16") -> np.ndarray:
    low, high = (-1024, 3072) if np.dtype(kind).kind != "u" else (0, 250)
    return np.random.default_rng(0).integers(low, high, SHAPE).astype(kind)


def matrix(order: tuple[int, ...], flips: tuple[int, ...], angles: tuple[float, ...]) -> np.ndarray:
    """ijk_to_ras with permuted, flipped and turned axes."""
    turned = np.eye(3)
    for axis, angle in enumerate(np.radians(angles)):
        one, two = (axis + 1) % 3, (axis + 2) % 3
        step = np.eye(3)
        step[[one, one, two, two], [one, two, one, two]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        turned = step @ turned
    result = np.eye(4)
    result[:3, :3] = turned @ (np.eye(3)[:, list(order)] * flips) * SPACING
    result[:3, 3] = 12.5, -80.25, 301.75
    return result


def corners(ijk_to_ras: np.ndarray) -> np.ndarray:
    k, j, i = SHAPE
    return (ijk_to_ras @ np.array([[a, b, c, 1] for a in (0, i - 1) for b in (0, j - 1) for c in (0, k - 1)]).T)[:3]


def of_itk(given: Path | list[Path]) -> Volume:
    """What SimpleITK reads of a file, or of the sorted files of a series."""
    read = sitk.ReadImage([str(path) for path in given] if isinstance(given, list) else str(given))
    to_lps = np.eye(4)
    to_lps[:3, :3] = np.reshape(read.GetDirection(), (3, 3)) * read.GetSpacing()
    to_lps[:3, 3] = read.GetOrigin()
    return Volume(sitk.GetArrayFromImage(read), LPS @ to_lps)


def refuse_difference(name: str, ours: Volume, theirs: Volume) -> None:
    apart = np.abs(corners(ours.ijk_to_ras) - corners(theirs.ijk_to_ras)).max()
    assert apart < 1e-3, f"{name}: {apart:.4g} mm apart"
    assert ours.voxels.shape == theirs.voxels.shape, name
    difference = np.abs(ours.voxels.astype(float) - theirs.voxels.astype(float)).max()
    assert difference == 0 if ours.voxels.dtype.kind in "iu" else difference < 1e-3, f"{name}: {difference} HU"


def _nrrd(path: Path, number: int, ijk_to_ras: np.ndarray, kind: str) -> None:
    encoding = ("raw", "gzip", "ascii")[number % 3]
    space, turn = (("left-posterior-superior", LPS), ("right-anterior-superior", np.eye(4)),
                   ("left-anterior-superior", np.diag([-1.0, 1, 1, 1])))[number // 3 % 3]  # fmt: skip
    stored = turn @ ijk_to_ras
    header = {"space": space, "space directions": stored[:3, :3].T, "space origin": stored[:3, 3],
              "encoding": encoding, "endian": ("little", "big")[number % 2],
              "kinds": ["domain"] * 3}  # fmt: skip
    array = voxels(kind)
    if number % 2 and kind != "uint8":
        array = array.astype(array.dtype.newbyteorder(">"))
    nrrd.write(str(path), array, header, index_order="C")


def _nifti(path: Path, number: int, ijk_to_ras: np.ndarray, kind: str) -> None:
    made = nibabel.Nifti1Image(voxels(kind).T, None)
    other = ijk_to_ras.copy()
    other[:3, 3] += (0.0, 23.0, 0.0)[number % 3]
    sform, qform = ((1, 0), (0, 1), (1, 1), (2, 1), (1, 2), (4, 3), (2, 0), (0, 0))[number % 8]
    made.header.set_qform(ijk_to_ras, code=qform)
    made.header.set_sform(other if sform else None, code=sform)
    made.header["pixdim"][1:4] = SPACING
    made.header.set_slope_inter(*((1, 0), (1, -1024), (2, -1000.5), (None, None))[number % 4])
    made.header.set_xyzt_units("mm")
    made.to_filename(path)


FILES = {"nrrd": (".nrrd", _nrrd), "nifti": (".nii", _nifti), "nifti, compressed": (".nii.gz", _nifti)}


@pytest.mark.slow
@pytest.mark.parametrize("format", FILES)
def test_files_are_read_as_slicer_reads_them(format: str, tmp_path: Path) -> None:
    suffix, write = FILES[format]
    for number, ((order, flips), angles) in enumerate(itertools.product(AXES, ANGLES)):
        kind = NIFTI_TYPES[number % len(NIFTI_TYPES)]
        path = tmp_path / f"{number}{suffix}"
        write(path, number, matrix(order, flips, angles), kind)
        refuse_difference(f"{number} {kind}", read_volume(path), of_itk(path))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".nrrd", ".nii.gz", ".mha"])
def test_files_of_ours_are_read_so_by_slicer(suffix: str, tmp_path: Path) -> None:
    for number, ((order, flips), angles) in enumerate(itertools.product(AXES, ANGLES)):
        path = tmp_path / f"{number}{suffix}"
        volume = Volume(voxels(("int16", "float32")[number % 2]), matrix(order, flips, angles))
        write_volume(volume, path)
        refuse_difference(str(number), volume, of_itk(path))
        refuse_difference(str(number), read_volume(path), of_itk(path))


@pytest.mark.slow
def test_metaimages_are_read_as_slicer_reads_them(tmp_path: Path) -> None:
    for number, ((order, flips), angles) in enumerate(itertools.product(AXES, ANGLES)):
        path = tmp_path / f"{number}{('.mha', '.mhd')[number % 2]}"
        made = sitk.GetImageFromArray(voxels(NIFTI_TYPES[number % 5]))
        to_lps = LPS @ matrix(order, flips, angles)
        made.SetSpacing(SPACING)
        made.SetDirection((to_lps[:3, :3] / SPACING).ravel())
        made.SetOrigin(to_lps[:3, 3])
        sitk.WriteImage(made, str(path), useCompression=bool(number % 3))
        refuse_difference(str(number), read_volume(path), of_itk(path))


def _series(folder: Path, number: int, ijk_to_ras: np.ndarray) -> list[Path]:
    """A series in order of its slices; rescale, padding, signedness, syntax and mark go by the number."""
    to_lps = LPS @ ijk_to_ras
    axes = to_lps[:3, :3] / SPACING
    if np.linalg.det(axes) < 0:  # slices run along rows x columns
        axes[:, 2] *= -1
    signed = number % 2
    slope, intercept = ((1, -1024), (1, 0), (2, -1000), (0.5, -1024.25))[number % 4]
    syntax = SYNTAXES[(number // 4) % len(SYNTAXES)]
    changes = {
        "PixelRepresentation": signed, "RescaleSlope": slope, "RescaleIntercept": intercept,
        "ImageOrientationPatient": [round(float(x), 8) for x in axes[:, :2].T.ravel()],
        "PixelSpacing": [SPACING[1], SPACING[0]], "BitsStored": (12, 16)[number % 3 == 0], "Rows": SHAPE[1],
    }  # fmt: skip
    changes["HighBit"] = changes["BitsStored"] - 1
    if number % 5 == 0:
        changes["PixelPaddingValue"] = -2000 if signed else 63
    bits = int(changes["BitsStored"]) - signed
    low = -(2**bits) if signed else 0
    stored = np.random.default_rng(number).integers(max(low, -2048), min(2**bits, 4096), SHAPE)
    folder.mkdir()
    paths = []
    for k, pixels in enumerate(stored.astype("<i2" if signed else "<u2")):
        place = [round(float(x), 6) for x in to_lps[:3, 3] + k * SPACING[2] * axes[:, 2]]
        made = image(pixels, tuple(place), uid_of("cross", number), **changes)
        paths.append(folder / f"{k}.dcm")
        _save(made, paths[-1], syntax)
    return paths


def _save(made: Dataset, path: Path, syntax: UID) -> None:
    made.file_meta.TransferSyntaxUID = syntax
    if syntax.is_compressed:
        made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        if get_encoder(syntax).is_available:  # JPEG-LS needs a package of its own
            made.compress(syntax, generate_instance_uid=False)
    elif syntax == ExplicitVRBigEndian:
        made.PixelData = np.frombuffer(made.PixelData, "<u2").astype(">u2").tobytes()
        made["PixelData"].VR = "OW"
    else:
        made["PixelData"].VR = "OW"
    made.save_as(path, enforce_file_format=True)


@pytest.mark.slow
def test_series_are_read_as_slicer_reads_them(tmp_path: Path) -> None:
    for number, ((order, flips), angles) in enumerate(itertools.product(AXES, ANGLES)):
        paths = _series(tmp_path / str(number), number, matrix(order, flips, angles))
        theirs = of_itk(paths)
        for path in paths[:: 2 if number % 7 == 0 else 99]:  # some files without preamble and mark
            path.write_bytes(path.read_bytes()[132:])
        refuse_difference(str(number), read_volume(tmp_path / str(number)), theirs)
