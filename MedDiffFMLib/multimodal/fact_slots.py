"""Facts as rows of numbers: presence and words as bits of -1 and 1, numbers by their standing among training images.

A row is what the diffusion over facts (:mod:`.fact_flow`) draws. What is not known of an image is left out of the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .facts.fact import Statement
from .facts.kinds import KINDS
from .facts.slots import Words

Key = tuple[str, str]
"""Kind of a fact and its slot; the slot is "" where the kind's presence is meant."""

WORDS: tuple[Key, ...] = (("region", "region"), ("place", "side"), ("place", "depth"))
PRESENT: tuple[Key, ...] = (("lungs", ""), ("gas", ""))
NUMBERS: tuple[Key, ...] = (
    ("level", "level"), ("fat", "share"), ("muscle", "share"), ("bone", "share"), ("lungs", "volume"),
    ("body_mass", "mass"),
)  # fmt: skip
"""No nodules: the vectors of these encoders do not show them. No contrast agent: no MR tells that of a CT."""
READ: dict[str, tuple[Key, ...]] = {
    "mr": (("region", "region"), *PRESENT, *NUMBERS),
    "xray": (*WORDS, *PRESENT, *NUMBERS),
}
"""What is read of an image: a whole MR, whose place in the body is no question, or an X-ray of one box."""
KNOTS = 33
"""Values of the training that are kept of each number, evenly from the least to the largest."""


def choices(key: Key) -> tuple[str, ...]:
    """The words of a slot."""
    slot = KINDS[key[0]].slots[key[1]]
    assert isinstance(slot, Words)
    return slot.choices


def _spans() -> dict[Key, slice]:
    spans, start = {}, 0
    for key in (*WORDS, *PRESENT, *NUMBERS):
        width = len(choices(key)) if key in WORDS else 1
        spans[key] = slice(start, start + width)
        start += width
    return spans


SPANS = _spans()
"""Columns of each slot in a row."""
SIZE = max(span.stop for span in SPANS.values())


@dataclass(frozen=True)
class Standing:
    """What numbers stand for in a row: -1 for the least of the training, 1 for the largest, even in between.

    Attributes:
        lines: number -> (KNOTS,) values that rise.
    """

    lines: dict[Key, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, facts: Sequence[Sequence[Statement]]) -> Standing:
        """Of the facts of training images; a number that never occurs is left out."""
        known = [values_of(text) for text in facts]
        held = {key: [values[key] for values in known if key in values] for key in NUMBERS}
        even = np.linspace(0, 1, KNOTS)
        return cls({key: _rising(np.quantile(values, even)) for key, values in held.items() if values})

    def to_row(self, key: Key, value: np.ndarray | float) -> np.ndarray:
        """Number -> its place in a row."""
        return np.asarray(np.interp(value, self.lines[key], np.linspace(-1, 1, KNOTS)))

    def to_value(self, key: Key, place: np.ndarray) -> np.ndarray:
        """Place in a row -> number."""
        return np.asarray(np.interp(place, np.linspace(-1, 1, KNOTS), self.lines[key]))

    def spread(self, key: Key) -> float:
        """Between which nine tenths of the training lie."""
        low, high = self.to_value(key, np.array([-0.9, 0.9]))
        return float(high - low)

    def middle(self, key: Key) -> float:
        """Median of the training: what one would say of every image."""
        return float(self.to_value(key, np.zeros(1))[0])

    def as_record(self) -> dict[str, list[float]]:
        """JSON-ready, four digits."""
        return {".".join(key): [float(f"{x:.4g}") for x in line] for key, line in self.lines.items()}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Standing:
        """Inverse of :meth:`as_record`.

        Raises:
            ValueError: a name or a line that cannot be.
        """
        lines = {}
        for name, line in record.items():
            key, values = parse_key(name), np.asarray(line, float)
            if key not in NUMBERS or values.shape != (KNOTS,) or not (np.diff(values) > 0).all():
                raise ValueError(f"no line of {name}")
            lines[key] = values
        return cls(lines)


def parse_key(name: str) -> Key:
    """Key from "kind.slot"."""
    kind, _, slot = name.partition(".")
    return kind, slot


def _rising(line: np.ndarray) -> np.ndarray:
    """Rounded as it is kept, with equal values drawn apart by so little that each has a place."""
    rounded = np.array([float(f"{x:.4g}") for x in line])
    for n in range(1, len(rounded)):
        least = rounded[n - 1] + max(abs(rounded[n - 1]) * 1e-3, 1e-3)
        rounded[n] = float(f"{max(rounded[n], least):.4g}")
        if rounded[n] <= rounded[n - 1]:
            rounded[n] = least
    return rounded


def values_of(text: Sequence[Statement]) -> dict[Key, Any]:
    """Words and numbers of an image's facts; the first of a kind counts."""
    found: dict[Key, Any] = {}
    for said in text:
        for name, value in said.values.items():
            found.setdefault((said.kind, name), value)
    return found


def shown(key: Key, text: Sequence[Statement]) -> bool:
    """Whether what a key of ``PRESENT`` means is there."""
    return any(said.kind == key[0] for said in text)


def rows_of(facts: Sequence[Sequence[Statement]], standing: Standing) -> tuple[np.ndarray, np.ndarray]:
    """(n, SIZE) float32 rows, and 1 where they are known."""
    rows, known = np.zeros((len(facts), SIZE), np.float32), np.zeros((len(facts), SIZE), np.float32)
    for n, text in enumerate(facts):
        values = values_of(text)
        for key in WORDS:
            if values.get(key) in choices(key):
                known[n, SPANS[key]], rows[n, SPANS[key]] = 1, -1
                rows[n, SPANS[key].start + choices(key).index(values[key])] = 1
        for key in PRESENT:
            known[n, SPANS[key]], rows[n, SPANS[key]] = 1, 2 * shown(key, text) - 1
        for key in standing.lines:
            if key in values:
                known[n, SPANS[key]], rows[n, SPANS[key]] = 1, standing.to_row(key, float(values[key]))
    return rows, known
