"""Flow of one modality: a small diffusion model in the Haar domain that corrects a first guess.

EDM's denoiser (arXiv 2206.00364) around a guess m from the source's intensities: D = m + c_skip (x - m) + c_out F.
Where nothing of the target is known (sigma infinite) that is m + d F: one evaluation gives the expected image, and a
network that knows nothing gives the guess. A second head says how far the Haar bands of that stray, as a log-variance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as functional
from torch import nn

from ..core.lean_monai import lean_monai
from ..imaging.haar import haar_forward, haar_inverse
from ..networks.unet import NetworkConfig
from .guidance import BANDS, Source, VoxelGuidance
from .intensity_lookup import IntensityLookup

SIGMA_MIN, SIGMA_MAX = 0.005, 20.0
"""Noise levels that the network's time tells apart; what is higher counts as infinite there."""
INPUTS = 2 * BANDS + 1
"""Channels that the network sees: offset from the guess, guess, field of view."""
BACKGROUND = -1.0
"""Value outside of the body, network range."""


@dataclass(frozen=True)
class FlowConfig:
    """Size of a flow.

    Attributes:
        sources: modalities that guide it.
        channels: of each level, the first at half of the image's resolution.
        groups: of the group normalization.
        deviation: usual error of the guess, network range.
        trunk: network of a prior whose weights the flow begins with, see :mod:`.trunk_flow`; None for a network of its
            own. ``channels`` and ``groups`` are then the trunk's.
    """

    sources: tuple[str, ...]
    channels: tuple[int, ...] = (16, 32, 64)
    groups: int = 8
    deviation: float = 0.15
    trunk: NetworkConfig | None = None

    def on(self, trunk: NetworkConfig) -> FlowConfig:
        """The same on the network of a prior."""
        return replace(self, channels=tuple(trunk.channels), groups=trunk.groups, trunk=trunk)

    @property
    def divisor(self) -> int:
        """Edge lengths of windows must be multiples of this."""
        return 2 ** len(self.channels)

    def check(self) -> None:
        """Refuse sizes that cannot be built, or would take for ever.

        Raises:
            ValueError: says why.
        """
        sizes = (self.groups, *self.channels)
        if not (1 <= len(self.channels) <= 5 and all(0 < n <= 1024 for n in sizes) and self.sources):
            raise ValueError("its sizes are impossible")
        if any(n % self.groups for n in self.channels) or not 0 < self.deviation < 2:
            raise ValueError("its sizes do not fit together")
        if self.trunk is not None and self != self.on(self.trunk):
            raise ValueError("its sizes are not those of its trunk")

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        fields = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        own = fields.pop("trunk")
        return fields if own is None else {**fields, "trunk": self.trunk.as_dict()}  # type: ignore[union-attr]


@dataclass(frozen=True)
class Estimate:
    """What a flow says of its modality.

    Attributes:
        image: (B, 1, D, H, W), expected image in the network's range.
        log_variance: (B, 8, D/2, H/2, W/2), of the error of each Haar band.
    """

    image: torch.Tensor
    log_variance: torch.Tensor

    def variance(self) -> torch.Tensor:
        """(B, 1, D, H, W) variance of the error of each voxel, the same for the eight that share their bands."""
        mean = self.log_variance.exp().mean(1, keepdim=True)
        return mean.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4)


class Flow(nn.Module):
    """Denoiser (x, sigma, sources) -> :class:`Estimate` of one modality."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = self._network()
        blocks = (1,) * len(config.channels) if config.trunk is None else config.trunk.blocks_of_levels
        places = _places(config.channels, blocks)
        self.guidance = nn.ModuleDict(
            {name: VoxelGuidance(config.channels, places, config.groups) for name in config.sources}
        )
        self.lookup = nn.ModuleDict({name: IntensityLookup() for name in config.sources})

    def _network(self) -> nn.Module:
        lean_monai()
        from monai.networks.nets import DiffusionModelUNet

        return DiffusionModelUNet(
            spatial_dims=3,
            in_channels=INPUTS,
            out_channels=2 * BANDS,
            channels=self.config.channels,
            attention_levels=(False,) * len(self.config.channels),
            num_res_blocks=1,
            norm_num_groups=self.config.groups,
            num_head_channels=self.config.groups,
        )

    def forward(self, x: torch.Tensor, sigma: torch.Tensor, sources: Mapping[str, Source]) -> Estimate:
        """Estimate the clean image.

        Args:
            x: (B, 1, D, H, W), image with noise of ``sigma``, network range; anything finite where that is infinite.
            sigma: (B,).
            sources: by modality; those that are left out are absent.
        """
        guess = self.guess(x, sources)
        skip, out, scale = self._factors(sigma)
        offset = torch.where(torch.isinf(sigma)[:, None, None, None, None], 0.0, x - guess)
        known = next(iter(sources.values())).known if sources else torch.ones_like(x)
        channels = torch.cat(
            [haar_forward(offset * scale), haar_forward(guess), functional.avg_pool3d(known, 2)], dim=1
        )
        image, heads = self._corrected(guess + skip * offset, out, channels, sigma, self._additions(sigma, sources))
        spread = 2 * out.flatten().log()[:, None, None, None, None]
        return Estimate(image, (heads + spread).clamp(-14, 4))

    def _corrected(
        self,
        best: torch.Tensor,
        error: torch.Tensor,
        channels: torch.Tensor,
        sigma: torch.Tensor,
        additions: dict[str, Any],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the network makes of what is known, and its head of log-variances.

        Args:
            best: (B, 1, D, H, W), the best of the noisy image and the guess.
            error: (B, 1, 1, 1, 1), standard deviation by which that strays.
            channels: (B, INPUTS, D/2, H/2, W/2), what the network sees.
            additions: of the guidance, as arguments of the network.
        """
        seen = channels.contiguous(memory_format=torch.channels_last_3d)
        heads = self.trunk(seen, _time(sigma), **additions).float()
        return best + error * haar_inverse(heads[:, :BANDS]), heads[:, BANDS:]

    def guess(self, like: torch.Tensor, sources: Mapping[str, Source]) -> torch.Tensor:
        """First guess of the image from the source that has least noise; the usual value where there is none."""
        if not sources:
            table: Any = next(iter(self.lookup.values()))
            return torch.full_like(like, float((table.values * table.share).sum()))
        name = min(sources, key=lambda key: float(sources[key].sigma.mean()))
        source = sources[name]
        guess = self.lookup[name](source.image, source.sigma)
        guess = guess if source.body is None else torch.where(source.body > 0.5, guess, BACKGROUND)
        if source.guess is None:
            return guess
        return torch.where((source.sigma == 0)[:, None, None, None, None], source.guess, guess)

    def _additions(self, sigma: torch.Tensor, sources: Mapping[str, Source]) -> dict[str, Any]:
        """What the sources add to the trunk, as its arguments."""
        given = [self.guidance[name](source, sigma) for name, source in sources.items()]
        if not given:
            return {}
        *down, middle = [
            torch.stack(parts).sum(0) if len(parts) > 1 else parts[0] for parts in zip(*given, strict=True)
        ]
        return {"down_block_additional_residuals": tuple(down), "mid_block_additional_residual": middle}

    def _factors(self, sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """c_skip, c_out and c_in (B, 1, 1, 1, 1) of EDM for the offset from the guess; also for an infinite sigma."""
        d2 = self.config.deviation**2
        ratio = d2 / (sigma.square() + d2)  # 0 for an infinite sigma
        skip, out = ratio, self.config.deviation * (1 - ratio).sqrt()
        scale = ratio.sqrt() / self.config.deviation
        return tuple(factor[:, None, None, None, None] for factor in (skip, out, scale))  # type: ignore[return-value]


def _places(channels: Sequence[int], blocks: Sequence[int]) -> list[tuple[int, int]]:
    """Level and channels of each feature map of MONAI's U-Net that takes an addition: what every level hands over to
    the way up (the stem, its blocks, its halved output), and the middle."""
    places = [(0, channels[0])]
    for level, width in enumerate(channels):
        places += [(level, width)] * blocks[level]
        if level + 1 < len(channels):
            places.append((level + 1, width))
    return [*places, (len(channels) - 1, channels[-1])]


def _time(sigma: torch.Tensor) -> torch.Tensor:
    """Noise level -> [0, 1000], linear in its logarithm."""
    low, high = math.log(SIGMA_MIN), math.log(SIGMA_MAX)
    return (sigma.clamp(SIGMA_MIN, SIGMA_MAX).log() - low) * (1000.0 / (high - low))
