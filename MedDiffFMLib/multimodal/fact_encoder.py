"""Encoder of what is said about an image: a set of facts, in whatever order and however many.

Texts are read by the grammar first, so that each way of saying something has the same vector, and numbers are known by
their value. A fact is the sum of its slots' vectors; a number lies between two of its slot's, which stand at the
quantiles of what was measured in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ..core.errors import InputError
from .encoders import SIZE, centering
from .facts.fact import Statement
from .facts.kinds import KINDS
from .facts.slots import Number, Words
from .spoken_facts import MOST, SAID, SLOTS, prompt_facts

QUANTILES = 12
"""Of each number."""
WIDTH = 48


class Told(NamedTuple):
    """Texts as rows of the encoder's table.

    Attributes:
        rows: (B, MOST, 1 + 2 * SLOTS) int64: of the kind, then two of each slot.
        weights: as many float32; zero where nothing is said.
    """

    rows: torch.Tensor
    weights: torch.Tensor


def _layout() -> tuple[dict[tuple[str, ...], int], int]:
    """First row of each kind, word and number, and how many rows there are."""
    rows: dict[tuple[str, ...], int] = {}
    count = 0
    for kind in SAID:
        rows[(kind,)] = count
        count += 1
        for name, slot in KINDS[kind].slots.items():
            if isinstance(slot, Words):
                for word in slot.choices:
                    rows[kind, name, word] = count
                    count += 1
            else:
                rows[kind, name] = count
                count += QUANTILES
    return rows, count


ROWS, COUNT = _layout()
NUMBERS = [
    (kind, name) for kind in SAID for name, slot in KINDS[kind].slots.items() if isinstance(slot, Number)
]  # fmt: skip


class FactEncoder(nn.Module):
    """Texts -> unit vectors (B, SIZE)."""

    quantiles: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(COUNT, WIDTH)
        line = torch.linspace(0, 100, QUANTILES)
        self.register_buffer("quantiles", line.repeat(len(NUMBERS), 1))
        self.fact = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH)
        )
        self.out = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * SIZE), nn.GELU(), nn.Linear(2 * SIZE, SIZE))
        self.norm = centering()

    def measure(self, texts: Sequence[Sequence[Statement]]) -> None:
        """Put the vectors of numbers where the numbers of these texts are."""
        found: dict[tuple[str, str], list[float]] = {key: [] for key in NUMBERS}
        for said in (said for text in texts for said in text if said.kind in SAID):
            for name, value in said.values.items():
                if (said.kind, name) in found:
                    found[said.kind, name].append(float(value))
        for row, key in enumerate(NUMBERS):
            if found[key]:
                line = np.quantile(found[key], np.linspace(0, 1, QUANTILES))
                rising = line + np.arange(QUANTILES) * 1e-5 * max(np.ptp(line), 1.0)  # for interpolation
                self.quantiles[row] = torch.from_numpy(rising)

    def forward(self, told: Told) -> torch.Tensor:
        """Vectors of texts as :meth:`told` gives them."""
        return self.centered(self.features(told))

    def features(self, told: Told) -> torch.Tensor:
        """What becomes vectors, (B, SIZE); each row by itself."""
        facts = (self.table(told.rows) * told.weights[..., None]).sum(-2)
        said = (told.weights[..., :1] > 0).to(facts.dtype)
        facts = (facts + self.fact(facts)) * said
        features: torch.Tensor = self.out(facts.sum(-2)).float()
        return features

    def centered(self, features: torch.Tensor) -> torch.Tensor:
        """Unit vectors of features; in training all samples of a batch have to be among the rows."""
        return functional.normalize(self.norm(features), dim=-1)

    def told(self, texts: Sequence[Sequence[Statement]]) -> Told:
        """Rows and weights of texts; facts of other kinds are left out."""
        quantiles = {key: line for key, line in zip(NUMBERS, self.quantiles.cpu().numpy(), strict=True)}
        rows = np.zeros((len(texts), MOST, 1 + 2 * SLOTS), np.int64)
        weights = np.zeros(rows.shape, np.float32)
        for b, text in enumerate(texts):
            for s, said in enumerate([said for said in text if said.kind in SAID][:MOST]):
                rows[b, s, 0], weights[b, s, 0] = ROWS[(said.kind,)], 1
                for n, name in enumerate(KINDS[said.kind].slots):
                    if name in said.values:
                        at = slice(1 + 2 * n, 3 + 2 * n)
                        rows[b, s, at], weights[b, s, at] = _slot(said.kind, name, said.values[name], quantiles)
        return Told(torch.from_numpy(rows), torch.from_numpy(weights))

    def asked(self, prompt: str) -> tuple[Told, str]:
        """The facts that a user's words speak of, and a sentence on what was understood.

        Raises:
            InputError: nothing of it was.
        """
        facts, understood = prompt_facts(prompt)
        if not facts:
            raise InputError(
                f"{understood} There is nothing to look for.", "Write for example: nodule in the right lung."
            )
        return self.told([facts]), understood


def _slot(
    kind: str, name: str, value: str | float, quantiles: dict[tuple[str, str], np.ndarray]
) -> tuple[tuple[int, int], tuple[float, float]]:
    """Two rows and their weights; the second counts nothing for a word."""
    if (kind, name) not in quantiles:
        row = ROWS[kind, name, str(value)]
        return (row, row), (1.0, 0.0)
    at = float(np.interp(float(value), quantiles[kind, name], np.arange(QUANTILES)))
    low = min(int(at), QUANTILES - 2)
    return (ROWS[kind, name] + low, ROWS[kind, name] + low + 1), (1 - at + low, at - low)
