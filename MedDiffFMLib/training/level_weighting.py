"""Weight of each noise level in the loss, learned beside the network.

Karras et al. 2024 (arXiv 2312.02696), equation 22, after Kendall et al. 2018: the loss L of a level with uncertainty u
counts as L / exp(u) + u, whose minimum over u is at u = log L. Every level then contributes gradients of the same size,
whatever it still leaves to be removed, and stays so while the network gets better.
"""

from __future__ import annotations

import math

import torch
from torch import nn

FREQUENCIES = 16
"""Cosines over the range of log sigma; with these the uncertainty follows a few features a decade."""
LOG_RANGE = (math.log(0.002), math.log(80.0))


class LevelWeighting(nn.Module):
    """Log uncertainty u(sigma) of whole windows and of windows with a hole, 0 before any training.

    A cosine series in log sigma with one set of coefficients for each kind.
    """

    def __init__(self) -> None:
        super().__init__()
        self.series = nn.Linear(FREQUENCIES, 2)
        nn.init.zeros_(self.series.weight)
        nn.init.zeros_(self.series.bias)

    def forward(self, losses: torch.Tensor, sigma: torch.Tensor, holed: torch.Tensor) -> torch.Tensor:
        """Weighted losses (B,) of losses (B,) at levels (B,); ``holed`` (B,) bool."""
        u = self.uncertainty(sigma, holed)
        return losses / u.exp() + u

    def uncertainty(self, sigma: torch.Tensor, holed: torch.Tensor) -> torch.Tensor:
        """u (B,): the logarithm of the loss that a level is expected to leave."""
        low, high = LOG_RANGE
        place = (sigma.log() - low) / (high - low)
        waves = torch.cos(math.pi * place[:, None] * torch.arange(1, FREQUENCIES + 1, device=sigma.device))
        both = self.series(waves)
        return torch.where(holed, both[:, 1], both[:, 0])
