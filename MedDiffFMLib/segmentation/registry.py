"""Segmentation methods by name. Imports no torch; a row names the module of a method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_PACKAGE = __name__.rpartition(".")[0]


@dataclass(frozen=True)
class MethodRow:
    """One method.

    Attributes:
        sentence: one sentence for the user.
        module, options: module and name of its options, a frozen dataclass as :class:`.method.Method` describes.
        pace: preset of fine-tuning -> what differs from it for this method.
    """

    sentence: str
    module: str
    options: str
    schedule: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


METHODS = {
    "features": MethodRow(
        "A small head on the activations of the frozen prior: minutes, one to five scans.",
        f"{_PACKAGE}.features",
        "FeatureMethod",
        {
            "small": {"steps": 400, "batch": 4, "learning_rate": 3e-3, "validate_every": 100, "checkpoint_every": 100},
            "standard": {"steps": 2000, "learning_rate": 2e-3, "validate_every": 200},
        },
    ),
    "unet": MethodRow(
        "The prior's own U-Net, head first and then all of it, or the same body from random weights.",
        f"{_PACKAGE}.unet",
        "UNetMethod",
    ),
    "dynunet": MethodRow("MONAI's DynUNet from scratch, for comparison.", f"{_PACKAGE}.dynunet", "DynUNetMethod"),
    "medsegdiff": MethodRow(
        "Mask diffusion with an ensemble of samples (MedSegDiff in 3-D windows).",
        f"{_PACKAGE}.medsegdiff",
        "MedSegDiffMethod",
        {
            "small": {"steps": 700, "batch": 4, "window": 32, "learning_rate": 1e-3, "validate_every": 350},
            "standard": {"steps": 6000, "learning_rate": 1e-3, "validate_every": 500},
        },
    ),
}
