"""Presets of pre-training: ``meddifffm pretrain --config NAME``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import PretrainConfig

PRESETS: dict[str, dict[str, Any]] = {
    # What the next shipped prior is trained with: deep below, where blocks cost little; tissue classes as an input;
    # levels weighted by what they still leave; the length of the average chosen afterwards.
    "starter-ct": {
        "network": {"blocks": (1, 2, 3), "tissue": True},
        "weighting": "learned",
        "loop": {"steps": 100_000, "decay_share": 0.2, "widths": (0.05, 0.1)},
    },
    # The recipe of version 0.1, the defaults of all settings.
    "starter-ct-0.1": {},
    # MedDiff-FM as far as it was published (arXiv 2410.15432, 1.1 to 1.3), behind the Haar stem: base 32, one block a
    # level, attention at 16^3 only, noise prediction on the cosine chain with L1, a third of the windows from each
    # level, Adam at 1e-4. What it leaves open (dropped conditions, weight average, clipping) is as in starter-ct.
    "paper-ct": {
        "batch": 4,
        "denoiser": "cosine-epsilon",
        "network": {"channels": (32, 64, 128), "blocks": 1, "attention": (False, False, True)},
        "windows": {
            "size": 128,
            "spacing": 1.0,
            "zoom": 1.0,
            "acquisition_share": 0.0,
            "fill_share": 0.0,
            "denoise_share": 0.0,
            "drop_tissue": 1.0,
        },
        "noise": {"levels": "cosine-steps"},
        "loop": {"steps": 181_000, "learning_rate": 1e-4, "weight_decay": 0.0, "decay_share": 0.0},
    },
    # Whole bodies only, and more of the noise at which their layout is decided: --initial starter-ct becomes the
    # companion that invents the coarse image of a synthetic CT.
    "whole-body": {
        "windows": {"levels": ("whole",), "fill_share": 0.0, "denoise_share": 0.0},
        "noise": {"log_mean": 0.6, "log_std": 1.5},
        "loop": {"steps": 1000, "learning_rate": 8e-4},
    },
}


def preset(name: str) -> PretrainConfig:
    """The settings of a recipe."""
    from dataclasses import fields, is_dataclass, replace

    from .config import PretrainConfig

    config = PretrainConfig()
    changes: dict[str, Any] = {}
    for field in fields(config):
        if field.name in PRESETS[name]:
            before, change = getattr(config, field.name), PRESETS[name][field.name]
            changes[field.name] = replace(before, **change) if is_dataclass(before) else change  # type: ignore[type-var]
    return replace(config, **changes)
