"""What the draws of an image's tiles agree on: one word with its sureness, or one number with its spread, a slot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .boxes import SPACING_MM
from .encoders import EDGE
from .fact_slots import NUMBERS, PRESENT, SPANS, WORDS, Key, Standing, choices

SHOWN, ABSENT = "shown", "absent"
"""Words of the slots of ``PRESENT``."""
NEAR_CM = EDGE / 2 * SPACING_MM / 10
"""Tiles whose middle lies no farther from the body's say where that is."""
FLOOR = 0.05
"""Of the spread of the training: what the draws' own spread is at least taken for."""


@dataclass(frozen=True)
class Summary:
    """What is drawn of one image.

    Attributes:
        words: slot -> likeliest word and its share of the draws.
        numbers: slot -> median and expected error, in the unit of the slot.
    """

    words: dict[Key, tuple[str, float]]
    numbers: dict[Key, tuple[float, float]]


@dataclass(frozen=True)
class Places:
    """How the tiles of an image lie.

    Attributes:
        weight: (tiles,) share of the body that each speaks for; they sum to 1.
        own: (tiles,) share of a tile's body that it speaks for alone: what is counted in several is shared out.
        above: (tiles,) cm by which its middle lies above that of the body.
    """

    weight: np.ndarray
    own: np.ndarray
    above: np.ndarray


ALONE = Places(np.ones(1), np.ones(1), np.zeros(1))
"""Of an image that is one box."""


def summarize(rows: np.ndarray, standing: Standing, places: Places = ALONE) -> Summary:
    """Summary of an image.

    Lung or gas is shown where any tile shows it. Shares are means over the body, volumes sums; of the level each tile
    says where the middle of the body would be. The region is that of the tiles around this middle.

    Args:
        rows: (draws, tiles, SIZE).
    """
    words = {key: _word(rows[..., SPANS[key]], key, places) for key in WORDS}
    bits = {key: rows[..., SPANS[key].start] > 0 for key in PRESENT}
    for key, bit in bits.items():
        share = float(bit.mean(0).max())
        words[key] = (SHOWN, share) if share > 0.5 else (ABSENT, 1 - share)
    numbers = {}
    for key in NUMBERS:
        if key not in standing.lines:
            continue
        values = standing.to_value(key, rows[..., SPANS[key].start])
        drawn = _whole(key, values, bits[("lungs", "")], places)
        expected = float(np.hypot(drawn.std(), FLOOR * standing.spread(key)))
        numbers[key] = (float(np.median(drawn)), expected)
    return Summary(words, numbers)


def _word(rows: np.ndarray, key: Key, places: Places) -> tuple[str, float]:
    """The likeliest word around the middle of the body."""
    chosen = np.eye(rows.shape[-1])[rows.argmax(-1)].mean(0)
    near = np.abs(places.above) <= max(NEAR_CM, float(np.abs(places.above).min()))
    shares = np.average(chosen[near], axis=0, weights=places.weight[near])
    return choices(key)[int(shares.argmax())], float(shares.max())


def _whole(key: Key, values: np.ndarray, lung: np.ndarray, places: Places) -> np.ndarray:
    """Draws (draws,) of a number of the whole image from those of its tiles (draws, tiles)."""
    if key == ("level", "level"):
        return np.asarray(np.average(values - places.above, axis=1, weights=places.weight))
    if key[1] == "share":
        return np.asarray(np.average(values, axis=1, weights=places.weight))
    counted = values * lung if key[0] == "lungs" else values
    return np.asarray(counted @ places.own)
