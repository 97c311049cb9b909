"""Bad input and the exact words that the user then reads: one list for the tests and for docs/reference/bad-input.md.

Add a case with the decorator; the test runs every case and compares the page. To write the page anew, from the
repository's root: ``python -m Testing.unit.bad_input``.
"""

from __future__ import annotations

import errno
import io
import json
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedDiffFMLib.core.errors import DependencyError, InputError, MedDiffFMError, ModelError, OutputError
from MedDiffFMLib.datasets.segments import merge_segments
from MedDiffFMLib.dicom.out.export import check_folder
from MedDiffFMLib.dicom.sources.address import parse_address
from MedDiffFMLib.imaging.io import read_volume, write_volume
from MedDiffFMLib.imaging.modality_checks import check_volume
from MedDiffFMLib.imaging.volume import Volume, check_ct, check_mask
from MedDiffFMLib.models import catalogue
from MedDiffFMLib.models import entry as catalogue_entry
from MedDiffFMLib.models.checkpoint import (
    FORMAT,
    FoundationModel,
    build_denoiser,
    load_model,
    read_header,
    save_model,
)
from MedDiffFMLib.models.controlnet_file import FORMAT as CONTROL_FORMAT
from MedDiffFMLib.models.controlnet_file import load_control
from MedDiffFMLib.models.no_model import NoModel
from MedDiffFMLib.models.store import add_store
from MedDiffFMLib.multimodal.aligned import AlignedEncoders, load_encoders, save_encoders
from MedDiffFMLib.multimodal.rigid_registration import align
from MedDiffFMLib.multimodal.shadow_hull import Shadow, hull_of
from MedDiffFMLib.multimodal.text_codecs import HashedNgrams
from MedDiffFMLib.multimodal.xray_pose import poses
from MedDiffFMLib.networks.unet import NetworkConfig
from MedDiffFMLib.node.peers import parse_caller
from MedDiffFMLib.node.rules import Rule, checked_rule
from MedDiffFMLib.node.service import NodeSettings
from MedDiffFMLib.runner.case import checked_case
from MedDiffFMLib.runner.case_files import CaseFiles
from MedDiffFMLib.runner.one_series import with_one_series
from MedDiffFMLib.runner.pages import PageFiles
from MedDiffFMLib.runner.settings import RunSettings
from MedDiffFMLib.segmentation.head_file import FORMAT as HEAD_FORMAT
from MedDiffFMLib.segmentation.head_file import load_head
from MedDiffFMLib.tasks.base import Case, Run
from MedDiffFMLib.tasks.compare.lesions import listed
from MedDiffFMLib.tasks.compare.registration import registering
from MedDiffFMLib.tasks.compare.spec import Compare
from MedDiffFMLib.tasks.find.spec import Find
from MedDiffFMLib.tasks.generate_lesion.lesion_shape import make_lesion_mask
from MedDiffFMLib.tasks.generate_lesion.spec import GenerateLesion
from MedDiffFMLib.tasks.radiograph.spec import Radiograph
from MedDiffFMLib.tasks.super_resolve.recipe import choose_factors
from MedDiffFMLib.tasks.super_resolve.spec import SuperResolve
from MedDiffFMLib.tasks.synthesize.spec import Synthesize
from MedDiffFMLib.tasks.translate.recipe import NO_FAT, STRANGE, doubts, prepare_mr
from MedDiffFMLib.tasks.translate.spec import Translate
from Testing.unit.phantoms import body

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "bad-input.md"


@dataclass(frozen=True)
class BadInput:
    """One row.

    Attributes:
        title: what is wrong with the input.
        message: exact text; ``{folder}`` stands for the folder that ``run`` works in.
        error: type of the exception, None for a warning (work goes on).
        run: does what a user would do; raises, or returns the warnings.
    """

    title: str
    message: str
    error: type[MedDiffFMError] | None
    run: Callable[[Path, pytest.MonkeyPatch], list[str] | None]


CASES: list[BadInput] = []


def case(title: str, message: str, error: type[MedDiffFMError] | None = InputError):
    """Add the decorated function as a case."""

    def add(run: Callable[[Path, pytest.MonkeyPatch], list[str] | None]):
        CASES.append(BadInput(title, message, error, run))
        return run

    return add


def page() -> str:
    """docs/reference/bad-input.md."""
    lines = [
        "# Bad input",
        "",
        "What is checked before any computing starts, and what the user then reads, in the command line, in Python and",
        "in 3D Slicer alike. Errors end the run with the exit code shown; a warning is shown, kept in the report, and",
        "the run goes on. Nothing half-written is ever left behind. Numbers are those of the tests' own examples.",
        "This page is made from `Testing/unit/bad_input.py`, whose every row is a test.",
        "",
        "| Input | Exit code | Message |",
        "|---|---|---|",
    ]
    for row in CASES:
        code = "warning" if row.error is None else str(row.error.exit_code)
        lines.append(f"| {row.title} | {code} | {row.message.replace('{folder}', '…')} |")
    return "\n".join(lines) + "\n"


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


@case(
    "several DICOM series in one folder",
    "The folder 'study' holds 2 series: '1 Scout' (CT, images: 1); '2 Thorax' (CT, images: 1). "
    "Give one file of the wanted series instead of the folder.",
)
def _mixed(folder: Path, _: pytest.MonkeyPatch) -> None:
    from Testing.unit.imaging.test_dicom import image, stored

    (folder / "study").mkdir()
    for number, title in enumerate(("Scout", "Thorax"), start=1):
        one = image(stored()[0], (0, 0, 0), f"1.2.{number}", SeriesNumber=number, SeriesDescription=title)
        one.save_as(folder / "study" / f"{title}.dcm", enforce_file_format=True)
    read_volume(folder / "study")


@case(
    "DICOM series with a missing slice",
    "'study/3 Thorax 1.0 B30f': slices are 5 mm apart at 2.5 mm along the scan, elsewhere 2.5 mm "
    "(1 missing there). Export the series again from the scanner or the archive, or convert it to NRRD with 3D Slicer.",
)
def _gap(folder: Path, _: pytest.MonkeyPatch) -> None:
    from Testing.unit.imaging.test_dicom import write_series

    write_series(folder / "study", np.array([(0.0, 0.0, 2.5 * k) for k in (0, 1, 3, 4, 5)]))
    read_volume(folder / "study")


@case(
    "DICOM series with a damaged file",
    "'i003.dcm' is not a readable DICOM file: its header cannot be read. "
    "Check that the suffix fits the content, or export it again.",
)
def _damaged_slice(folder: Path, _: pytest.MonkeyPatch) -> None:
    from Testing.unit.imaging.test_dicom import write_series

    path = write_series(folder / "study")[3]
    content = path.read_bytes()
    at = content.index(b"\x02\x00\x00\x00UL") + 6
    path.write_bytes(content[:at] + b"\xff\x7f" + content[at + 2 :])
    read_volume(folder / "study")


def _studies(folder: Path, *descriptions: str) -> Path:
    """A DICOM folder with a series of eight slices for each description."""
    from Testing.unit.imaging.test_dicom import write_series

    for number, text in enumerate(descriptions, start=2):
        write_series(folder / "study", prefix=text[0], SeriesNumber=number, SeriesDescription=text, PatientID="17")
    return folder / "study"


@case(
    "several DICOM series that could be meant, on the command line",
    "'study' holds 2 series that could be meant: 2 'Lung' (CT, 8 images); 3 'Soft' (CT, 8 images). "
    "Choose one: --series 2, or by UID, see `meddifffm series`.",
)
def _which_series(folder: Path, _: pytest.MonkeyPatch) -> None:
    with_one_series(CaseFiles(_studies(folder, "Lung", "Soft")), "denoise")


@case(
    "DICOM series with a slice of another patient",
    "Series 2 'Lung' (CT, 8 images) in 'study' mixes images of several patients: '17' and '18'. "
    "Export each patient's series again; nothing is made out of a mixture.",
)
def _two_patients(folder: Path, _: pytest.MonkeyPatch) -> None:
    import pydicom

    study = _studies(folder, "Lung")
    path = next(study.iterdir())
    image = pydicom.dcmread(path)
    image.PatientID = "18"
    image.save_as(path)
    with_one_series(CaseFiles(study), "denoise")


@case(
    "DICOM folder of results that exists",
    "The DICOM folder '{folder}/ct_denoise' exists already. Choose another folder or move it away: DICOM objects are "
    "never overwritten, not with --overwrite either.",
    OutputError,
)
def _dicom_folder_exists(folder: Path, _: pytest.MonkeyPatch) -> None:
    pytest.importorskip("highdicom", reason="the extra [dicom] is not installed")
    (folder / "ct_denoise").mkdir()
    check_folder(folder / "ct_denoise")


@case(
    "DICOM folder of results without highdicom",
    "The Python package highdicom is missing, which --dicom needs. Install it: pip install --upgrade "
    "'meddifffm[dicom]' (in Slicer: pip_install('-U highdicom')).",
    DependencyError,
)
def _no_highdicom(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "highdicom", None)
    check_folder(folder / "ct_denoise")


@case(
    "DICOM folder of results with a highdicom of earlier years",
    "highdicom 0.26.1 is too old: --dicom needs 0.28 or newer. Install it: pip install --upgrade 'meddifffm[dicom]' "
    "(in Slicer: pip_install('-U highdicom')).",
    DependencyError,
)
def _old_highdicom(folder: Path, patch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("highdicom", reason="the extra [dicom] is not installed")
    patch.setattr("importlib.metadata.version", lambda name: "0.26.1")
    check_folder(folder / "ct_denoise")


@case(
    "address of an archive without a question",
    "'dicomweb://pacs.example/dicom-web' asks for everything in the archive. "
    "Say which study: add ?PatientID=ID or a UID.",
)
def _everything(*_: object) -> None:
    parse_address("dicomweb://pacs.example/dicom-web")


@case(
    "address with a password",
    "A password stands in the address, where others can read it. Put it into ~/.netrc, and leave it out.",
)
def _password(*_: object) -> None:
    parse_address("dicomweb://anna:secret@pacs.example/dicom-web?PatientID=17")


@case(
    "NaN",
    "2 voxels are not numbers (NaN or infinite). Replace them, for instance by -1000 HU (air), "
    "and save the volume again.",
)
def _nan(*_: object) -> None:
    voxels = body().voxels.astype(np.float32)
    voxels[0, 0, :2] = np.nan, np.inf
    check_ct(body().with_voxels(voxels))


@case("empty volume", "The volume is empty (60 x 60 x 0 voxels). Choose another volume.")
def _empty(*_: object) -> None:
    check_ct(Volume(np.zeros((0, 60, 60), np.int16), np.eye(4)))


@case("constant volume", "All voxels have the same value (-1000). Choose another volume; this one holds no image.")
def _constant(*_: object) -> None:
    check_ct(body().with_voxels(np.full((40, 60, 60), -1000, np.int16)))


@case(
    "sheared geometry",
    "The voxel axes are not perpendicular (up to 11.3 degrees off), as after a scan with tilted gantry. "
    "Resample the volume first: in Slicer, load the DICOM series with acquisition geometry regularization, "
    "or harden the transform and use Resample Scalar/Vector/DWI Volume.",
)
def _sheared(*_: object) -> None:
    matrix = body().ijk_to_ras.copy()
    matrix[1, 2] = 0.2 * matrix[2, 2]
    check_ct(Volume(body().voxels, matrix))


@case(
    "one slice",
    "The volume has only one slice (60 x 60 x 1 voxels); at least 4 are needed. "
    "Load the whole series, not a single image.",
)
def _one_slice(*_: object) -> None:
    check_ct(Volume(body().voxels[20:21], body().ijk_to_ras))


@case(
    "enormous spacing",
    "A voxel measures 3000 x 3000 x 3000 mm, outside 0.05 to 20 mm. "
    "Check that the header's spacing is in millimeters and correct it.",
)
def _spacing(*_: object) -> None:
    check_ct(body(spacing=3000.0))


@case(
    "MR passed as CT",
    "The values (0 to 1200, median 80) do not look like CT in Hounsfield units, where air is near -1000, fat near "
    "-100 and soft tissue 0 to 100; they fit MR, PET, a label map or normalized data. Choose a CT. If this is a CT "
    "that was stored with an offset (often 1024) or rescaled for display, load the original DICOM series or undo that "
    "first. A crop of a CT that holds neither air nor fat goes on with --force.",
)
def _magnetic(*_: object) -> None:
    tissue = body().voxels
    signal = np.select([tissue > 300, tissue > -60, tissue > -500], [20, 400, 1200], 0) + np.arange(60) // 10 * 20
    check_ct(body().with_voxels(np.clip(signal, 0, 1200).astype(np.int16)))


@case(
    "volume smaller than a window",
    "The volume measures 60 x 60 x 40 mm, less than one window of the model (96 mm); "
    "results near its borders are less reliable.",
    None,
)
def _small(*_: object) -> list[str]:
    return check_ct(body(spacing=1.0))


@case("thick slices", "Slices are 5 mm thick; findings smaller than that are not reliable.", None)
def _thick(*_: object) -> list[str]:
    return check_ct(Volume(body().voxels, np.diag([-2.0, -2.0, 5.0, 1.0])))


@case(
    "mask of other size",
    "The mask has 60 x 60 x 39 voxels, the CT 60 x 60 x 40. Resample it onto the CT: in Slicer, export the "
    "segmentation with the CT as reference volume, or use Resample Scalar/Vector/DWI Volume with nearest-neighbor "
    "interpolation.",
)
def _mask_size(*_: object) -> None:
    check_mask(Volume(np.ones((39, 60, 60), np.uint8), body().ijk_to_ras, "mask"), body())


@case(
    "mask of other geometry",
    "The mask has the CT's shape but lies elsewhere, up to 30 mm away. Resample it onto the CT: in Slicer, export the "
    "segmentation with the CT as reference volume, or use Resample Scalar/Vector/DWI Volume with nearest-neighbor "
    "interpolation.",
)
def _mask_place(*_: object) -> None:
    matrix = body().ijk_to_ras.copy()
    matrix[2, 3] = 30
    check_mask(Volume(np.ones((40, 60, 60), np.uint8), matrix, "mask"), body())


@case("empty mask", "The mask is empty: no voxel is above 0. Paint the region, or choose another mask.")
def _mask_empty(*_: object) -> None:
    check_mask(body().with_voxels(np.zeros((40, 60, 60), np.uint8)), body())


@case(
    "mask covering everything",
    "The mask covers the whole volume, so nothing is left to work from. "
    "Paint only the region; if it looks right, the mask may be inverted.",
)
def _mask_full(*_: object) -> None:
    check_mask(body().with_voxels(np.ones((40, 60, 60), np.uint8)), body())


@case(
    "synthesis of nothing",
    "size is 0.0 mm. Allowed are 20 to 2000 mm.",
)
def _no_size(*_: object) -> None:
    Synthesize(size=(300.0, 300.0, 0.0))


@case(
    "synthesis with voxels larger than the volume",
    "A size of 20 x 300 x 300 mm holds only 2 x 30 x 30 voxels of 10 mm; at least 8 are needed along each edge. "
    "Give a larger size or a finer spacing.",
)
def _large_voxels(*_: object) -> None:
    Synthesize(size=(20.0, 300.0, 300.0), spacing=10.0)


@case(
    "synthesis of more than fits into memory",
    "The result would have 8000 million voxels, more than 400 million. Choose a coarser spacing or a smaller size.",
)
def _large_synthesis(*_: object) -> None:
    Synthesize(size=(1000.0, 1000.0, 1000.0), spacing=0.5)


@case(
    "a CT given to a task that makes one",
    "synthesize makes a CT and takes none. Leave the input and --batch out; run it once for each seed.",
)
def _useless_input(*_: object) -> None:
    checked_case("synthesize", {"volume": body()})


@case("synthetic CT as input", "This CT is synthetic, in whole or in part: it shows no patient as scanned.", None)
def _synthetic(*_: object) -> list[str]:
    return check_ct(replace(body(), synthetic=True))


@case("MR given to radiograph", "The volume is marked as MR, not as CT. Choose a CT volume.")
def _mr_to_radiograph(*_: object) -> None:
    checked_case("radiograph", {"volume": replace(body(), modality="MR")})


@case(
    "X-ray without a pose",
    "X-ray 1 says nothing about where its source stood. Name the direction of each X-ray with --views "
    "(ap, pa, lat ...), or give --sources: what the report of radiograph lists as source_ras_mm.",
)
def _no_pose(*_: object) -> None:
    poses([xray()], "", None, 1800, 50, None)


@case(
    "fewer views than X-rays",
    "2 X-rays are given and 1 views named, of which none may be a camera's. "
    "Name one direction for each X-ray, in their order.",
)
def _too_few_views(*_: object) -> None:
    poses([xray(), xray()], "ap", None, 1800, 50, None)


@case(
    "X-rays of nothing in common",
    "The X-rays have no part of a body in common: their rays do not meet where all of them show tissue. "
    "Check the views and sources; all X-rays have to show the same patient in one position.",
)
def _apart(*_: object) -> None:
    beams = poses([xray(), xray(up=900)], "", (0, -1500, 0, 0, -1500, 900), 1800, 50, None)
    hull_of([Shadow(beam, np.ones(beam.detector.shape[1:], bool)) for beam in beams], 8)


@case("X-ray of two pixels", "The X-ray has 2 x 1 pixels. Give one of at least 16 a side.")
def _two_pixels(*_: object) -> None:
    check_volume(replace(xray(), voxels=np.ones((1, 1, 2), np.float32)), "XR")


@case("a picture given as a CT", "'scan.png' is a picture, which can only be an X-ray. Give a file with voxels.")
def _picture(folder: Path, _: pytest.MonkeyPatch) -> None:
    (folder / "scan.png").write_bytes(b"\x89PNG")
    read_volume(folder / "scan.png")


def xray(up: float = 0) -> Volume:
    """A plain X-ray before its detector, 200 mm behind 0 and so much higher."""
    matrix = np.array([[-10.0, 0, 0, 100], [0, 0, 1, 200], [0, -10, 0, 100 + up], [0, 0, 0, 1]])
    pixels = np.full((1, 20, 20), 2, np.float32)
    pixels[0, 0, 0] = 1
    return Volume(pixels, matrix, "XR")


@case("MR given to describe", "The volume is marked as MR, not as CT. Choose a CT volume.")
def _mr_to_describe(*_: object) -> None:
    checked_case("describe", {"volume": replace(body(), modality="MR")})


@case(
    "CT given to translate --to ct",
    "The values (-1067 to 637) do not look like MR, whose signal is not negative; they fit CT or normalized data. "
    "Choose an MR volume.",
)
def _ct_as_mr(*_: object) -> None:
    Translate().run(checked_case("translate", {"volume": replace(body(), modality="CT or MR")}), Run(NoModel("cpu")))


@case("MR given to translate --to mr-t1", "The volume is marked as MR, not as CT. Choose a CT volume.")
def _mr_as_ct(*_: object) -> None:
    image = replace(body(), voxels=body().voxels + 1024, modality="MR")
    Translate(to="mr-t1").run(checked_case("translate", {"volume": image}), Run(NoModel("cpu")))


@case("MR without fat, given to translate", NO_FAT, None)
def _without_fat(*_: object) -> list[str]:
    signal = np.where(body().voxels > -500, 400, 0) + np.random.default_rng(0).integers(0, 40, body().voxels.shape)
    return doubts(prepare_mr(replace(body(), voxels=signal.astype(np.int16), modality="MR")), 0, 0)


@case("MR unlike those in training, given to translate", STRANGE.format(share=0.4), None)
def _strange(*_: object) -> list[str]:
    signal = np.where(body().voxels > -500, 400, 0)
    return doubts(replace(prepare_mr(replace(body(), voxels=signal, modality="MR")), fat_from_peak=True), 0.4, 1.2)


@case(
    "CT and MR that do not overlap",
    "The two images cannot be aligned: they do not overlap. Give two images of the same part of one patient.",
)
def _apart(*_: object) -> None:
    pytest.importorskip("SimpleITK")
    far = body().ijk_to_ras.copy()
    far[0, 3] += 5000
    align(body(), replace(body(), ijk_to_ras=far))


@case("X-ray of two pixels", "The X-ray has 2 x 1 pixels. Give one of at least 16 a side.")
def _two_pixels(*_: object) -> None:
    check_volume(Volume(np.array([[[1, 2]]], np.uint16), np.eye(4), "XR"), "XR")


@case("detector of two pixels", "pixels is 2. Allowed are 16 to 4096.")
def _small_detector(*_: object) -> None:
    Radiograph(pixels=2)


def _weights(path: Path, format_name: str = FORMAT, more: dict[str, str] | None = None) -> Path:
    """A safetensors file byte by byte, so that its hash is the same with every version of the library."""
    description = {"format": format_name, **(more or {"config": "{}", "calibration": "{}"})}
    tensor = {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]}
    header = json.dumps({"__metadata__": description, "weight": tensor}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    return path


@case(
    "missing weights",
    "There is no weight file {folder}/prior.safetensors. Check the path, or use a name that `meddifffm models` lists.",
    ModelError,
)
def _no_weights(folder: Path, _: pytest.MonkeyPatch) -> None:
    load_model(str(folder / "prior.safetensors"))


@case(
    "pickle offered as weights",
    "prior.safetensors is a pickle file, which can run code when it is opened. "
    "Only safetensors weights are accepted; convert it in an environment that you trust.",
    ModelError,
)
def _pickle(folder: Path, _: pytest.MonkeyPatch) -> None:
    import pickle

    class Trap:
        def __reduce__(self):
            return Path.touch, (folder / "code-was-run",)

    (folder / "prior.safetensors").write_bytes(pickle.dumps(Trap()))
    try:
        load_model(str(folder / "prior.safetensors"))
    finally:
        assert not (folder / "code-was-run").exists()


@case(
    "PyTorch checkpoint offered as weights",
    "prior.pt is a pickle file, which can run code when it is opened. "
    "Only safetensors weights are accepted; convert it in an environment that you trust.",
    ModelError,
)
def _torch_file(folder: Path, _: pytest.MonkeyPatch) -> None:
    import torch

    torch.save({"weight": torch.zeros(4)}, folder / "prior.pt")
    load_model(str(folder / "prior.pt"))


@case(
    "truncated weights",
    "prior.safetensors is not a readable safetensors file: it is truncated, damaged, or of another format. "
    "Fetch it again.",
    ModelError,
)
def _truncated_weights(folder: Path, _: pytest.MonkeyPatch) -> None:
    path = _weights(folder / "prior.safetensors")
    path.write_bytes(path.read_bytes()[:-3])
    load_model(str(path))


@case(
    "weights with a flipped bit",
    "prior.safetensors was changed or damaged: its own checksum does not fit. Fetch it again.",
    ModelError,
)
def _flipped_weights(folder: Path, _: pytest.MonkeyPatch) -> None:
    path = _small_prior(folder / "prior.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    load_model(str(path), device="cpu")


@case(
    "weights whose description asks for terabytes",
    "The weights in prior.safetensors do not fit its description (first at 'network.unet.class_embedding.weight'). "
    "Fetch it again.",
    ModelError,
)
def _vast_weights(folder: Path, _: pytest.MonkeyPatch) -> None:
    config, path = _small_config(), folder / "prior.safetensors"
    vast = {**config, "network": {**config["network"], "channels": [8000, 8000]}}
    save_model(path, build_denoiser(config).state_dict(), vast)
    load_model(str(path), device="cpu")


def _small_config() -> dict[str, Any]:
    return {"network": NetworkConfig(channels=(8, 32), attention=(False, False)).as_dict(), "denoiser": "edm"}


def _small_prior(path: Path) -> Path:
    """A whole weight file with random weights."""
    config = _small_config()
    save_model(path, build_denoiser(config).state_dict(), config)
    return path


@case(
    "weights of another program",
    "prior.safetensors holds no MedDiff-FM prior ('pt', not 'meddifffm-prior-1'). "
    "Use weights made by `meddifffm pretrain` or listed by `meddifffm models`.",
    ModelError,
)
def _foreign_weights(folder: Path, _: pytest.MonkeyPatch) -> None:
    load_model(str(_weights(folder / "prior.safetensors", "pt")))


@case(
    "weights with the wrong SHA-256",
    "The SHA-256 of prior.safetensors is ebe5a1efefb3..., the catalogue says 0123456789ab... "
    "The file was changed or damaged; fetch it again.",
    ModelError,
)
def _tampered_weights(folder: Path, patch: pytest.MonkeyPatch) -> None:
    (folder / "Models").mkdir()
    described = {"config": json.dumps({"network": {}}), "calibration": "{}"}
    path = _weights(folder / "Models" / "prior.safetensors", FORMAT, described)
    entry = {"name": "prior", "title": "", "description": "", "file": path.name, "sha256": "0123456789ab" + 52 * "0",
             "bytes": path.stat().st_size, "licence": "", "training_data": "", "memory_mb": 1}  # fmt: skip
    (folder / "Models" / "models.json").write_text(json.dumps({"models": [entry]}))
    for module in (catalogue, catalogue_entry):
        patch.setattr(module, "resource_folder", lambda: folder)
    assert read_header(path)["format"] == FORMAT
    load_model("prior")


def _control(path: Path, task: str = "lesion") -> Path:
    """The head of a ControlNet's file."""
    description = {"task": task, "prior": {"name": "starter-ct", "sha256": "ab" * 32}, "settings": {}}
    return _weights(path, CONTROL_FORMAT, {"description": json.dumps(description)})


def _model(sha256: str) -> FoundationModel:
    """A prior by name, without weights: it is refused before they are needed."""
    return FoundationModel("other", sha256, {}, engine=None)  # type: ignore[arg-type]


@case(
    "ControlNet of another prior",
    "control.safetensors was trained with the prior 'starter-ct' (abababababab...), not with 'other' "
    "(cdcdcdcdcdcd...). Use it with its own prior (--model), or fine-tune again on this one.",
    ModelError,
)
def _other_prior(folder: Path, _: pytest.MonkeyPatch) -> None:
    load_control(_control(folder / "control.safetensors"), _model("cd" * 32))


def _head(path: Path) -> Path:
    """The head of a segmentation head's file."""
    description = {
        "method": "features",
        "options": {},
        "spacing": 2.0,
        "labels": [{"value": 1, "name": "tumor"}],
        "prior": {"name": "starter-ct", "sha256": "ab" * 32},
    }
    return _weights(path, HEAD_FORMAT, {"description": json.dumps(description)})


@case(
    "segmentation head of another prior",
    "head.safetensors was trained with the prior 'starter-ct' (abababababab...), not with 'other' "
    "(cdcdcdcdcdcd...). Use it with its own prior (--model), or train it again on this one.",
    ModelError,
)
def _head_of_other_prior(folder: Path, _: pytest.MonkeyPatch) -> None:
    load_head(_head(folder / "head.safetensors"), _model("cd" * 32))


@case(
    "ControlNet offered as segmentation head",
    "control.safetensors holds no segmentation head ('meddifffm-control-1', not 'meddifffm-segmentation-1'). "
    "Use a file made by `meddifffm finetune --task segmentation`.",
    ModelError,
)
def _control_as_head(folder: Path, _: pytest.MonkeyPatch) -> None:
    load_head(_control(folder / "control.safetensors"), _model("ab" * 32))


def _segments(**voxels: int) -> None:
    """Make a label map of segments with so many voxels each, counted from the first corner."""
    grid = np.arange(64).reshape(4, 4, 4)
    merge_segments({name: grid < count for name, count in voxels.items()}, {n: i + 1 for i, n in enumerate(voxels)})


@case(
    "empty segment among the examples",
    "The segment 'tumor' is empty. Outline it in this scan, or leave it out here.",
    InputError,
)
def _empty_segment(_: Path, __: pytest.MonkeyPatch) -> None:
    _segments(liver=30, tumor=0)


@case(
    "the same structure in two segments",
    "The segments 'liver' and 'copy' mark the same voxels. Leave one of them out.",
    InputError,
)
def _same_segments(_: Path, __: pytest.MonkeyPatch) -> None:
    _segments(liver=30, copy=30)


@case(
    "ControlNet for another task",
    "control.safetensors is a ControlNet for lesion, not for super-resolution. Choose one for this task.",
    ModelError,
)
def _other_task(folder: Path, _: pytest.MonkeyPatch) -> None:
    load_control(_control(folder / "control.safetensors"), _model("ab" * 32), "super-resolution")


@case(
    "prior offered as ControlNet",
    "prior.safetensors holds no MedDiff-FM ControlNet ('meddifffm-prior-1', not 'meddifffm-control-1'). "
    "Use a file made by `meddifffm finetune` or listed by `meddifffm models`.",
    ModelError,
)
def _prior_as_control(folder: Path, _: pytest.MonkeyPatch) -> None:
    load_control(_weights(folder / "prior.safetensors"), _model("ab" * 32))


@case(
    "prior offered as encoders of many modalities",
    "prior.safetensors holds no aligned encoders of this version. "
    "Name a file that `meddifffm multimodal train --stage align` wrote.",
    ModelError,
)
def _prior_as_encoders(folder: Path, _: pytest.MonkeyPatch) -> None:
    load_encoders(_weights(folder / "prior.safetensors"))


@case(
    "encoders whose text codec is not installed",
    "The encoders in encoders.safetensors read texts by the text codec 'cxr-bert', which is not installed. "
    "Install the package that offers it as an entry point of the group meddifffm.text_codecs.",
    DependencyError,
)
def _no_codec(folder: Path, _: pytest.MonkeyPatch) -> None:
    codec = HashedNgrams()
    codec.name = "cxr-bert"
    save_encoders(folder / "encoders.safetensors", AlignedEncoders(codec), {})
    load_encoders(folder / "encoders.safetensors")


@case(
    "search for no words",
    "The prompt says nothing. Write what to look for, such as: nodule in the right lung.",
)
def _no_words(_: Path, __: pytest.MonkeyPatch) -> None:
    Find().run(Case(body(), texts={"prompt": " ... "}), Run(NoModel("cpu")))


@case(
    "lesion wished, but no lesion ControlNet",
    "There is no lesion ControlNet for the model 'other'. "
    "Train one with `meddifffm finetune --task lesion`, or choose another model.",
    ModelError,
)
def _no_control(_: Path, __: pytest.MonkeyPatch) -> None:
    GenerateLesion(diameter=20).run(Case(body()), Run(_model("cd" * 32)))


@case(
    "lesion without mask and diameter",
    "There is no mask of the lesion. Give one, or a diameter for one to be made.",
)
def _no_lesion_mask(_: Path, __: pytest.MonkeyPatch) -> None:
    GenerateLesion().run(Case(body()), Run(_model("cd" * 32)))


@case(
    "lesion larger than the organ",
    "There is no room for a lesion of 40 mm: the mask is at most 18 mm thick. "
    "Choose a smaller diameter or another mask.",
)
def _no_room(_: Path, __: pytest.MonkeyPatch) -> None:
    organ = np.zeros((20, 20, 20), dtype=bool)
    organ[5:11, 2:18, 2:18] = True
    make_lesion_mask(organ, (3.0, 3.0, 3.0), 40, np.random.default_rng(0))


@case(
    "thin slices wished of cubes",
    "The voxels measure 3 x 3 x 3 mm: along k they are hardly longer than elsewhere. "
    "Give a factor, or use the isotropic mode.",
)
def _cubes(_: Path, __: pytest.MonkeyPatch) -> None:
    choose_factors(body(), SuperResolve())


@case(
    "datalist with a patient in two splits",
    "Patient 'p1' is in two splits: early in training, late in validation. Keep all cases of a patient in one split.",
)
def _shared_patient(folder: Path, _: pytest.MonkeyPatch) -> None:
    from MedDiffFMLib.datasets.prepare import prepare

    early, late = ({"image": f"{name}.nrrd", "patient": "p1"} for name in ("early", "late"))
    rows = {"training": [early], "validation": [late]}
    (folder / "datalist.json").write_text(json.dumps(rows))
    prepare(folder / "datalist.json", folder / "cache")


@case(
    "output exists",
    "'{folder}/out.nrrd' exists already. Choose another name, or allow overwriting (--overwrite).",
    OutputError,
)
def _exists(folder: Path, _: pytest.MonkeyPatch) -> None:
    (folder / "out.nrrd").write_text("an older result")
    write_volume(body(), folder / "out.nrrd")


@case(
    "output folder is a file",
    "'{folder}/notes.txt' is not a folder, so 'out.nrrd' cannot be written there. Choose another folder.",
    OutputError,
)
def _not_a_folder(folder: Path, _: pytest.MonkeyPatch) -> None:
    (folder / "notes.txt").write_text("a file")
    write_volume(body(), folder / "notes.txt" / "out.nrrd")


@case(
    "no write permission",
    "No permission to write 'out.nrrd' to '{folder}'. Choose a folder that you may write to.",
    OutputError,
)
def _permission(folder: Path, patch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:  # tests may run as root, whom no permission bit stops
        raise PermissionError(errno.EACCES, "Permission denied")

    patch.setattr(Path, "open", refuse)
    write_volume(body(), folder / "out.nrrd")


@case("caller of a node without a name", "'@10.0.0.5' names no caller. Write AE title, AET@HOST, or AET@HOST:PORT.")
def _nameless_caller(folder: Path, _: pytest.MonkeyPatch) -> None:
    parse_caller("@10.0.0.5")


def _node(folder: Path, caller: str) -> NodeSettings:
    rule = Rule("xray", RunSettings("radiograph").checked())
    return NodeSettings(folder, [rule], [parse_caller(caller)] if caller else []).checked()


@case("node that nobody may send to", "Nobody may send. Name who may: --from AET@HOST:PORT.")
def _lonely_node(folder: Path, _: pytest.MonkeyPatch) -> None:
    _node(folder, "")


@case(
    "node whose results have nowhere to go",
    "Results go back to the sender, and nobody knows on which port CT1 takes them. "
    "Write --from AET@HOST:PORT, or say where results go: --to pacs://AET@HOST:PORT.",
)
def _dumb_caller(folder: Path, _: pytest.MonkeyPatch) -> None:
    _node(folder, "CT1")


@case(
    "node with a task that needs a mask",
    "inpaint cannot work on what arrives: it also needs mask. Choose another task.",
)
def _unservable(folder: Path, _: pytest.MonkeyPatch) -> None:
    checked_rule(Rule("fill", RunSettings("inpaint").checked()))


@case(
    "model at an address without encryption",
    "'http://models.example/ct/models.json' is not encrypted: on the way anybody can read and change what comes. "
    "Use https://, or give --insecure for a network that you trust.",
)
def _plain_store(folder: Path, _: pytest.MonkeyPatch) -> None:
    add_store("http://models.example/ct")


class _SmallDisk(io.FileIO):
    """A file on a disk with room for 10 kB."""

    def write(self, data) -> int:
        if self.tell() + len(data) > 10_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


@case(
    "disk full",
    "The disk is full: 'out.nrrd' could not be written to '{folder}'. "
    "Free some space or choose another folder; nothing incomplete was left behind.",
    OutputError,
)
def _disk_full(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Path, "open", lambda self, mode: _SmallDisk(self, mode.replace("b", "")))
    write_volume(body(), folder / "out.nrrd")


@case(
    "two scans in the wrong order",
    "The earlier scan is of 2026-03-01, the later one of 2026-02-01. Exchange the scans, or correct the dates.",
)
def _wrong_order(_: Path, __: pytest.MonkeyPatch) -> None:
    Compare(earlier_date="2026-03-01", later_date="2026-02-01")


@case("no date", "earlier_date is '1.2.2026'. Give a day as YYYY-MM-DD.")
def _no_date(_: Path, __: pytest.MonkeyPatch) -> None:
    Compare(earlier_date="1.2.2026")


@case(
    "comparison without SimpleITK",
    "The Python package SimpleITK is missing, which the comparison of two scans needs. "
    "Install it: pip install --upgrade 'meddifffm[compare]' (in Slicer: pip_install('-U SimpleITK')).",
    DependencyError,
)
def _no_simple_itk(_: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "SimpleITK", None)
    list(registering(body(), body()))


@case(
    "table of findings without places",
    "'{folder}/a.csv' has no places. "
    "Give a .csv file with the columns r_mm, a_mm, s_mm, and volume_mm3 or diameter_mm where they are known.",
)
def _no_places(folder: Path, _: pytest.MonkeyPatch) -> None:
    (folder / "a.csv").write_text("number,volume_mm3\n1,100\n", encoding="utf-8")
    listed(str(folder / "a.csv"))


@case(
    "report on one page into a picture",
    "'page.png' is no .pdf file. "
    "Give --pdf a name that ends with .pdf, or put --pdf last to have it beside the result.",
)
def _page_as_picture(_: Path, __: pytest.MonkeyPatch) -> None:
    PageFiles(pdf=Path("page.png"))


if __name__ == "__main__":
    from Testing.unit.bad_input import (
        page as whole_page,
    )  # this module under its own name, with every case in its one list

    PAGE.write_text(whole_page(), encoding="utf-8")
