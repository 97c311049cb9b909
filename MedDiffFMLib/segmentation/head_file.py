"""Files of trained segmentation heads.

A file is safetensors in half precision with the metadata ``format`` ("meddifffm-segmentation-1") and ``description``
(JSON): ``task`` "segmentation", ``method`` and its ``options``, ``labels`` (value, name, color, terminology of each
class in the order of the network's outputs), ``spacing`` (mm, of the isotropic working grid), ``prior`` (name and
SHA-256 of the prior it was trained with), ``settings`` and ``training`` (facts for the card),
``body``, the SHA-256 of the body coordinates that it was given, and, where patients were left to tell them,
``temperature`` (``values``, one a class, and their ``source``), see :mod:`.calibration`, ``outline`` (the better way to
outline), see :mod:`.outline`, and ``context`` (``patients`` that it learned from, and ``dice_gain``), see
:mod:`.context`. The names of a context head's weights begin with CONTEXT.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import ModelError
from ..core.safe_load import parse_json
from ..datasets.labels import SegmentLabel
from ..models.catalogue import list_models, resolve
from ..models.checkpoint import (
    FoundationModel,
    build_denoiser,
    check_format,
    read_metadata,
    read_weights,
    write_weights,
)
from .outline import BEST, HALF

if TYPE_CHECKING:
    from torch import nn

    from .method import Segmenter

FORMAT = "meddifffm-segmentation-1"
CONTEXT = "context."
"""What the names of a context head's weights begin with."""


@dataclass
class Head:
    """A trained head joined to its prior.

    Attributes:
        name: catalogue name or file stem.
        sha256: of the file.
        description: what the file says of itself.
        labels: one for each class.
        spacing: of the working grid, mm.
        segmenter: ready to predict, on the CPU.
    """

    name: str
    sha256: str
    description: dict[str, Any]
    labels: tuple[SegmentLabel, ...]
    spacing: float
    segmenter: Segmenter

    @property
    def temperatures(self) -> list[float] | None:
        """By which the logits of each class are divided; None for a head whose probabilities are as they come."""
        values = self.description.get("temperature", {}).get("values")
        return None if values is None else [float(value) for value in values]

    @property
    def outline(self) -> str:
        """The way to outline; where no patients told it, by best thresholds for heads on features, which doubt."""
        return self.description.get("outline", BEST if self.description["method"] == "features" else HALF)

    @property
    def other_body(self) -> bool:
        """Whether it was trained with body coordinates of another version than those it will be given."""
        from ..preprocessing.body_coordinates import shipped_sha256

        return self.description.get("body", shipped_sha256()) != shipped_sha256()

    def facts(self) -> dict[str, Any]:
        """For a report."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "method": self.description["method"],
            "spacing_mm": self.spacing,
            "temperature": self.description.get("temperature"),
            "outline": self.outline,
            "context": self.description.get("context"),
        }


def save_head(
    path: Path,
    part: nn.Module,
    *,
    method: str,
    options: dict[str, Any],
    labels: Sequence[SegmentLabel],
    spacing: float,
    prior: dict[str, str],
    settings: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
) -> str:
    """Write a head atomically; returns the file's SHA-256.

    Raises:
        OutputError: the file cannot be written.
    """
    from ..preprocessing.body_coordinates import shipped_sha256

    description = {
        "task": "segmentation",
        "method": method,
        "options": options,
        "labels": [label.as_dict() for label in labels],
        "spacing": spacing,
        "prior": prior,
        "settings": settings or {},
        "training": training or {},
        "body": shipped_sha256(),
    }
    return write_weights(path, part.state_dict(), {"format": FORMAT, "description": json.dumps(description)})


def complete_head(
    path: Path,
    *,
    temperatures: Sequence[float],
    source: str,
    outline: str,
    context: nn.Module | None = None,
    patients: int = 0,
    gain: float = 0.0,
) -> str:
    """Write into the file of a head what other patients told, at once; returns its new SHA-256.

    Args:
        temperatures: one a class.
        source: patients that they were fitted on, in words.
        outline: BEST or HALF.
        context: a context head, None for none.
        patients: that the context head learned from.
        gain: in Dice, by the context head, of patients that were left out.

    Raises:
        ModelError: no head of this format.
        OutputError: the file cannot be written.
    """
    weights = read_weights(path)
    description = _description(path, weights.metadata)
    description |= {"temperature": {"values": list(temperatures), "source": source}, "outline": outline}
    state = dict(weights.state)
    if context is not None:
        description["context"] = {"patients": patients, "dice_gain": round(gain, 4)}
        state |= {CONTEXT + name: value for name, value in context.state_dict().items()}
    return write_weights(path, state, {"format": FORMAT, "description": json.dumps(description)})


def read_head(path: Path) -> dict[str, Any]:
    """Description of a head by its own file, without loading weights.

    Raises:
        ModelError: missing, damaged, a pickle, or no head of this format.
    """
    return _description(path, read_metadata(path))


def _description(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    remedy = "Use a file made by `meddifffm finetune --task segmentation`."
    check_format(path, metadata, FORMAT, "segmentation head", remedy)
    try:
        description = parse_json(metadata["description"])
        _labels(description)
        description["prior"]["sha256"], description["method"], description["options"], float(description["spacing"])
        _check_temperatures(description)
        return description
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path.name} has a damaged description.", "Fetch it again, or train it again.") from error


def load_head(spec: str | Path, model: FoundationModel) -> Head:
    """Load a head and join it to its prior.

    Args:
        spec: name from the catalogue, or path of a .safetensors file.

    Raises:
        ModelError: unknown, damaged, or made for another prior.
    """
    from ..core.errors import InputError
    from .method import make_method

    name, path, expected = resolve(str(spec))
    description = read_head(path)
    prior = description["prior"]
    if prior["sha256"] != model.sha256:
        raise ModelError(
            f"{path.name} was trained with the prior {prior.get('name', '')!r} ({prior['sha256'][:12]}...), "
            f"not with {model.name!r} ({model.sha256[:12]}...).",
            "Use it with its own prior (--model), or train it again on this one.",
        )
    weights = read_weights(path, expected)
    description = _description(path, weights.metadata)
    labels = _labels(description)
    try:
        method = make_method(description["method"], description["options"])
        # A body of its own comes whole from the file, and is as it was trained; the engine's was rewritten for speed.
        prior_body = build_denoiser(model.config) if method.own_body else model.engine.denoiser
        segmenter = method.build(len(labels), prior_body)
        context = {n.removeprefix(CONTEXT): v for n, v in weights.state.items() if n.startswith(CONTEXT)}
        segmenter.part.load_state_dict({n: v for n, v in weights.state.items() if not n.startswith(CONTEXT)})
        if "context" in description:
            _join_context(segmenter, context, len(labels))
    except (InputError, KeyError, TypeError, ValueError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise ModelError(
            f"The weights in {path.name} do not fit its description ({first}).", "Fetch it again, or update."
        ) from error
    segmenter.eval().requires_grad_(False)
    return Head(name, weights.sha256, description, labels, float(description["spacing"]), segmenter)


def _join_context(segmenter: Segmenter, state: dict[str, Any], classes: int) -> None:
    from .context import ContextHead
    from .features import FeatureSegmenter

    if not isinstance(segmenter, FeatureSegmenter):
        raise ValueError("this method has no context head")
    segmenter.context = ContextHead(classes)
    segmenter.context.load_state_dict(state)


def find_head(model: FoundationModel) -> str | None:
    """Name of the user's latest head for a prior in the catalogue; None where there is none."""
    fitting = [entry for entry in list_models("segmentation") if entry.prior == model.sha256]
    if not fitting:
        return None
    return max(fitting, key=lambda entry: entry.path.stat().st_mtime if entry.path.exists() else 0.0).name


def _check_temperatures(description: dict[str, Any]) -> None:
    values = description.get("temperature", {}).get("values")
    if values is not None and (
        len(values) != len(description["labels"]) or not all(math.isfinite(float(v)) and float(v) > 0 for v in values)
    ):
        raise ValueError("no temperatures")


def _labels(description: dict[str, Any]) -> tuple[SegmentLabel, ...]:
    labels = tuple(SegmentLabel.from_dict(int(row["value"]), row) for row in description["labels"])
    if not labels:
        raise ValueError("no labels")
    return labels
