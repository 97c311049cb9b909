"""Cross guidance: what one modality says about another, voxel by voxel, with a noise level of its own for each.

Every modality has a sigma: 0 where it is given, infinity where it is absent, in between while it is made together with
others (UniDiffuser, arXiv 2303.06555). A small encoder looks at the noisy source; its features are added to those of
the target's network at each resolution, so that anatomy comes with its place. They pass a convolution that is zero at
first and a gate that knows both noise levels: untrained, or with an absent source, a flow is itself, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import nn

from ..imaging.haar import haar_forward

BANDS = 8
SIGMA_DATA = 0.5
"""Usual spread of an image in the network's range; a noise level counts in units of it."""


@dataclass(frozen=True)
class Source:
    """A modality that guides another one.

    Attributes:
        image: (B, 1, D, H, W), network range, with the noise of ``sigma`` in it; anything finite where that is
            infinite.
        sigma: (B,), 0 to infinity.
        seen: (B, 1, D, H, W), 1 where the scanner saw something; None for everywhere.
        body: (B, 1, D, H, W), 1 in the body; None where it is not known, as in a noisy image.
        guess: (B, 1, D, H, W), first guess of the target where the source has no noise; None for the lookup's.
    """

    image: torch.Tensor
    sigma: torch.Tensor
    seen: torch.Tensor | None = None
    body: torch.Tensor | None = None
    guess: torch.Tensor | None = None

    @property
    def known(self) -> torch.Tensor:
        """``seen``, also where it is None."""
        return torch.ones_like(self.image) if self.seen is None else self.seen


def share_of_noise(sigma: torch.Tensor) -> torch.Tensor:
    """Noise level from 0 to infinity -> 0 to 1."""
    return 1 - SIGMA_DATA / (sigma + SIGMA_DATA)


class VoxelGuidance(nn.Module):
    """Encoder of a source, and what it adds to the levels of the target's network.

    Args:
        channels: of the encoder's levels, finest first, the first at half of the image's resolution.
        places: level and channels of each feature map that is added to.
    """

    def __init__(self, channels: Sequence[int], places: Sequence[tuple[int, int]], groups: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv3d(BANDS + 1, channels[0], 3, padding=1)
        self.levels = nn.ModuleList()
        before = channels[0]
        for level, width in enumerate(channels):
            down = nn.Conv3d(before, width, 3, stride=2, padding=1) if level else nn.Conv3d(before, width, 3, padding=1)
            block = nn.Sequential(
                nn.GroupNorm(groups, before), nn.SiLU(), down,
                nn.GroupNorm(groups, width), nn.SiLU(), nn.Conv3d(width, width, 3, padding=1),
            )  # fmt: skip
            self.levels.append(block)
            before = width
        self.level_of, self.widths = [level for level, _ in places], [width for _, width in places]
        self.additions = nn.ModuleList(_zeros(nn.Conv3d(channels[level], width, 1)) for level, width in places)
        self.gate = nn.Sequential(nn.Linear(2, 32), nn.SiLU(), nn.Linear(32, sum(self.widths)))

    def forward(self, source: Source, sigma: torch.Tensor) -> list[torch.Tensor]:
        """What is added to each feature map, (B, C, d, h, w).

        Args:
            sigma: (B,), noise level of the target.
        """
        features = self.stem(self._bands(source))
        levels = []
        for block in self.levels:
            features = block(features)
            levels.append(features)
        gates = self.gates(source.sigma, sigma)
        return [
            addition(levels[level]) * gate[:, :, None, None, None]
            for addition, level, gate in zip(self.additions, self.level_of, gates, strict=True)
        ]

    def gates(self, source: torch.Tensor, target: torch.Tensor) -> list[torch.Tensor]:
        """Factors (B, C) of the additions at two noise levels (B,); exactly 0 for an absent source."""
        shares = torch.stack([share_of_noise(source), share_of_noise(target)], dim=1)
        factors = (1 + self.gate(shares)) * (1 - shares[:, :1])
        return list(factors.split(self.widths, dim=1))

    def _bands(self, source: Source) -> torch.Tensor:
        """Haar bands of the source in units of its spread, and its field of view."""
        scale = (source.sigma.square() + SIGMA_DATA**2).rsqrt()[:, None, None, None, None]
        bands = haar_forward(source.image * source.known) * scale
        channels = torch.cat([bands, functional.avg_pool3d(source.known, 2)], dim=1)
        return channels.contiguous(memory_format=torch.channels_last_3d)


def _zeros(layer: nn.Conv3d) -> nn.Conv3d:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
