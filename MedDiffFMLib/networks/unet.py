"""Network of the prior: MONAI's diffusion U-Net behind the Haar stem."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from ..conditioning.condition import CONDITION_CHANNELS, EncodedCondition
from ..conditioning.detail_bands import DETAIL_BANDS, detail_bands
from ..conditioning.regions import REGIONS
from ..conditioning.tissue import TISSUE_CHANNELS
from ..core.lean_monai import lean_monai
from ..imaging.haar import haar_forward, haar_inverse
from .folded_upsampling import fold_for_training

_LARGEST, _MOST_LEVELS = 8192, 8
"""Upper limits of the channels of a level and of the levels."""


@dataclass(frozen=True)
class NetworkConfig:
    """Size of the U-Net. Channel counts must be multiples of ``groups``.

    Attributes:
        channels: per level, first level at half the input's resolution.
        blocks: residual blocks of every level, or of each.
        attention: self-attention per level, in addition to the one in the middle.
        groups: groups of the group normalization. Few channels with many groups would be an instance normalization,
            which forgets the absolute HU of a window.
        tissue: takes the tissue classes of the condition; weights of version 0.1 do not.
    """

    name: ClassVar[str] = "prior-unet"

    channels: Sequence[int] = (32, 64, 128)
    blocks: int | Sequence[int] = 1
    attention: Sequence[bool] = field(default=(False, False, False))
    groups: int = 8
    tissue: bool = False

    @property
    def divisor(self) -> int:
        """Input edge lengths must be multiples of this: two for the stem, two for each further level."""
        return 2 ** len(self.channels)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def check(self) -> None:
        """Refuse sizes that would take for ever to build; see :meth:`.backbone.BackboneConfig.check`."""
        blocks = self.blocks_of_levels
        whole = [*self.channels, *blocks, self.groups]
        if any(type(n) is not int or not 0 < n <= _LARGEST for n in whole) or len(self.channels) > _MOST_LEVELS:
            raise ValueError("its sizes are impossible")
        if max(blocks) > _MOST_LEVELS or any(len(n) != len(self.channels) for n in (self.attention, blocks)):
            raise ValueError("its levels do not fit together")

    @property
    def blocks_of_levels(self) -> tuple[int, ...]:
        """Residual blocks of each level."""
        return (self.blocks,) * len(self.channels) if isinstance(self.blocks, int) else tuple(self.blocks)

    @property
    def condition_channels(self) -> int:
        """Leading channels of an encoded condition that the network takes."""
        return CONDITION_CHANNELS if self.tissue else CONDITION_CHANNELS - TISSUE_CHANNELS

    @property
    def stem_channels(self) -> int:
        """Input channels of the U-Net."""
        return IMAGE_CHANNELS + self.condition_channels


IMAGE_CHANNELS = 8 + DETAIL_BANDS
"""Haar bands of the noisy image, and its details once more in units of the noise."""


def stem_channels(
    config: NetworkConfig, x: torch.Tensor, noise: torch.Tensor, condition: EncodedCondition
) -> torch.Tensor:
    """What the U-Net of a size sees of an image and its condition, see :class:`PriorUNet`."""
    bands = haar_forward(x)
    squashed = torch.tanh(detail_bands(bands) / (2 * noise.reshape(-1, 1, 1, 1, 1)))
    return torch.cat([bands, squashed, condition.channels[:, : config.condition_channels].to(x.dtype)], dim=1)


class PriorUNet(nn.Module):
    """Network (x, noise, time, condition) -> output of x's shape.

    x: (B, 1, D, H, W), D, H, W multiples of ``config.divisor``; noise: (B,) standard deviation of the noise in x;
    time: (B,) in [0, 1000]; condition: encoded at half resolution. What the output means (EDM's F, or a noise
    estimate) is the denoiser's business.

    The seven detail bands of the Haar transform enter twice: as they are, and divided by the noise and squashed. At
    the noise of real scans, a fiftieth of the image's range, the second copy is what lets a small network see the
    noise at all. The same is done with what the mean band holds beyond its blurs, for the noise of a scan is
    correlated over more than two voxels.

    There are two heads on one body: one for whole images, one that corrects the biharmonic initialization of a hole.
    """

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__()
        lean_monai()
        from monai.networks.nets import DiffusionModelUNet

        self.config = config or NetworkConfig()
        self.unet = DiffusionModelUNet(
            spatial_dims=3,
            in_channels=self.config.stem_channels,
            out_channels=16,
            channels=tuple(self.config.channels),
            attention_levels=tuple(self.config.attention),
            num_res_blocks=self.config.blocks_of_levels,
            norm_num_groups=self.config.groups,
            num_head_channels=self.config.groups * 4,
            num_class_embeds=len(REGIONS) + 1,
        )
        fold_for_training(self.unet)

    def forward(
        self, x: torch.Tensor, noise: torch.Tensor, time: torch.Tensor, condition: EncodedCondition
    ) -> torch.Tensor:
        channels = self.stem(x, noise, condition)
        with self._precision(x):
            heads = self.unet(channels, time, class_labels=condition.region)
        return self.image(heads.to(x.dtype), condition)

    def _precision(self, x: torch.Tensor) -> contextlib.AbstractContextManager[Any]:
        """Float32 in training where the coarsest level has few voxels.

        On 2x2x2 voxels torch 2.13 computes a convolution's gradient wrongly in bfloat16 on a CPU.
        """
        few = min(x.shape[2:]) <= 2 * self.config.divisor
        if few and x.device.type == "cpu" and torch.is_grad_enabled():
            return torch.autocast("cpu", enabled=False)
        return contextlib.nullcontext()

    def stem(self, x: torch.Tensor, noise: torch.Tensor, condition: EncodedCondition) -> torch.Tensor:
        """The U-Net's input channels at half resolution."""
        # channels_last_3d is what makes bf16 convolutions fast, on CPU and GPU alike.
        return stem_channels(self.config, x, noise, condition).contiguous(memory_format=torch.channels_last_3d)

    def decoder_levels(self) -> list[nn.Module]:
        """Modules whose outputs are the activations of each level, coarsest first."""
        blocks: Any = self.unet.up_blocks
        return [block.resnets[-1] for block in blocks]

    def image(self, heads: torch.Tensor, condition: EncodedCondition) -> torch.Tensor:
        """(B, 16, d, h, w) -> (B, 1, D, H, W): the output of the head that each sample's condition asks for."""
        if condition.hole is None:
            return haar_inverse(heads[:, :8])
        return haar_inverse(torch.where(condition.has_hole()[:, None, None, None, None], heads[:, 8:], heads[:, :8]))
