"""Adapters, heads and encoders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from MedDiffFMLib.core.errors import DependencyError, InputError, ModelError
from MedDiffFMLib.datasets.segments import merge_segments
from MedDiffFMLib.models.checkpoint import FoundationModel
from MedDiffFMLib.models.controlnet_file import FORMAT as CONTROL_FORMAT
from MedDiffFMLib.models.controlnet_file import load_control
from MedDiffFMLib.multimodal.aligned import AlignedEncoders, load_encoders, save_encoders
from MedDiffFMLib.multimodal.text_codecs import HashedNgrams
from MedDiffFMLib.segmentation.head_file import FORMAT as HEAD_FORMAT
from MedDiffFMLib.segmentation.head_file import load_head

from .rows import case
from .weights import weights_file


def _control(path: Path, task: str = "lesion") -> Path:
    """The head of a ControlNet's file."""
    description = {"task": task, "prior": {"name": "starter-ct", "sha256": "ab" * 32}, "settings": {}}
    return weights_file(path, CONTROL_FORMAT, {"description": json.dumps(description)})


def model_of(sha256: str) -> FoundationModel:
    """A prior by name, without weights: it is refused before they are needed."""
    return FoundationModel("other", sha256, {}, engine=None)  # type: ignore[arg-type]


@case(
    "ControlNet of another prior",
    "control.safetensors was trained with the prior 'starter-ct' (abababababab...), not with 'other' "
    "(cdcdcdcdcdcd...). Use it with its own prior (--model), or fine-tune again on this one.",
    ModelError,
)
def _other_prior(folder: Path, _: pytest.MonkeyPatch) -> None:
    load_control(_control(folder / "control.safetensors"), model_of("cd" * 32))


def _head(path: Path) -> Path:
    """The head of a segmentation head's file."""
    description = {
        "method": "features",
        "options": {},
        "spacing": 2.0,
        "labels": [{"value": 1, "name": "tumor"}],
        "prior": {"name": "starter-ct", "sha256": "ab" * 32},
    }
    return weights_file(path, HEAD_FORMAT, {"description": json.dumps(description)})


@case(
    "segmentation head of another prior",
    "head.safetensors was trained with the prior 'starter-ct' (abababababab...), not with 'other' "
    "(cdcdcdcdcdcd...). Use it with its own prior (--model), or train it again on this one.",
    ModelError,
)
def _head_of_other_prior(folder: Path, _: pytest.MonkeyPatch) -> None:
    load_head(_head(folder / "head.safetensors"), model_of("cd" * 32))


@case(
    "ControlNet offered as segmentation head",
    "control.safetensors holds no segmentation head ('meddifffm-control-1', not 'meddifffm-segmentation-1'). "
    "Use a file made by `meddifffm finetune --task segmentation`.",
    ModelError,
)
def _control_as_head(folder: Path, _: pytest.MonkeyPatch) -> None:
    load_head(_control(folder / "control.safetensors"), model_of("ab" * 32))


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
    load_control(_control(folder / "control.safetensors"), model_of("ab" * 32), "super-resolution")


@case(
    "prior offered as ControlNet",
    "prior.safetensors holds no MedDiff-FM ControlNet ('meddifffm-prior-1', not 'meddifffm-control-1'). "
    "Use a file made by `meddifffm finetune` or listed by `meddifffm models`.",
    ModelError,
)
def _prior_as_control(folder: Path, _: pytest.MonkeyPatch) -> None:
    load_control(weights_file(folder / "prior.safetensors"), model_of("ab" * 32))


@case(
    "prior offered as encoders of many modalities",
    "prior.safetensors holds no aligned encoders of this version. "
    "Name a file that `meddifffm multimodal train --stage align` wrote.",
    ModelError,
)
def _prior_as_encoders(folder: Path, _: pytest.MonkeyPatch) -> None:
    load_encoders(weights_file(folder / "prior.safetensors"))


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
