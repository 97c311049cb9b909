"""ControlNet on the frozen prior (Zhang et al. 2023, arXiv 2302.05543), behind the same Haar stem.

What the network is steered by (an interpolated image, a lesion's mask) enters at full resolution and is brought to half
of it as the image is: images as Haar bands, masks averaged. MONAI's conditioning embedding halves the resolution once
more for each width after the first, so it is given one width only.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as functional
from torch import nn

from ..conditioning.condition import EncodedCondition
from ..conditioning.detail_bands import box_mean
from ..conditioning.regions import REGIONS
from ..core.lean_monai import lean_monai
from ..imaging.haar import HAAR_BANDS, haar_forward
from .backbone import UNetBackbone
from .unet import NetworkConfig

"""Haar bands of an image; the prior has an output of so many channels for whole images and one for holes."""
QUIET = 0.004
"""Least error that a guess is taken to have anywhere, network range: the noise of a thick slice."""


@dataclass(frozen=True)
class ControlConfig:
    """Inputs and size of a ControlNet.

    Attributes:
        images: first channels of the control that are images in the network's range.
        masks: channels after those that are masks or smooth maps.
        embedding: width of the layer that takes them in.
        head: width of the output head.
        squash: detail bands of images enter a second time divided by twice this and squashed, network range; those of
            a guess divided by twice its detail in the surroundings.
        guess: where the first image is an estimate of the result, its typical error in the network's range;
            see :class:`ControlledDenoiser`. None where it is not.
        blocks: most residual blocks a level of its encoder, which has the prior's channels; None for as many as the
            prior has. A few patients do not fill a deeper copy, and a file with one block a level is half as large.
    """

    images: int = 0
    masks: int = 0
    embedding: int = 32
    head: int = 48
    squash: float = 0.05
    guess: float | None = None
    blocks: int | None = None

    @property
    def channels(self) -> int:
        """Channels of the control at full resolution."""
        return self.images + self.masks

    @property
    def embedded(self) -> int:
        """Channels at half resolution: Haar bands of images, details twice, and averaged masks."""
        return 15 * self.images + self.masks

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


class ControlBranch(nn.Module):
    """All that is trained: a copy of the prior's encoder, the control's embedding, and an output head.

    The convolutions that lead into the prior are zero at first, and so is the last one of the head. The head reads the
    prior's last features and the control: it learns at once what needs no steering of the prior, and makes up for the
    prior's own output, which is frozen.

    Args:
        network: size of the prior.
    """

    def __init__(self, network: NetworkConfig, config: ControlConfig) -> None:
        super().__init__()
        lean_monai()
        from monai.networks.nets import ControlNet

        self.network, self.config = network, config
        most = max(network.blocks_of_levels) if config.blocks is None else config.blocks
        self.blocks = tuple(min(n, most) for n in network.blocks_of_levels)
        self.encoder = ControlNet(
            spatial_dims=3,
            in_channels=network.stem_channels,
            channels=tuple(network.channels),
            attention_levels=tuple(network.attention),
            num_res_blocks=self.blocks,
            norm_num_groups=network.groups,
            num_head_channels=network.groups * 4,
            num_class_embeds=len(REGIONS) + 1,
            conditioning_embedding_in_channels=config.embedded,
            conditioning_embedding_num_channels=(config.embedding,),
        )
        last = nn.Conv3d(config.head, 2 * HAAR_BANDS if config.guess is None else HAAR_BANDS, 3, padding=1)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        first = nn.Conv3d(network.channels[0] + config.embedded, config.head, 3, padding=1)
        self.head = nn.Sequential(first, nn.SiLU(), last)

    def copy_encoder(self, prior: UNetBackbone) -> None:
        """Start from the prior's encoder, time and region embeddings."""
        missing, _ = self.encoder.load_state_dict(prior.unet.state_dict(), strict=False)
        own = [name for name in missing if not name.startswith("controlnet_")]
        if own:
            raise ValueError(f"the prior has no {own[0]}")

    def residuals(self, down: list[torch.Tensor]) -> tuple[torch.Tensor | float, ...]:
        """Outputs of the encoder's levels -> what is added to each skip connection of the prior.

        Where the prior has more blocks in a level, its last ones are steered: their features are the level's results.
        """
        outputs = iter(down)
        added: list[torch.Tensor | float] = [next(outputs)]  # of the input convolution
        levels = len(self.blocks)
        for level, (own, prior) in enumerate(zip(self.blocks, self.network.blocks_of_levels, strict=True)):
            added += [0.0] * (prior - own)
            added += [next(outputs) for _ in range(own + (level < levels - 1))]  # and of the step to the next level
        return tuple(added)

    def embed(self, control: torch.Tensor) -> torch.Tensor:
        """(B, C, D, H, W) -> channels at half resolution."""
        images, masks = control[:, : self.config.images], control[:, self.config.images :]
        batch, count, *shape = images.shape
        parts = []
        if count:
            bands = haar_forward(images.reshape(batch * count, 1, *shape)).unflatten(0, (batch, count))
            divisor = torch.full_like(bands[:, :, :1], self.config.squash)
            if self.config.guess is not None:
                divisor[:, 0] = local_detail(bands[:, 0])
            both = torch.cat([bands, torch.tanh(bands[:, :, 1:] / (2 * divisor))], dim=2)
            parts.append(both.flatten(1, 2))
        if masks.shape[1]:
            parts.append(functional.avg_pool3d(masks, 2))
        return torch.cat(parts, dim=1).contiguous(memory_format=torch.channels_last_3d)


class ControlledUNet(nn.Module):
    """The prior's network with a ControlNet at its side; a :class:`.backbone.Backbone` itself.

    Args:
        prior: a :class:`.backbone.UNetBackbone`.

    Attributes:
        weight: factor on all that the ControlNet adds; 0 is the prior alone, bit for bit.
        added: with a guess the head's bands are not added to the network's, but left here.
    """

    prior: Any

    def __init__(self, prior: nn.Module, control: ControlBranch, weight: float = 1.0) -> None:
        super().__init__()
        self.prior, self.control, self.weight = prior.requires_grad_(False), control, weight
        # In a tuple, so that the prior's weights are not listed a second time.
        self._body = (_without_last_convolution(prior.unet),)
        self.added: torch.Tensor | None = None

    @property
    def config(self) -> NetworkConfig:
        """Size of the prior."""
        return self.prior.config

    def forward(
        self, x: torch.Tensor, noise: torch.Tensor, time: torch.Tensor, condition: EncodedCondition
    ) -> torch.Tensor:
        if condition.control is None or self.weight == 0:
            return self.prior(x, noise, time, condition)
        channels, control = self.prior.stem(x, noise, condition), self.control.embed(condition.control)
        down, middle = self.control.encoder(channels, time, control, self.weight, class_labels=condition.region)
        features = self._body[0](
            channels,
            time,
            class_labels=condition.region,
            down_block_additional_residuals=self.control.residuals(down),
            mid_block_additional_residual=middle,
        )
        heads = self.prior.unet.out[2](features)
        added = self.weight * self.control.head(torch.cat([features, control.to(features.dtype)], dim=1))
        if self.control.config.guess is None:
            return self.prior.image((heads + added).to(x.dtype), condition)
        self.added = added.to(x.dtype)
        return self.prior.image(heads.to(x.dtype), condition)


def _without_last_convolution(unet: Any) -> nn.Module:
    """The same U-Net, the same weights, up to the features that its output convolution sees."""
    body = copy.copy(unet)
    body._modules = {**unet._modules, "out": unet.out[:2]}
    return body


def local_detail(bands: torch.Tensor) -> torch.Tensor:
    """Standard deviation of an image's details in the surroundings of each voxel, from its Haar bands.

    A guess errs about as much as it has detail: hardly at all in quiet tissue, much in lung and at bone. Measured in
    this unit both are one problem.

    Args:
        bands: (B, 8, d, h, w).

    Returns:
        (B, 1, d, h, w).
    """
    mean = bands[:, :1]
    details = torch.cat([bands[:, 1:], mean - box_mean(mean, (3, 3, 3))], dim=1)
    energy = details.square().sum(dim=1, keepdim=True) / HAAR_BANDS
    return (box_mean(energy, (5, 5, 5)) + QUIET**2).sqrt()
