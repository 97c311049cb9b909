"""The three encoders as one model, and their file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..core.errors import DependencyError, ModelError
from ..core.safe_load import parse_json
from .alignment import Temperature
from .encoders import ImageEncoder, Vectors
from .fact_encoder import FactEncoder
from .facts.fact import Statement
from .sentence_encoder import SentenceEncoder
from .text_codecs import TextCodec, find_codec

FORMAT = "meddifffm-aligned-2"
_CODEC = "text_codec"
"""Key of the codec in a file's description; files whose texts are facts have none."""
LINKS = ("text_ct", "text_xray", "ct_mr", "text_part", "ct_mr_part")
"""Pairs that are drawn together in training, and those of parts."""


class AlignedEncoders(nn.Module):
    """Encoders of boxes, X-rays and texts whose vectors can be compared, with a temperature for each link.

    Args:
        codec: that reads texts, sentence by sentence; None for the grammar of facts.
    """

    def __init__(self, codec: TextCodec | None = None) -> None:
        super().__init__()
        self.volumes = ImageEncoder(3, ("ct", "mr"))
        self.pictures = ImageEncoder(2, ("xray",))
        self.texts: FactEncoder | SentenceEncoder = FactEncoder() if codec is None else SentenceEncoder(codec)
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
        return self._vectors(self.texts.told(texts))

    def asked(self, prompt: str) -> tuple[torch.Tensor, str]:
        """(SIZE,) unit vector of a user's words, and a sentence on how they were read.

        Raises:
            InputError: nothing of them was understood.
        """
        told, understood = self.texts.asked(prompt)
        return self._vectors(told)[0], understood

    def _vectors(self, told: Sequence[torch.Tensor]) -> torch.Tensor:
        device = next(self.texts.parameters()).device
        vectors: torch.Tensor = self.texts(type(told)(*(part.to(device) for part in told)))
        return vectors


def save_encoders(path: Path, encoders: AlignedEncoders, facts: dict[str, Any]) -> str:
    """Write the encoders in half precision, atomically; returns the file's SHA-256.

    Raises:
        OutputError: the file cannot be written.
    """
    from ..models.checkpoint import write_weights

    described = {"format": FORMAT, "training": json.dumps(facts)}
    if isinstance(encoders.texts, SentenceEncoder):
        described[_CODEC] = json.dumps(codec_record(encoders.texts.codec))
    return write_weights(path, encoders.state_dict(), described)


def codec_record(codec: TextCodec) -> dict[str, Any]:
    """What a weight file says of its codec."""
    return {"name": codec.name, "version": codec.version, "size": codec.size}


def load_encoders(path: Path, sha256: str | None = None) -> AlignedEncoders:
    """Read the encoders, on the CPU.

    Args:
        sha256: what the file's bytes must have, None for any.

    Raises:
        ModelError: missing, damaged, a pickle, or something else; or its text codec is of another version.
        DependencyError: its text codec is not installed.
    """
    from ..models.checkpoint import read_weights

    weights = read_weights(path, sha256)
    if weights.metadata.get("format") != FORMAT:
        raise ModelError(
            f"{path.name} holds no aligned encoders of this version.",
            "Name a file that `meddifffm multimodal train --stage align` wrote.",
        )
    encoders = AlignedEncoders(_codec_of(path, weights.metadata))
    try:
        encoders.load_state_dict(weights.state)
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        raise ModelError(f"The weights in {path.name} do not fit ({first}).", "Train them again.") from error
    return encoders.eval().requires_grad_(False)


def _codec_of(path: Path, metadata: dict[str, str]) -> TextCodec | None:
    """The codec that a weight file asks for; None where its texts are facts."""
    if _CODEC not in metadata:
        return None
    try:
        asked = parse_json(metadata[_CODEC])
        name = str(asked["name"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path.name} has a damaged description ({error}).", "Train the encoders again.") from error
    try:
        codec = find_codec(name)
    except DependencyError as error:
        raise DependencyError(
            f"The encoders in {path.name} read texts by the text codec {name!r:.60}, which is not installed.",
            error.remedy,
        ) from error
    if codec_record(codec) != asked:
        raise ModelError(
            f"The encoders in {path.name} ask for the text codec {name} {asked.get('version')} with vectors of "
            f"{asked.get('size')}; installed is version {codec.version}, of {codec.size}.",
            "Install the version that they were trained with, or train them again.",
        )
    return codec


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
