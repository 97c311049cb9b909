"""Weight file of the flows of translation."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..core.errors import ModelError
from ..models.checkpoint import Weights, check_format, check_shapes, read_weights, write_weights
from .familiarity import Familiarity
from .flow import Flow, FlowConfig

FORMAT = "meddifffm-multi-1"
MODEL = "translate-starter"
_FAMILIAR, _ARRAYS = "familiarity.", ("center", "scale", "places")


@dataclass(frozen=True)
class Flows:
    """Flows that are ready to run.

    Attributes:
        flows: by target.
        spread: target -> factor on the standard deviation, from patients that were held out.
        familiarity: of the MRs in training.
        sha256: of the file.
        facts: what the file says of its training.
    """

    flows: dict[str, Flow]
    spread: dict[str, float]
    familiarity: Familiarity
    sha256: str = ""
    facts: dict[str, Any] | None = None


def save_flows(path: Path, trained: Flows) -> str:
    """Write flows in half precision, atomically; returns the file's SHA-256."""
    familiar = trained.familiarity
    state = nn.ModuleDict(trained.flows).state_dict()
    state |= {f"{_FAMILIAR}{name}": torch.from_numpy(getattr(familiar, name)) for name in _ARRAYS}
    config = {
        "flows": {name: flow.config.as_dict() for name, flow in trained.flows.items()},
        "spread": trained.spread,
        "limit": familiar.limit,
    }
    facts = trained.facts or {}
    return write_weights(path, state, {"format": FORMAT, "config": json.dumps(config), "training": json.dumps(facts)})


def load_flows(path: Path, sha256: str | None = None, device: str = "cpu") -> Flows:
    """Read flows.

    Args:
        sha256: what the file's bytes must have, None for any.

    Raises:
        ModelError: missing, damaged, a pickle, or something else.
    """
    weights = read_weights(path, sha256)
    remedy = "Use weights made by `meddifffm pretrain-translate`, or install MedDiff-FM again."
    check_format(path, weights.metadata, FORMAT, "flows of modalities", remedy)
    try:
        config = json.loads(weights.metadata["config"])
        configs = {name: _config(row) for name, row in config["flows"].items()}
        spread = {name: float(config["spread"][name]) for name in configs}
        facts = json.loads(weights.metadata.get("training", "{}"))
        arrays = {name: weights.state.pop(f"{_FAMILIAR}{name}").numpy() for name in _ARRAYS}
        familiarity = Familiarity(**arrays, limit=float(config["limit"]))
        flows = _filled(weights, configs)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{path.name} has a damaged description ({error}).", remedy) from error
    return Flows({name: flow.to(device) for name, flow in flows.items()}, spread, familiarity, weights.sha256, facts)


def _config(row: dict[str, Any]) -> FlowConfig:
    config = FlowConfig(tuple(row["sources"]), tuple(row["channels"]), int(row["groups"]), float(row["deviation"]))
    config.check()
    return config


def _filled(weights: Weights, configs: dict[str, FlowConfig]) -> dict[str, Flow]:
    """The flows with the file's tensors, whose sizes are compared before memory is taken."""
    with torch.device("meta"):
        described = nn.ModuleDict({name: Flow(config) for name, config in configs.items()}).state_dict()
    check_shapes(weights, {name: tuple(tensor.shape) for name, tensor in described.items()})
    flows = {name: Flow(config) for name, config in configs.items()}
    nn.ModuleDict(flows).load_state_dict(weights.state)
    for flow in flows.values():
        flow.eval().requires_grad_(False).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return flows


@functools.cache
def shipped_flows(device: str = "cpu") -> Flows:
    """The flows of the catalogue, read once a process."""
    from ..models.catalogue import resolve

    _, path, expected = resolve(MODEL)
    return load_flows(path, expected, device)
