"""Tasks, lesions and datalists."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from MedDiffFMLib.core.errors import ModelError
from MedDiffFMLib.models.no_model import NoModel
from MedDiffFMLib.tasks.base import Case, Run
from MedDiffFMLib.tasks.find.spec import Find
from MedDiffFMLib.tasks.generate_lesion.lesion_shape import make_lesion_mask
from MedDiffFMLib.tasks.generate_lesion.spec import GenerateLesion
from MedDiffFMLib.tasks.super_resolve.recipe import choose_factors
from MedDiffFMLib.tasks.super_resolve.spec import SuperResolve
from Testing.unit.phantoms import body

from .adapters import model_of
from .rows import case


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
    GenerateLesion(diameter=20).run(Case(body()), Run(model_of("cd" * 32)))


@case(
    "lesion without mask and diameter",
    "There is no mask of the lesion. Give one, or a diameter for one to be made.",
)
def _no_lesion_mask(_: Path, __: pytest.MonkeyPatch) -> None:
    GenerateLesion().run(Case(body()), Run(model_of("cd" * 32)))


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
