"""The three encoders as one model, and their file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..core.errors import ModelError
from .alignment import Temperature
from .encoders import ImageEncoder, Vectors
from .fact_encoder import FactEncoder
from .facts.fact import Statement

FORMAT = "meddifffm-aligned-2"
LINKS = ("text_ct", "text_xray", "ct_mr", "text_part", "ct_mr_part")
"""Pairs that are drawn together in training, and those of parts."""


class AlignedEncoders(nn.Module):
    """Encoders of boxes, X-rays and texts whose vectors can be compared, with a temperature for each link."""

    def __init__(self) -> None:
        super().__init__()
        self.volumes = ImageEncoder(3, ("ct", "mr"))
        self.pictures = ImageEncoder(2, ("xray",))
        self.texts = FactEncoder()
        self.scales = nn.ModuleDict({link: Temperature() for link in LINKS})

    def ct(self, boxes: torch.Tensor) -> Vectors:
        """Vectors of CT boxes (B, 1, 32, 32, 32), see :func:`.boxes.ct_input`."""
        return self.volumes(boxes, "ct")

    def mr(self, boxes: torch.Tensor) -> Vectors:
        """Vectors of MR boxes (B, 1, 32, 32, 32), see :func:`.boxes.mr_input`."""
        return self.volumes(boxes, "mr")

    def xray(self, pictures: torch.Tensor) -> Vectors:
        """Vectors of X-rays (B, 1, 64, 64)."""
        return self.pictures(pictures, "xray")

    def text(self, texts: Sequence[Sequence[Statement]]) -> torch.Tensor:
        """(B, SIZE) unit vectors of texts, of each its facts."""
        vectors: torch.Tensor = self.texts(self.texts.told(texts))
        return vectors


def save_encoders(path: Path, encoders: AlignedEncoders, facts: dict[str, Any]) -> str:
    """Write the encoders in half precision, atomically; returns the file's SHA-256.

    Raises:
        OutputError: the file cannot be written.
    """
    from ..models.checkpoint import write_weights

    return write_weights(path, encoders.state_dict(), {"format": FORMAT, "training": json.dumps(facts)})


def load_encoders(path: Path, sha256: str | None = None) -> AlignedEncoders:
    """Read the encoders, on the CPU.

    Args:
        sha256: what the file's bytes must have, None for any.

    Raises:
        ModelError: missing, damaged, a pickle, or something else.
    """
    from ..models.checkpoint import read_weights

    weights = read_weights(path, sha256)
    if weights.metadata.get("format") != FORMAT:
        raise ModelError(
            f"{path.name} holds no aligned encoders of this version.",
            "Name a file that `meddifffm multimodal train --stage align` wrote.",
        )
    encoders = AlignedEncoders()
    try:
        encoders.load_state_dict(weights.state)
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        raise ModelError(f"The weights in {path.name} do not fit ({first}).", "Train them again.") from error
    return encoders.eval().requires_grad_(False)


def find_encoders(spec: str | None = None) -> AlignedEncoders:
    """Encoders by name in the catalogue or by path; those of the catalogue where nothing is named.

    Raises:
        ModelError: there are none, or the file cannot be used.
    """
    from ..models.catalogue import list_models, resolve

    if spec is None:
        listed = list_models("encoders")
        if not listed:
            raise ModelError(
                "No encoders of texts and images are installed.",
                "Train some with `meddifffm multimodal train`, and name their file with --encoders.",
            )
        spec = listed[0].name
    _, path, expected = resolve(spec)
    return load_encoders(path, expected)
