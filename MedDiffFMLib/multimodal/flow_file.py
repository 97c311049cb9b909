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
from ..networks.registry import network_config
from .familiarity import Familiarity
from .flow import Flow, FlowConfig
from .local_guess import LocalGuess
from .nearest_neighbor import Neighbors
from .trunk_flow import make_flow

FORMAT = "meddifffm-multi-1"
MODEL = "translate-starter"
_GUESS = "guess."
_ARRAYS = {"familiarity": ("center", "scale", "places"), "neighbors": ("features", "scale", "values")}


@dataclass(frozen=True)
class Flows:
    """Flows that are ready to run.

    Attributes:
        flows: by target.
        spread: target -> factor on the standard deviation, from patients that were held out.
        strength: target -> share of the flow's correction that is taken, also from these.
        familiarity: of the MRs in training.
        guess: what the flow of CT corrects.
        neighbors: voxels of the training pairs, for the baseline that the flows are compared with.
        sha256: of the file.
        facts: what the file says of its training.
    """

    flows: dict[str, Flow]
    spread: dict[str, float]
    strength: dict[str, float]
    familiarity: Familiarity
    neighbors: Neighbors
    guess: LocalGuess
    sha256: str = ""
    facts: dict[str, Any] | None = None


def save_flows(path: Path, trained: Flows) -> str:
    """Write flows in half precision, atomically; returns the file's SHA-256."""
    state = {**nn.ModuleDict(trained.flows).state_dict(), **_prefixed(trained.guess.state_dict())}
    for part, names in _ARRAYS.items():
        state |= {f"{part}.{name}": torch.from_numpy(getattr(getattr(trained, part), name)) for name in names}
    config = {
        "flows": {name: flow.config.as_dict() for name, flow in trained.flows.items()},
        "spread": trained.spread,
        "strength": trained.strength,
        "limit": trained.familiarity.limit,
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
        spread, strength = ({name: float(config[key][name]) for name in configs} for key in ("spread", "strength"))
        facts = json.loads(weights.metadata.get("training", "{}"))
        arrays = {
            part: {name: weights.state.pop(f"{part}.{name}").numpy() for name in names}
            for part, names in _ARRAYS.items()
        }
        familiarity = Familiarity(**arrays["familiarity"], limit=float(config["limit"]))
        neighbors = Neighbors(**arrays["neighbors"])
        guess = LocalGuess()
        guess.load_state_dict({name: weights.state.pop(f"{_GUESS}{name}") for name in guess.state_dict()})
        flows = _filled(weights, configs)
    except (KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{path.name} has a damaged description ({error}).", remedy) from error
    flows = {name: flow.to(device) for name, flow in flows.items()}
    return Flows(
        flows, spread, strength, familiarity, neighbors, guess.eval().requires_grad_(False), weights.sha256, facts
    )


def _prefixed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{_GUESS}{name}": tensor for name, tensor in state.items()}


def _config(row: dict[str, Any]) -> FlowConfig:
    trunk: Any = network_config({"network": row["trunk"]}) if "trunk" in row else None
    sizes = tuple(row["channels"]), int(row["groups"]), float(row["deviation"])
    config = FlowConfig(tuple(row["sources"]), *sizes, trunk)
    config.check()
    return config


def _filled(weights: Weights, configs: dict[str, FlowConfig]) -> dict[str, Flow]:
    """The flows with the file's tensors, whose sizes are compared before memory is taken."""
    with torch.device("meta"):
        described = nn.ModuleDict({name: make_flow(config) for name, config in configs.items()}).state_dict()
    check_shapes(weights, {name: tuple(tensor.shape) for name, tensor in described.items()})
    flows = {name: make_flow(config) for name, config in configs.items()}
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
