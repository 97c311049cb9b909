"""Search for what a text says: how alike the text's vector and those of the parts of a scan are, place by place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ..imaging.grid import Grid
from .aligned import AlignedEncoders
from .boxes import SPACING_MM, ct_input
from .encoders import EDGE, PARTS

STRIDE = 12
"""Voxels from box to box: parts of neighbors overlap, and each place is judged several times."""
BATCH = 16
CELL = EDGE // PARTS
AIR_HU = -1000
APART_MM = 40.0
"""Places that are listed lie so far apart at least."""


@dataclass(frozen=True)
class Place:
    """A place that looks as the text says.

    Attributes:
        index: (k, j, i) of its voxel.
        likeness: cosine there.
        z: how many standard deviations it lies above the mean of the body.
    """

    index: tuple[int, int, int]
    likeness: float
    z: float


def boxes_in(shape: tuple[int, ...]) -> int:
    """How many boxes a scan (k, j, i) at 4 mm is looked at in."""
    return int(np.prod([len(_starts(n)) for n in shape]))


def likeness_map(
    hounsfield: np.ndarray,
    text: torch.Tensor,
    encoders: AlignedEncoders,
    looked: Callable[[int], None] = lambda boxes: None,
) -> np.ndarray:
    """Cosine between a text and what lies in each place, float32 (k, j, i).

    Args:
        hounsfield: (k, j, i) HU at 4 mm, axes along superior, posterior, left.
        text: (128,) unit vector.
        looked: called with the number of boxes that were just looked at.
    """
    shape = np.maximum(hounsfield.shape, EDGE)
    padded = np.full(shape, AIR_HU, np.float32)
    padded[tuple(slice(n) for n in hounsfield.shape)] = hounsfield
    total, weight = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    window = _window()
    for starts in _batches(
        [(k, j, i) for k in _starts(shape[0]) for j in _starts(shape[1]) for i in _starts(shape[2])]
    ):
        boxes = [tuple(slice(n, n + EDGE) for n in start) for start in starts]
        with torch.inference_mode():
            parts = encoders.ct(ct_input(np.stack([padded[box] for box in boxes]))).parts
        for box, cosines in zip(boxes, (parts @ text).numpy(), strict=True):
            cells = cosines.reshape(PARTS, PARTS, PARTS)
            total[box] += window * cells.repeat(CELL, 0).repeat(CELL, 1).repeat(CELL, 2)
            weight[box] += window
        looked(len(boxes))
    return (total / weight)[tuple(slice(n) for n in hounsfield.shape)]


def _starts(length: int) -> list[int]:
    """First voxels of the boxes along an axis; the last box ends where the scan does."""
    last = max(length - EDGE, 0)
    return [*range(0, last, STRIDE), last]


def _batches(starts: list[tuple[int, int, int]]) -> Iterator[list[tuple[int, int, int]]]:
    return (starts[n : n + BATCH] for n in range(0, len(starts), BATCH))


def _window() -> np.ndarray:
    """Weight of each voxel of a box: the middle of a part speaks for more than its rim, float32 (32, 32, 32)."""
    inside = (np.arange(CELL) + 0.5) / CELL
    line = np.tile(np.minimum(inside, 1 - inside), PARTS).astype(np.float32)
    return line[:, None, None] * line[:, None] * line


def best_places(likeness: np.ndarray, body: np.ndarray, count: int) -> list[Place]:
    """The places of the body (bool (k, j, i)) most like the text, the best first, none near a better one."""
    mean, spread = float(likeness[body].mean()), max(float(likeness[body].std()), 1e-6)
    left = np.where(body, likeness, -np.inf)
    found: list[Place] = []
    reach = int(np.ceil(APART_MM / SPACING_MM))
    while len(found) < count and np.isfinite(best := float(left.max())):
        k, j, i = (int(n) for n in np.unravel_index(int(left.argmax()), left.shape))
        found.append(Place((k, j, i), best, (best - mean) / spread))
        left[tuple(slice(max(n - reach, 0), n + reach + 1) for n in (k, j, i))] = -np.inf
    return found


def score_of(places: list[Place]) -> float:
    """How well a whole scan answers a text: the likeness of its best place."""
    return places[0].likeness if places else -1.0


def ras_of(place: Place, grid: Grid) -> tuple[float, float, float]:
    """RAS mm of a place on a grid."""
    k, j, i = place.index
    r, a, s, _ = grid.ijk_to_ras @ [i, j, k, 1.0]
    return float(r), float(a), float(s)
