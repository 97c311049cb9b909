"""Outlines from probabilities: of each structure the mask that promises the largest overlap.

Where probabilities are frequencies, the mask of all voxels above a threshold has the largest expected Dice of all masks
of its size, and the best threshold is half of the Dice that it reaches (Lipton et al. 2014, arXiv 1402.1892): a
structure of which half can be found is best outlined from 0.25 on. At 0.5 a head that learned from few cases, and
rightly doubts, marks too little. A network that is too sure marks too much below 0.5: for each head that one of both
ways is kept which patients tell that it did not learn from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

BEST, HALF = "best threshold", "half"
"""Ways to outline: as said above, and from 0.5 on."""
LOWEST, HIGHEST = 0.1, 0.5
"""Limits of a threshold: what is not in the scan at all has no better mask than none, and voxels that are more likely
inside than not are never left out."""
BINS = 1000
SLAB_VOXELS = 4_000_000
"""Voxels that are counted together, which bounds the memory."""


def best_threshold(probability: np.ndarray) -> float:
    """The threshold whose mask has the largest expected Dice.

    That is twice the expected overlap over the mask's size and the structure's expected size, a ratio of means.

    Args:
        probability: of each voxel to be inside, any shape.

    Returns:
        Between :data:`LOWEST` and :data:`HIGHEST`, in thousandths.
    """
    flat = probability.reshape(-1)
    counts, sums = np.zeros(BINS + 1), np.zeros(BINS + 1)
    for first in range(0, flat.size, SLAB_VOXELS):
        part = flat[first : first + SLAB_VOXELS]
        place = (np.clip(part, 0, 1) * BINS).astype(np.int16)  # rounded down: a bin begins at its threshold
        counts += np.bincount(place, minlength=BINS + 1)
        sums += np.bincount(place, part, minlength=BINS + 1)
    size, inside = counts[::-1].cumsum()[::-1], sums[::-1].cumsum()[::-1]
    allowed = slice(round(LOWEST * BINS), round(HIGHEST * BINS) + 1)
    expected = 2 * inside[allowed] / np.maximum(size[allowed] + inside[0], 1e-9)
    # The highest of equal ones, which are those of a scan without the structure.
    best = len(expected) - 1 - int(np.argmax(expected[::-1]))
    return (allowed.start + best) / BINS


def outlined(probabilities: torch.Tensor, way: str = BEST) -> torch.Tensor:
    """Masks (C, D, H, W), bool, of probabilities of the same shape, each at its own best threshold or at 0.5."""
    import torch

    if way == HALF:
        return probabilities.cpu() >= 0.5
    return torch.stack([one >= best_threshold(one.numpy()) for one in probabilities.float().cpu()])
