"""Point heads: 1x1x1 layers on features of single places."""

from __future__ import annotations

import torch
from torch import nn

SUBVOXELS = 8
"""Features lie on half the resolution of the working grid: a head says something about each of 2x2x2 voxels."""

LEAST_SHARE = 1e-5
"""Of the voxels, that a fresh head expects of a class."""


class PointHead(nn.Module):
    """Features of points -> logits of their 2x2x2 voxels.

    ``linear`` is one linear map a level, summed. ``nonlinear`` goes down the pyramid from its coarsest level with a
    residual block at each (vox2vec's head, arXiv 2307.14725, without its 3x3x3 convolutions).

    Args:
        widths: features of each level, coarsest last; the first are those of the voxels themselves.
        classes: C.
        hidden: width of the residual blocks.
        dropout: share of features hidden while training.
    """

    def __init__(self, widths: list[int], classes: int, kind: str, hidden: int = 64, dropout: float = 0.1) -> None:
        super().__init__()
        self.widths, self.classes, self.kind = widths, classes, kind
        self.register_buffer("mean", torch.zeros(sum(widths)))
        self.register_buffer("deviation", torch.ones(sum(widths)))
        self.dropout = nn.Dropout(dropout if kind == "nonlinear" else 0.0)
        out = SUBVOXELS * classes
        if kind == "linear":
            self.linear = nn.Linear(sum(widths), out)
        else:
            self.enter = nn.ModuleList(nn.Linear(width, hidden) for width in widths)
            self.blocks = nn.ModuleList(
                nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
                for _ in widths
            )
            self.leave = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, out))

    mean: torch.Tensor
    deviation: torch.Tensor

    def standardize(self, features: torch.Tensor) -> None:
        """Take mean and deviation of each feature from points (N, F)."""
        self.mean.copy_(features.mean(0))
        self.deviation.copy_(features.std(0).clamp(min=1e-3))

    def start_from(self, shares: torch.Tensor) -> None:
        """Have the fresh head expect each class as often as it is, (C,) shares of the voxels (Lin et al. 2017, 4.1).

        Else the first hundreds of steps go into learning that most of a scan is none of a small structure.
        """
        last = self.linear if self.kind == "linear" else self.leave[1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.bias.copy_(share_logits(shares).repeat_interleave(SUBVOXELS))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(N, F) -> (N, C, 8)."""
        standard = self.dropout((features - self.mean) / self.deviation)
        if self.kind == "linear":
            return self.linear(standard).reshape(len(features), self.classes, SUBVOXELS)
        parts = standard.split(self.widths, dim=1)
        state: torch.Tensor | None = None
        for part, enter, block in reversed(list(zip(parts, self.enter, self.blocks, strict=True))):
            entered = enter(part)
            state = entered if state is None else state + entered
            state = state + block(state)
        assert state is not None
        return self.leave(state).reshape(len(features), self.classes, SUBVOXELS)


def share_logits(shares: torch.Tensor) -> torch.Tensor:
    """Logits (C,) with which a network without any knowledge begins: each class as often as it is."""
    return torch.logit(shares.clamp(LEAST_SHARE, 1 - LEAST_SHARE))


def to_voxels(logits: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """(d * h * w, C, 8) of a box of points -> (C, 2d, 2h, 2w)."""
    d, h, w = shape
    cells = logits.reshape(d, h, w, -1, 2, 2, 2)
    return cells.permute(3, 0, 4, 1, 5, 2, 6).reshape(-1, 2 * d, 2 * h, 2 * w)


def to_points(mask: torch.Tensor) -> torch.Tensor:
    """(C, 2d, 2h, 2w) -> (d * h * w, C, 8), the inverse of :func:`to_voxels`."""
    classes, d, h, w = mask.shape
    cells = mask.reshape(classes, d // 2, 2, h // 2, 2, w // 2, 2)
    return cells.permute(1, 3, 5, 0, 2, 4, 6).reshape(-1, classes, SUBVOXELS)
