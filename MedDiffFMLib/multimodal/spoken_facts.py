"""Facts as texts for the encoder, and as items that are true of an image or not."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from .facts.fact import Statement, Value
from .facts.grammar import write
from .facts.kinds import KINDS
from .facts.prompt import in_words, understand_prompt
from .facts.slots import Number

ITEMS = 512
"""Columns of the table of items; two that meet in one count as the same, which is rare."""
LINEAR = {"HU": 40.0, "cm": 6.0}
LOGARITHMIC = 2.0
"""Two numbers are the same fact in the same step: of so many units, else of this many to an octave."""
ALL, DROPPED, SLOT_DROPPED = 0.6, 0.2, 0.15
"""How often a text in training says nearly all there is, less what is dropped; else it says one to four things."""
GRAMMAR = 0.5
"""How often a statement with all its slots is a sentence of the grammar; else it is in words."""


def items(statements: Sequence[Statement]) -> np.ndarray:
    """What statements say, as (ITEMS,) float32 of 0 and 1; numbers by the step that they lie in."""
    row = np.zeros(ITEMS, np.float32)
    for said in statements:
        for name, value in said.values.items():
            row[zlib.crc32(f"{said.kind}.{name}={_step(said.kind, name, value)}".encode()) % ITEMS] = 1
    return row


def _step(kind: str, name: str, value: Value) -> Value:
    slot = KINDS[kind].slots[name]
    if not isinstance(slot, Number):
        return value
    number = float(value)
    if slot.unit in LINEAR:
        return round(number / LINEAR[slot.unit])
    return round(LOGARITHMIC * float(np.sign(number) * np.log2(1 + abs(number))))


def draw_text(statements: Sequence[Statement], rng: np.random.Generator) -> tuple[list[str], list[Statement]]:
    """A way of saying some of the statements, and what it says."""
    if not statements:
        return [], []
    if rng.random() < ALL:
        kept = [n for n in range(len(statements)) if rng.random() >= DROPPED]
    else:
        kept = rng.choice(len(statements), min(int(rng.integers(1, 5)), len(statements)), replace=False).tolist()
    chosen = [_part(statements[n], rng) for n in kept or [int(rng.integers(len(statements)))]]
    order = rng.permutation(len(chosen))
    said = [chosen[n] for n in order]
    return [say(one, rng) for one in said], said


def _part(said: Statement, rng: np.random.Generator) -> Statement:
    """The statement, perhaps without some of its slots, as prompts leave them out."""
    if rng.random() < GRAMMAR:
        return said
    kept = {name: value for name, value in said.values.items() if rng.random() >= SLOT_DROPPED}
    return Statement(said.kind, kept)


def say(said: Statement, rng: np.random.Generator | None = None) -> str:
    """A statement as a sentence where it has all its slots, else in words; always in words without ``rng``'s choice."""
    if rng is not None and set(said.values) == set(KINDS[said.kind].slots) and rng.random() < 0.7:
        return write(said, int(rng.integers(4)))
    return in_words(said)


def prompt_text(prompt: str) -> tuple[list[str], str]:
    """A user's words as a text, and a sentence on what was understood; what was not is passed on as it is."""
    understood = understand_prompt(prompt)
    lines = [say(said) for said in understood.statements]
    return [*lines, *([" ".join(understood.rest)] if understood.rest else [])], understood.told()
