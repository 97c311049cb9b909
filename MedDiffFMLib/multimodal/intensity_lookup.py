"""First guess of one modality from another: the usual value of the target for each value of the source.

With noise in the source the guess is what the noisy value leaves of it: between the table, where there is no noise, and
one number, where there is nothing else (Bayes' rule with the table's own histogram as the prior).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

BINS = 64
REACH = 3.0
"""Values of a noisy source that are told apart, network range; [-1, 1] without noise."""
_STEP = 2.0 / BINS


class IntensityLookup(nn.Module):
    """Table from values of the source to values of the target, both in the network's range, inside of a body.

    Attributes:
        values: (64,) of the target, for bins of the source over [-1, 1].
        share: (64,) of all voxels in each bin.
    """

    values: torch.Tensor
    share: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("values", torch.zeros(BINS))
        self.register_buffer("share", torch.full((BINS,), 1.0 / BINS))

    def fit(self, source: np.ndarray, target: np.ndarray) -> None:
        """Median of the target in each bin of the source; bins without voxels take the nearest one's.

        Args:
            source, target: (n,), network range.
        """
        place = np.clip(((source + 1) / _STEP).astype(int), 0, BINS - 1)
        counts = np.bincount(place, minlength=BINS)
        order = np.argsort(place, kind="stable")
        groups = np.split(target[order], np.cumsum(counts)[:-1])
        filled = np.flatnonzero(counts)
        medians = np.array([np.median(groups[n]) for n in filled])
        self.values.copy_(torch.from_numpy(np.interp(np.arange(BINS), filled, medians)))
        self.share.copy_(torch.from_numpy((counts + 1) / (counts + 1).sum()))

    def forward(self, source: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """Guess for a source (B, 1, D, H, W) with noise of standard deviation sigma (B,), which may be infinite."""
        centers = torch.arange(BINS, device=source.device) * _STEP - 1 + _STEP / 2
        points = torch.linspace(-REACH, REACH, int(2 * REACH / _STEP) + 1, device=source.device)
        width = (sigma.square() + (_STEP / 2) ** 2)[:, None, None]
        likely = self.share.log() - (points[:, None] - centers).square() / (2 * width)
        table = (likely.softmax(-1) * self.values).sum(-1)
        place = ((source + REACH) / _STEP).clamp(0, len(points) - 1.001)
        low = place.long()
        rows = table[:, :, None]
        flat, part = low.flatten(1)[..., None], (place - low).flatten(1)
        left, right = rows.gather(1, flat)[..., 0], rows.gather(1, flat + 1)[..., 0]
        return torch.lerp(left, right, part).reshape(source.shape)
