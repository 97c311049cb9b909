"""Gate between stages of training: none may worsen what an earlier one reached. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ...core.atomic_files import atomic_path
from ...core.errors import ModelError

ALLOWED = 0.02
"""Share by which a figure may fall."""
RECALLS = ("_r1", "_r5")
"""Ends of the names of figures that are judged: shares of partners found, of which more is better."""
REFUSED = "worse.safetensors"


def worsened(before: Mapping[str, float], after: Mapping[str, float], allowed: float = ALLOWED) -> list[str]:
    """Names of the figures, higher is better, that fell by more than a share; one that is missing afterwards fell."""
    return [name for name, value in before.items() if after.get(name, 0.0) < (1 - allowed) * value]


def pass_gate(weights: Path, before: Mapping[str, float], after: Mapping[str, float], keep: bool) -> list[str]:
    """Write both into ``gate.json`` beside the weights of a stage, and set these aside where they are worse.

    Args:
        weights: file of the later stage.
        before, after: figures of the earlier and of the later stage on the same held-out cases.
        keep: leave the weights in their place all the same.

    Returns:
        Names of what is worse.

    Raises:
        ModelError: something is worse; the weights are then called ``worse.safetensors``.
    """
    judged = {name: value for name, value in before.items() if name.endswith(RECALLS)}
    worse = worsened(judged, after)
    record = {"before": judged, "after": {name: after.get(name) for name in judged}, "worse": worse, "allowed": ALLOWED}
    with atomic_path(weights.parent / "gate.json", overwrite=True) as temporary:
        temporary.write_text(json.dumps(record, indent=1), encoding="utf-8")
    if worse and not keep:
        weights.replace(weights.parent / REFUSED)
        falls = ", ".join(f"{name} from {before[name]:.3f} to {after.get(name, 0.0):.3f}" for name in worse)
        raise ModelError(
            f"Training made worse what the initial weights had reached: {falls}. Its weights are called {REFUSED}.",
            "Train it longer or with a lower learning rate; or take it all the same with --keep-worse.",
        )
    return worse
