"""Presets of the training of many modalities: ``meddifffm multimodal train --preset NAME``. Imports no torch."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    # A hundred patients and a core or two: what the figures in docs/results/alignment.md were made with, longer.
    "starter": {
        "align": {"batch": 128},
        "text": {"batch": 128},
        "translate": {},
    },
    # Some hundred patients and pairs, and a GPU: contrastive losses gain by large batches, flows by width.
    "lab": {
        "align": {"batch": 256, "steps": 20_000, "learning_rate": 5e-4, "validate_every": 1000},
        "text": {"batch": 512, "steps": 6000},
        "translate": {
            "window": (32, 64, 64), "batch": 8,
            "ct": {"channels": (32, 64, 128)}, "mr": {"channels": (32, 64, 96)},
            "loop": {"steps": 40_000, "learning_rate": 5e-4, "validate_every": 1000, "ema": 0.999, "warmup": 500},
        },
    },
}  # fmt: skip
"""Preset -> stages -> settings that differ from the defaults of ``AlignConfig``, ``TextConfig`` and so on."""
