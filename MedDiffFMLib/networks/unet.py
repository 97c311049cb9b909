"""The prior's network: MONAI's diffusion U-Net behind the Haar stem."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.nn.functional as functional
from torch import nn

from ..conditioning.condition import CONDITION_CHANNELS, REGIONS, EncodedCondition
from ..conditioning.tissue import TISSUE_CHANNELS
from .haar import haar_forward, haar_inverse


@dataclass(frozen=True)
class NetworkConfig:
    """Size of the U-Net. Channel counts must be multiples of ``groups``.

    Attributes:
        channels: per level, first level at half the input's resolution.
        blocks: residual blocks a level.
        attention: self-attention per level, in addition to the one in the middle.
        groups: groups of the group normalisation. Few channels with many groups would be an instance normalisation,
            which forgets the absolute HU of a window.
    """

    channels: Sequence[int] = (32, 64, 128)
    blocks: int = 1
    attention: Sequence[bool] = field(default=(False, False, False))
    groups: int = 8

    @property
    def divisor(self) -> int:
        """Input edge lengths must be multiples of this: two for the stem, two for each further level."""
        return 2 ** len(self.channels)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


BLUR_WIDTHS = ((1, 3, 3), (1, 5, 5), (1, 9, 9), (3, 3, 3), (5, 5, 5))
"""Boxes (k, j, i) at half resolution; what the mean band holds beyond each is shown to the network by itself."""
OLD_CONDITION_CHANNELS = CONDITION_CHANNELS - TISSUE_CHANNELS
"""Networks so far do not look at the tissue, whose channels are the last ones."""
STEM_CHANNELS = 8 + 7 + len(BLUR_WIDTHS) + OLD_CONDITION_CHANNELS


class PriorUNet(nn.Module):
    """Network (x, noise, time, condition) -> output of x's shape.

    x: (B, 1, D, H, W), D, H, W multiples of ``config.divisor``; noise: (B,) standard deviation of the noise in x;
    time: (B,) in [0, 1000]; condition: encoded at half resolution. What the output means (EDM's F, or a noise
    estimate) is the denoiser's business.

    The seven detail bands of the Haar transform enter twice: as they are, and divided by the noise and squashed. At
    the noise of real scans, a fiftieth of the image's range, the second copy is what lets a small network see the
    noise at all. The same is done with what the mean band holds beyond its blurs, for the noise of a scan is blotchy
    and its blotches are wider than two voxels.

    There are two heads on one body: one for whole images, one that corrects the first guess in a hole.
    """

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__()
        from monai.networks.nets import DiffusionModelUNet

        self.config = config or NetworkConfig()
        self.unet = DiffusionModelUNet(
            spatial_dims=3,
            in_channels=STEM_CHANNELS,
            out_channels=16,
            channels=tuple(self.config.channels),
            attention_levels=tuple(self.config.attention),
            num_res_blocks=self.config.blocks,
            norm_num_groups=self.config.groups,
            num_head_channels=self.config.groups * 4,
            num_class_embeds=len(REGIONS) + 1,
        )

    def forward(
        self, x: torch.Tensor, noise: torch.Tensor, time: torch.Tensor, condition: EncodedCondition
    ) -> torch.Tensor:
        channels = self.stem(x, noise, condition)
        return self.image(self.unet(channels, time, class_labels=condition.region).to(x.dtype), condition)

    def stem(self, x: torch.Tensor, noise: torch.Tensor, condition: EncodedCondition) -> torch.Tensor:
        """The U-Net's input channels at half resolution."""
        bands = haar_forward(x)
        mean = bands[:, :1]
        blotches = [mean - box_mean(mean, width) for width in BLUR_WIDTHS]
        details = torch.cat([bands[:, 1:], *blotches], dim=1)
        squashed = torch.tanh(details / (2 * noise.reshape(-1, 1, 1, 1, 1)))
        channels = torch.cat([bands, squashed, condition.channels[:, :OLD_CONDITION_CHANNELS].to(x.dtype)], dim=1)
        # channels_last_3d is what makes bf16 convolutions fast, on CPU and GPU alike.
        return channels.contiguous(memory_format=torch.channels_last_3d)

    def image(self, heads: torch.Tensor, condition: EncodedCondition) -> torch.Tensor:
        """(B, 16, d, h, w) -> (B, 1, D, H, W): the output of the head that each sample's condition asks for."""
        if condition.hole is None:
            return haar_inverse(heads[:, :8])
        return haar_inverse(torch.where(condition.has_hole()[:, None, None, None, None], heads[:, 8:], heads[:, :8]))


def box_mean(image: torch.Tensor, width: tuple[int, int, int]) -> torch.Tensor:
    """Mean over a box around each voxel, as much of it as lies in the image; thin images get thinner boxes."""
    box = [min(w, n - 1 + n % 2) for w, n in zip(width, image.shape[2:], strict=True)]
    return functional.avg_pool3d(image, box, stride=1, padding=[w // 2 for w in box], count_include_pad=False)
