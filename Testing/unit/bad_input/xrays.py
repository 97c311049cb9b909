"""X-rays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from MedDiffFMLib.imaging.io import read_volume
from MedDiffFMLib.imaging.modality_checks import check_volume
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.multimodal.shadow_hull import Shadow, hull_of
from MedDiffFMLib.multimodal.xray_pose import poses
from MedDiffFMLib.runner.case import checked_case
from MedDiffFMLib.tasks.radiograph.spec import Radiograph
from Testing.unit.phantoms import body

from .rows import case


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


@case("detector of two pixels", "pixels is 2. Allowed are 16 to 4096.")
def _small_detector(*_: object) -> None:
    Radiograph(pixels=2)
