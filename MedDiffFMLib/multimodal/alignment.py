"""Central alignment (MedM2G, arXiv 2403.04290): vectors of what belongs together are drawn together, by InfoNCE.

With n pairs in a batch plain InfoNCE takes all other n - 1 for wrong. Few patients share most of their facts, so it
would push equals apart; here what fits a text counts as right in proportion, and InfoNCE is the case in which nothing
fits but the partner itself.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

SHARPNESS = 16.0
"""Exponent on the share of facts that fit: four fifths of them right is far from right."""
FIRST_SCALE, LARGEST_SCALE = 14.0, 100.0
"""One over the temperature, at the start and at most, as in CLIP."""


class Temperature(nn.Module):
    """Learned scale of cosines, one over the temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.logarithm = nn.Parameter(torch.tensor(FIRST_SCALE).log())

    def forward(self) -> torch.Tensor:
        """The scale, a scalar."""
        return self.logarithm.exp().clamp(max=LARGEST_SCALE)


def info_nce(
    first: torch.Tensor, second: torch.Tensor, scale: torch.Tensor | float, fits: torch.Tensor | None = None
) -> torch.Tensor:
    """Symmetric InfoNCE: the mean over rows and columns of the cross-entropy of "which of the others is its partner".

    Args:
        first, second: (n, d) unit vectors; row i of both belong together.
        scale: one over the temperature.
        fits: (n, n), how well ``second`` j fits ``first`` i, 0 to 1 with ones on the diagonal; the identity where it
            is not given.

    Returns:
        A scalar, less what no vectors can go below: it is zero where the cosines are as the targets have them.
    """
    cosines = scale * first @ second.T
    fits = torch.eye(len(first), device=first.device) if fits is None else fits
    rows = _cross_entropy(cosines, fits)
    columns = _cross_entropy(cosines.T, fits.T)
    return (rows + columns) / 2


def _cross_entropy(logits: torch.Tensor, fits: torch.Tensor) -> torch.Tensor:
    """Kullback-Leibler divergence of the softmax of the rows from their targets."""
    targets = fits**SHARPNESS
    targets = targets / targets.sum(1, keepdim=True)
    return functional.kl_div(logits.log_softmax(1), targets, reduction="batchmean")


def fit_of(said: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Share of what each text says that is true of each image.

    Args:
        said: (n, items) 0 or 1, what the texts say; texts that say nothing fit nothing but their partner.
        true: (n, items) 0 or 1, what is true of the images; it holds what their own texts say.

    Returns:
        (n, n) with ones on the diagonal.
    """
    shares = (said @ true.T) / said.sum(1, keepdim=True).clamp(min=1)
    return shares.fill_diagonal_(1.0)
