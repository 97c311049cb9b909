"""Sentences of what is estimated: no measurement, so they are none of the grammar's, and numbers have an interval."""

from __future__ import annotations

import math

from .kinds import KINDS
from .slots import Number

ESTIMATED = "Estimated: "
_WORDS = {
    ("region", "region"): "its middle lies in the {word}.",
    ("place", "side"): "it lies in the {word} of the body.",
    ("place", "depth"): "it lies in the {word} of the body.",
}
_PRESENT = {
    ("lungs", "shown"): "lung is shown.",
    ("lungs", "absent"): "no lung is shown.",
    ("gas", "shown"): "gas outside of the lungs is shown, in airways or bowel.",
    ("gas", "absent"): "no gas outside of the lungs is shown.",
}
_NUMBERS = {
    ("level", "level"): "its middle lies about {about} cm ({low} to {high}) above the pelvic floor.",
    ("fat", "share"): "fat makes about {about} % ({low} to {high}) of the shown body.",
    ("muscle", "share"): "muscle and other soft tissue make about {about} % ({low} to {high}) of the shown body.",
    ("bone", "share"): "bone makes about {about} % ({low} to {high}) of the shown body.",
    ("lungs", "volume"): "the shown lungs have about {about} ml ({low} to {high}).",
    ("body_mass", "mass"): "the shown body has about {about} kg ({low} to {high}).",
}
_DECIMALS = {("bone", "share"): 0, ("lungs", "volume"): -1, ("body_mass", "mass"): 1}
"""Of a number, where they are not those of its slot: fewer, for it is no measurement."""


def word_sentence(kind: str, slot: str, word: str) -> str:
    """Sentence of a word; of a kind's presence where the slot is empty."""
    text = _WORDS[kind, slot].format(word=word) if slot else _PRESENT[kind, word]
    return ESTIMATED + text


def rounded(kind: str, slot: str, value: float, low: float, high: float) -> tuple[float, float, float]:
    """A number and the ends of its interval as they are written: the ends outward, so that it holds as much."""
    number = KINDS[kind].slots[slot]
    assert isinstance(number, Number)
    step = 10.0 ** -_DECIMALS.get((kind, slot), number.decimals)
    digits = max(_DECIMALS.get((kind, slot), number.decimals), 0)
    ends = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    about, first, last = (round(x, digits) + 0.0 for x in (round(value / step) * step, *ends))
    return about, first, last


def number_sentence(kind: str, slot: str, value: float, low: float, high: float) -> str:
    """Sentence of a number that was rounded."""
    digits = max(_DECIMALS.get((kind, slot), KINDS[kind].slots[slot].decimals), 0)  # type: ignore[union-attr]
    about, first, last = (f"{x:.{digits}f}" for x in (value, low, high))
    return ESTIMATED + _NUMBERS[kind, slot].format(about=about, low=first, high=last)
