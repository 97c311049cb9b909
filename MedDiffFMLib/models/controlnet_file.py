"""ControlNet files: the ControlNet alone, with the SHA-256 of the prior that it was trained with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import ModelError
from ..core.safe_load import check_fields, parse_json
from .catalogue import list_models, resolve
from .checkpoint import (
    FoundationModel,
    check_format,
    check_shapes,
    read_metadata,
    read_weights,
    without_memory,
    write_weights,
)

if TYPE_CHECKING:
    import torch

    from ..diffusion.controlled_denoiser import ControlledDenoiser
    from ..networks.controlnet import ControlBranch

FORMAT = "meddifffm-control-1"


@dataclass
class Control:
    """A ControlNet joined to its prior, ready to run.

    Attributes:
        name: catalogue name or file stem.
        sha256: of the file.
        description: what the file says of itself, see :func:`save_control`.
        denoiser: prior and ControlNet as one denoiser; the prior's weights are those of the model, not a copy.
    """

    name: str
    sha256: str
    description: dict[str, Any]
    denoiser: ControlledDenoiser

    @property
    def task(self) -> str:
        """Name of the task that it was trained for."""
        return self.description["task"]

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of its training that its task must know."""
        return self.description["settings"]

    def facts(self) -> dict[str, Any]:
        """Name and hash for a report."""
        return {"name": self.name, "sha256": self.sha256}


def save_control(
    path: Path,
    branch: ControlBranch,
    *,
    task: str,
    prior: dict[str, str],
    settings: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    state: dict[str, torch.Tensor] | None = None,
) -> str:
    """Write a ControlNet in half precision, atomically; returns the file's SHA-256.

    Args:
        task: "super-resolution" or "lesion".
        prior: ``name`` and ``sha256`` of the prior's weight file.
        settings: of the task, see ``ControlTask.settings``.
        training: facts for the card: steps, seconds, cases, figures of the validation.
        state: weights to save instead of the branch's own (an average of them).

    Raises:
        OutputError: the file cannot be written.
    """
    description = {
        "task": task,
        "prior": prior,
        "network": branch.network.as_dict(),
        "control": branch.config.as_dict(),
        "settings": settings or {},
        "training": training or {},
    }
    metadata = {"format": FORMAT, "description": json.dumps(description)}
    return write_weights(path, branch.state_dict() if state is None else state, metadata)


def read_description(path: Path) -> dict[str, Any]:
    """Description of a ControlNet by its own file, without loading weights.

    Raises:
        ModelError: missing, damaged, a pickle, or not a ControlNet of this format.
    """
    return _description(path, read_metadata(path))


def _description(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    remedy = "Use a file made by `meddifffm finetune` or listed by `meddifffm models`."
    check_format(path, metadata, FORMAT, "MedDiff-FM ControlNet", remedy)
    try:
        description = parse_json(metadata["description"])
        texts = [description["prior"]["sha256"], description["prior"].get("name", ""), description["task"]]
        objects = [description["settings"], description.get("control", {})]
        if not all(isinstance(t, str) for t in texts) or not all(isinstance(o, dict) for o in objects):
            raise ValueError("values of other types")
        return description
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{path.name} has a damaged description.", "Fetch it again.") from error


def load_control(spec: str | Path, model: FoundationModel, task: str | None = None) -> Control:
    """Load a ControlNet and join it to its prior.

    Args:
        spec: name from the catalogue, or path of a .safetensors file.
        task: refuse a ControlNet that was trained for another task.

    Raises:
        ModelError: unknown, damaged, of another prior or for another task.
    """

    from ..diffusion.controlled_denoiser import with_control
    from ..networks.controlnet import ControlBranch, ControlConfig

    name, path, expected = resolve(str(spec))
    description = read_description(path)
    prior = description["prior"]
    if task is not None and description["task"] != task:
        raise ModelError(
            f"{path.name} is a ControlNet for {description['task']}, not for {task}.", "Choose one for this task."
        )
    if prior["sha256"] != model.sha256:
        raise ModelError(
            f"{path.name} was trained with the prior {prior.get('name', '')!r} ({prior['sha256'][:12]}...), "
            f"not with {model.name!r} ({model.sha256[:12]}...).",
            "Use it with its own prior (--model), or fine-tune again on this one.",
        )
    weights = read_weights(path, expected)
    description = _description(path, weights.metadata)
    try:
        check_fields(ControlConfig, description["control"])
        config = ControlConfig(**description["control"])
        with without_memory():
            described = ControlBranch(model.engine.denoiser.network.config, config).state_dict()  # type: ignore[union-attr, arg-type]
        check_shapes(weights, {name: tuple(tensor.shape) for name, tensor in described.items()})
        denoiser = with_control(model.engine.denoiser, config, weights.state)  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise ModelError(
            f"The weights in {path.name} do not fit its description ({first}).", "Fetch it again."
        ) from error
    return Control(name, weights.sha256, description, denoiser.eval().requires_grad_(False))


def find_control(task: str, model: FoundationModel) -> str | None:
    """Name of the catalogue's ControlNet for a task and a prior, the user's latest before a shipped one; else None."""
    fitting = [entry for entry in list_models("control") if entry.task == task and entry.prior == model.sha256]
    own = [entry for entry in fitting if entry.is_own]
    if own:
        return max(own, key=lambda entry: entry.path.stat().st_mtime if entry.path.exists() else 0.0).name
    return fitting[0].name if fitting else None
