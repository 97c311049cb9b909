"""What reads facts in an MR or an X-ray: the flow, what its numbers stand for, how sure one has to be; and its file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..core.errors import ModelError
from ..core.safe_load import parse_json
from .aligned import AlignedEncoders
from .boxes import byte_input
from .encoders import Vectors
from .fact_calibration import NEVER
from .fact_flow import MODALITIES, FactFlow, draw_rows
from .fact_slots import NUMBERS, Key, Standing, parse_key
from .fact_summary import ALONE, Places, Summary, summarize

FORMAT = "meddifffm-facts-1"
KIND = "facts"
"""In the catalogue."""
USEFUL = 0.5
"""Widest interval that is told, of what nine tenths of the training span."""
BATCH = 32
_REMEDY = "Train it with `meddifffm multimodal train --stage text`, or install MedDiff-FM again."


@dataclass(frozen=True)
class Rules:
    """How sure one has to be, of one modality.

    Attributes:
        words: slot -> share of the draws from which on its word is said.
        numbers: slot -> how many expected errors the interval reaches to either side.
    """

    words: dict[Key, float] = field(default_factory=dict)
    numbers: dict[Key, float] = field(default_factory=dict)

    def as_record(self) -> dict[str, dict[str, float]]:
        """JSON-ready; what is never said is left out."""
        words = {".".join(key): value for key, value in self.words.items() if value < NEVER}
        numbers = {".".join(key): round(value, 3) for key, value in self.numbers.items() if np.isfinite(value)}
        return {"words": words, "numbers": numbers}

    @classmethod
    def from_record(cls, record: Mapping[str, Mapping[str, float]]) -> Rules:
        """Inverse of :meth:`as_record`."""
        words, numbers = (
            {parse_key(name): float(value) for name, value in record[part].items()} for part in ("words", "numbers")
        )
        return cls(words, numbers)


@dataclass(frozen=True)
class Said:
    """What may be said of an image.

    Attributes:
        words: slot -> word.
        numbers: slot -> value, and the ends of its interval.
    """

    words: dict[Key, str]
    numbers: dict[Key, tuple[float, float, float]]


@dataclass(frozen=True)
class FactReader:
    """All that reads facts.

    Attributes:
        encoders: SHA-256 of the weights whose vectors the flow was trained on; "" for any.
        rules: by modality.
        name: catalogue name or file stem; "" for one that comes from no file.
        sha256: of its file.
    """

    network: FactFlow
    standing: Standing
    rules: dict[str, Rules]
    encoders: str = ""
    name: str = ""
    sha256: str = ""

    def facts(self) -> dict[str, str]:
        """Record of it for reports."""
        return {"name": self.name, "sha256": self.sha256}

    def read(self, vectors: Vectors, modality: str, places: Places = ALONE) -> Summary:
        """Summary of an image from the vectors of its tiles."""
        return summarize(draw_rows(self.network, vectors, modality).numpy(), self.standing, places)

    def read_each(self, vectors: Vectors, modality: str) -> list[Summary]:
        """Summaries of images each of which is one box."""
        rows = draw_rows(self.network, vectors, modality).numpy()
        return [summarize(rows[:, [n]], self.standing) for n in range(rows.shape[1])]

    def sayable(self, summary: Summary, modality: str) -> Said:
        """The words that are sure enough, and the numbers whose interval is narrow enough."""
        rules = self.rules.get(modality, Rules())
        words = {
            key: word for key, (word, sureness) in summary.words.items() if sureness >= rules.words.get(key, NEVER)
        }
        numbers = {}
        for key, (value, expected) in summary.numbers.items():
            reach = rules.numbers.get(key, float("inf")) * expected
            if 2 * reach <= USEFUL * self.standing.spread(key):
                least = -np.inf if key == ("level", "level") else 0.0
                numbers[key] = (value, max(value - reach, least), value + reach)
        return Said(words, numbers)


def look(encoders: AlignedEncoders, modality: str, images: np.ndarray) -> Vectors:
    """Vectors of images of 0 to 255, boxes (n, 32, 32, 32) or X-rays (n, 64, 64)."""
    with torch.inference_mode():
        found = [getattr(encoders, modality)(byte_input(images[n : n + BATCH])) for n in range(0, len(images), BATCH)]
    whole, parts = (torch.cat(part).clone() for part in zip(*found, strict=True))
    return Vectors(whole, parts)


def save_reader(path: Path, reader: FactReader, facts: dict[str, Any]) -> str:
    """Write all of it, weights in half precision, atomically; returns the file's SHA-256.

    Raises:
        OutputError: the file cannot be written.
    """
    from ..models.checkpoint import write_weights

    described = {
        "format": FORMAT, "training": json.dumps(facts), "encoders": reader.encoders,
        "standing": json.dumps(reader.standing.as_record(), separators=(",", ":")),
        "rules": json.dumps({name: rules.as_record() for name, rules in reader.rules.items()}, separators=(",", ":")),
    }  # fmt: skip
    return write_weights(path, reader.network.state_dict(), described)


def load_reader(path: Path, sha256: str | None = None) -> FactReader:
    """Read it, on the CPU.

    Args:
        sha256: what the file's bytes must have, None for any.

    Raises:
        ModelError: missing, damaged, a pickle, or something else.
    """
    from ..models.checkpoint import check_format, read_weights

    weights = read_weights(path, sha256)
    check_format(path, weights.metadata, FORMAT, "flow of facts", _REMEDY)
    network = FactFlow()
    try:
        network.load_state_dict(weights.state)
        standing = Standing.from_record(parse_json(weights.metadata["standing"]))
        rules = {name: Rules.from_record(one) for name, one in parse_json(weights.metadata["rules"]).items()}
        if set(standing.lines) - set(NUMBERS) or set(rules) - set(MODALITIES):
            raise ValueError("slots or modalities that are not known")
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"The weights in {path.name} do not fit ({first}).", _REMEDY) from error
    return FactReader(
        network.eval().requires_grad_(False), standing, rules, weights.metadata.get("encoders", ""),
        path.stem, weights.sha256,
    )  # fmt: skip


def find_reader(spec: str | None = None) -> tuple[FactReader, AlignedEncoders]:
    """A reader by name in the catalogue or by path, and the encoders that it looks with.

    Args:
        spec: None for the one of the catalogue. The encoders of a file are those of the catalogue, or lie beside it or
            in the folder above, as ``multimodal train`` leaves them.

    Raises:
        ModelError: there is none, or its encoders are missing.
    """
    from ..models.catalogue import list_models, resolve

    if spec is None:
        listed = list_models(KIND)
        if not listed:
            raise ModelError(
                "No reader of facts in MRs and X-rays is in the catalogue.",
                "Install MedDiff-FM again, or name the file of a training with --reader.",
            )  # fmt: skip
        spec = listed[0].name
    name, path, expected = resolve(spec)
    reader = replace(load_reader(path, expected), name=name)
    return reader, _encoders_of(reader, path)


def _encoders_of(reader: FactReader, path: Path) -> AlignedEncoders:
    """The encoders whose vectors the flow was trained on."""
    from ..core.file_hash import file_sha256
    from ..models.catalogue import list_models
    from .aligned import load_encoders

    for entry in list_models("encoders"):
        if entry.sha256 == reader.encoders:
            return load_encoders(entry.path, entry.sha256)
    for place in (path.parent, path.parent.parent):
        for file in sorted(place.glob("*.safetensors")):
            if file_sha256(file) == reader.encoders:
                return load_encoders(file, reader.encoders)
    raise ModelError(
        f"The encoders that {path.name} was trained with ({reader.encoders[:12]}) are not there.",
        "Put their .safetensors file beside it.",
    )
