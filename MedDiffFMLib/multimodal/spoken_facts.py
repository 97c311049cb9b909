"""Facts as items that are true of an image or not, and the facts that a prompt speaks of."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from .facts.fact import Statement, Value
from .facts.grammar import write
from .facts.kinds import KINDS
from .facts.prompt import Understood, in_words, understand_prompt
from .facts.slots import Number

SAID = (
    "place", "level", "region", "contrast", "body_volume", "body_mass", "fat", "fat_density", "muscle",
    "soft_density", "bone", "bone_density", "gas", "metal", "lungs", "lung_right", "lung_left", "low_attenuation",
    "dense_lung", "lung_density", "lung_percentile", "nodule",
)  # fmt: skip
"""Kinds of facts that are measured in a box; others are not compared."""
MOST, SLOTS = 24, 4
"""Facts of a text and slots of a fact: what goes beyond is not read."""
ITEMS = 512
"""Columns of the table of items; two that meet in one count as the same, which is rare."""
LINEAR = {"HU": 40.0, "cm": 6.0}
LOGARITHMIC = 2.0
"""Two numbers are the same fact in the same step: of so many units, else of this many to an octave."""


def items(statements: Sequence[Statement]) -> np.ndarray:
    """What statements say, as (ITEMS,) float32 of 0 and 1; numbers by the step that they lie in."""
    row = np.zeros(ITEMS + 1, np.float32)
    row[item_columns(statements)] = 1
    return row[:ITEMS]


def item_columns(statements: Sequence[Statement]) -> np.ndarray:
    """Column of what each slot of each statement says, (MOST, SLOTS) int64; -1 where nothing is said."""
    columns = np.full((MOST, SLOTS), -1, np.int64)
    for row, said in enumerate([said for said in statements if said.kind in SAID][:MOST]):
        for column, name in enumerate(KINDS[said.kind].slots):
            if name in said.values:
                step = _step(said.kind, name, said.values[name])
                columns[row, column] = zlib.crc32(f"{said.kind}.{name}={step}".encode()) % ITEMS
    return columns


def sentence_of(said: Statement, wording: int = 0) -> str:
    """A statement as a sentence; in short where some of its slots are not told, as of parts of scans.

    Args:
        wording: which of the ways to say it, counted on beyond the last one from the first.
    """
    if said.values.keys() == KINDS[said.kind].slots.keys():
        return write(said, wording)
    return f"{in_words(said)}."


def _step(kind: str, name: str, value: Value) -> Value:
    slot = KINDS[kind].slots[name]
    if not isinstance(slot, Number):
        return value
    number = float(value)
    if slot.unit in LINEAR:
        return round(number / LINEAR[slot.unit])
    return round(LOGARITHMIC * float(np.sign(number) * np.log2(1 + abs(number))))


def prompt_facts(prompt: str) -> tuple[list[Statement], str]:
    """Facts that a user's words speak of and that a place can be looked at for, and a sentence on what was understood.

    Facts of whole scans, such as the thickness of slices, are among what was not understood.
    """
    understood = understand_prompt(prompt)
    known = [said for said in understood.statements if said.kind in SAID]
    others = [in_words(said) for said in understood.statements if said.kind not in SAID]
    return known, Understood(known, [*others, *understood.rest]).told()
