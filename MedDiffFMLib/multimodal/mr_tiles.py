"""A whole MR as the boxes that the encoders know: overlapping tiles of 128 mm over the body."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .boxes import SPACING_MM
from .encoders import EDGE
from .fact_summary import Places
from .mr_body import mr_body
from .mr_intensity import TOP

STRIDE = EDGE // 2
BODY_SHARE = 0.15
"""Tiles with less body tell nothing, as in training."""


@dataclass(frozen=True)
class Tiles:
    """Tiles of one image.

    Attributes:
        boxes: (n, 32, 32, 32) uint8, 0 to 255 for nothing to 1.5 times fat.
        places: how they lie.
    """

    boxes: np.ndarray
    places: Places


def as_bytes(signal: np.ndarray) -> np.ndarray:
    """Signal in units of fat -> uint8 as the encoders take it."""
    return np.clip(np.rint(signal * (255 / TOP)), 0, 255).astype(np.uint8)


def tiles_of(signal: np.ndarray) -> Tiles | None:
    """Tiles of an MR; None where it shows no body.

    Args:
        signal: (k, j, i) in units of fat on voxels of 4 mm, axes along superior, posterior, left.
    """
    body = mr_body(signal, (SPACING_MM,) * 3)
    shape = np.maximum(signal.shape, EDGE)
    room = [(0, int(n - m)) for n, m in zip(shape, signal.shape, strict=True)]
    image, inside = np.pad(as_bytes(signal), room), np.pad(body, room)
    places = [
        tuple(slice(n, n + EDGE) for n in (k, j, i))
        for k in starts(shape[0]) for j in starts(shape[1]) for i in starts(shape[2])
    ]  # fmt: skip
    used = [place for place in places if inside[place].sum() >= BODY_SHARE * EDGE**3] or [
        place for place in places if inside[place].any()
    ]
    if not used:
        return None
    covered = np.zeros(shape, np.float32)
    for place in used:
        covered[place] += 1
    share = 1 / np.maximum(covered, 1)
    each = np.array([float(share[place][inside[place]].sum()) for place in used])
    held = np.array([float(inside[place].sum()) for place in used])
    rows = np.flatnonzero(body.any((1, 2)))
    middle = (rows[0] + rows[-1]) / 2
    above = np.array([(place[0].start + (EDGE - 1) / 2 - middle) * SPACING_MM / 10 for place in used])
    return Tiles(np.stack([image[place] for place in used]), Places(each / each.sum(), each / held, above))


def starts(length: int) -> list[int]:
    """First voxels of the tiles along an axis; the last one ends where the image does."""
    last = int(length) - EDGE
    return [*range(0, last, STRIDE), last]
