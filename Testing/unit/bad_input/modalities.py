"""CT and MR."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from MedDiffFMLib.multimodal.prepared import prepare_mr
from MedDiffFMLib.multimodal.rigid_registration import align
from MedDiffFMLib.runner.case import checked_case
from MedDiffFMLib.tasks.translate.recipe import NO_FAT, STRANGE, doubts
from MedDiffFMLib.tasks.translate.spec import Translate
from Testing.unit.phantoms import body

from .rows import case


@case("MR given to describe", "The volume is marked as MR, not as CT. Choose a CT volume.")
def _mr_to_describe(*_: object) -> None:
    checked_case("describe", {"volume": replace(body(), modality="MR")})


@case(
    "CT given to translate --to ct",
    "The values (-1067 to 637) do not look like MR, whose signal is not negative; they fit CT or normalized data. "
    "Choose an MR volume.",
)
def _ct_as_mr(*_: object) -> None:
    checked_case("translate", {"volume": replace(body(), modality="MR")}, inputs=Translate().takes)


@case("MR given to translate --to mr-t1", "The volume is marked as MR, not as CT. Choose a CT volume.")
def _mr_as_ct(*_: object) -> None:
    image = replace(body(), voxels=body().voxels + 1024, modality="MR")
    checked_case("translate", {"volume": image}, inputs=Translate(to="mr-t1").takes)


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
