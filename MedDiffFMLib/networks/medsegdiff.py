"""MedSegDiff in 3-D (arXiv 2211.00611): a mask-denoising network conditioned on the image.

Two encoders, one for the noisy mask and one for the image, meet by addition; one more encoder stage and the decoder
are shared: eps(x_t, I, t) = D((E_I + E_x, t), t). Both images pass the Haar stem as the prior's do, and the image
encoder may be given the frozen prior's activations, so that few cases suffice.

What of the image encoder does not depend on the noisy mask, the :class:`Guide`, is computed once a window and serves
all steps and all samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as functional
from torch import nn

from ..core.lean_monai import lean_monai
from ..imaging.haar import HAAR_BANDS, haar_forward, haar_inverse
from .conditional_encoding import AnchorAttention, enhance
from .ff_parser import FFParser

HU_WINDOWS = ((0.0, 1.0), (0.04, 0.15))
"""Center and width in the network's range: the whole range, and soft tissue, whose contrasts are a hundredth of it."""


@dataclass(frozen=True)
class MedSegDiffConfig:
    """Size and parts of the network. Channel counts must be multiples of ``groups``.

    Attributes:
        classes: structures that are segmented; each is a channel of its own, -1 outside and 1 inside.
        channels: per stage, the first at half the input's resolution; the last stage is the shared one.
        prior: channels of the frozen prior's activations at half, a quarter, ... of the resolution; empty for none.
        dynamic: dynamic conditional encoding in the middle two stages; without it the encoders are only added.
        parser: FF-Parser on the mask's features before they meet the image's; only with ``dynamic``.
        anchor: condition model with its own loss and V2's anchor condition.
        groups: of the group normalization.
        knots: of the FF-Parser along each axis.
    """

    classes: int = 1
    channels: Sequence[int] = (16, 32, 64, 64)
    prior: Sequence[int] = ()
    dynamic: bool = True
    parser: bool = True
    anchor: bool = False
    groups: int = 4
    knots: int = 8

    @property
    def divisor(self) -> int:
        """Input edge lengths must be multiples of this."""
        return 2 ** len(self.channels)

    @property
    def enhanced(self) -> tuple[int, ...]:
        """Stages of the separate encoders in which the image's features are enhanced: the middle two."""
        middle = len(self.channels) // 2
        return tuple(n for n in (middle - 1, middle) if n < len(self.channels) - 1) if self.dynamic else ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


@dataclass(frozen=True)
class Guide:
    """Knowledge of a batch of windows before the network sees a mask; all (B, ...).

    Attributes:
        stages: the image encoder's features of each separate stage, not enhanced.
        prior: what the prior's activations add to each stage; zeros of one voxel where there are none.
        anchor: last features of the condition model at half resolution; None without one.
        logits: (B, classes, D, H, W) of the condition model; None without one.
    """

    stages: tuple[torch.Tensor, ...]
    prior: tuple[torch.Tensor, ...]
    anchor: torch.Tensor | None = None
    logits: torch.Tensor | None = None

    def repeated(self, count: int) -> Guide:
        """Each window ``count`` times in a row."""

        def grow(part: torch.Tensor) -> torch.Tensor:
            return part.repeat_interleave(count, dim=0)

        anchor, logits = (None if part is None else grow(part) for part in (self.anchor, self.logits))
        return Guide(tuple(map(grow, self.stages)), tuple(map(grow, self.prior)), anchor, logits)


class MedSegDiff(nn.Module):
    """Network (x, time, guide) -> output of x's shape; what it means is the denoiser's business.

    x: (B, classes, D, H, W), edges multiples of ``config.divisor``, scaled to unit variance; time: (B,) in [0, 1000];
    guide: of the same windows, see :meth:`guide`.
    """

    def __init__(self, config: MedSegDiffConfig) -> None:
        super().__init__()
        self.config = config
        widths, width = list(config.channels), 4 * config.channels[0]
        self.time = nn.Sequential(nn.Linear(widths[0], width), nn.SiLU(), nn.Linear(width, width))
        self.image = ImageEncoder(config)
        self.stem = _conv(HAAR_BANDS * config.classes, widths[0])
        timed = _timed_block(width, config.groups)
        self.encoder = nn.ModuleList(timed(c, c) for c in widths)
        self.down = nn.ModuleList(_down(a, b) for a, b in zip(widths, widths[1:], strict=False))
        self.decoder = nn.ModuleList(timed(a + b, a) for a, b in zip(widths, widths[1:], strict=False))
        self.parsers = nn.ModuleDict(
            {str(n): FFParser(widths[n], config.knots) for n in config.enhanced if config.parser}
        )
        self.condition_model = ConditionModel(config) if config.anchor else None
        self.attention = AnchorAttention(widths[0], widths[0]) if config.anchor else None
        self.out = nn.Sequential(
            nn.GroupNorm(config.groups, widths[0]), nn.SiLU(), _zero(_conv(widths[0], HAAR_BANDS * config.classes))
        )

    def guide(self, image: torch.Tensor, body: torch.Tensor, prior: Sequence[torch.Tensor] = ()) -> Guide:
        """Features of a batch of windows that do not depend on the mask.

        Args:
            image: (B, 1, D, H, W) in the network's range.
            body: (B, 3, D, H, W) universal body coordinates.
            prior: the frozen prior's activations, as many and as wide as ``config.prior`` says.
        """
        added = self.image.project(prior)
        stages = self.image(image, body, added)
        if self.condition_model is None:
            return Guide(stages, added)
        anchor, logits = self.condition_model(stages)
        return Guide(stages, added, anchor, logits)

    def forward(self, x: torch.Tensor, time: torch.Tensor, guide: Guide) -> torch.Tensor:
        moment = self.time(_sinusoids(time, self.config.channels[0]))
        mask, image = self.stem(_bands(x)), guide.stages[0]
        met = []
        last = len(self.config.channels) - 1
        for n in range(last):
            mask = self.encoder[n](mask, moment)
            if n == 0 and self.attention is not None and guide.anchor is not None:
                mask = self.attention(guide.anchor, mask)
            if n > 0:
                image = self.image.stage(n, image, guide.prior[n])
            if n in self.config.enhanced:
                image = enhance(image, self.parsers[str(n)](mask) if self.config.parser else mask)
            met.append(mask + image)
            mask = self.down[n](mask) if n + 1 < last else mask
        shared = self._shared(mask, image, moment)
        for n in reversed(range(last)):
            shared = self.decoder[n](torch.cat([met[n], _double(shared)], dim=1), moment)
        return _voxels(self.out(shared), self.config.classes).to(x.dtype)

    def _shared(self, mask: torch.Tensor, image: torch.Tensor, moment: torch.Tensor) -> torch.Tensor:
        """E_I + E_x and the stage that they share.

        In float32: of few voxels, so that it costs nothing, and on 2x2x2 voxels torch 2.13 computes a convolution's
        gradient wrongly in bfloat16 on a CPU.
        """
        with torch.autocast(mask.device.type, enabled=False):
            joined = self.down[-1](mask.float()) + self.image.leave(image.float())
            return self.encoder[-1](joined, moment.float())


class ImageEncoder(nn.Module):
    """E_I: the image in two windows of HU, where in the body it is, and the prior's activations; knows no time."""

    def __init__(self, config: MedSegDiffConfig) -> None:
        super().__init__()
        lean_monai()
        from monai.networks.nets.autoencoderkl import AEKLResBlock

        widths = list(config.channels)
        self.stem = _conv(HAAR_BANDS * len(HU_WINDOWS) + 3, widths[0])
        self.blocks = nn.ModuleList(AEKLResBlock(3, c, config.groups, 1e-6, c) for c in widths[:-1])
        self.down = nn.ModuleList(_down(a, b) for a, b in zip(widths, widths[1:], strict=False))
        self.projections = nn.ModuleList(
            nn.Sequential(nn.GroupNorm(1, channels, affine=False), nn.Conv3d(channels, own, 1))
            for channels, own in zip(config.prior, widths[:-1], strict=False)
        )

    def project(self, prior: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Additions of the prior's activations to each stage."""
        if len(prior) != len(self.projections):
            raise ValueError(f"{len(self.projections)} activations of the prior are needed, not {len(prior)}")
        added = [projection(activation) for projection, activation in zip(self.projections, prior, strict=True)]
        weight = self.stem.weight
        none = [weight.new_zeros(1, 1, 1, 1, 1)] * (len(self.blocks) - len(added))
        return (*added, *none)

    def forward(
        self, image: torch.Tensor, body: torch.Tensor, added: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, ...]:
        windows = [torch.tanh((image - center) / width) for center, width in HU_WINDOWS]
        seen = torch.cat([_bands(torch.cat(windows, dim=1)), functional.avg_pool3d(body, 2)], dim=1)
        features = self.blocks[0](self.stem(seen) + added[0])
        stages = [features]
        for n in range(1, len(self.blocks)):
            stages.append(self.stage(n, stages[-1], added[n]))
        return tuple(stages)

    def stage(self, n: int, before: torch.Tensor, added: torch.Tensor) -> torch.Tensor:
        """Features of stage n from those of the stage before."""
        return self.blocks[n](self.down[n - 1](before) + added)

    def leave(self, features: torch.Tensor) -> torch.Tensor:
        """From the last stage of its own to the shared one."""
        return self.down[-1](features)


class ConditionModel(nn.Module):
    """V2's condition model: a decoder on the image encoder, trained to segment by itself."""

    def __init__(self, config: MedSegDiffConfig) -> None:
        super().__init__()
        lean_monai()
        from monai.networks.nets.autoencoderkl import AEKLResBlock

        widths, self.classes = list(config.channels[:-1]), config.classes
        self.blocks = nn.ModuleList(
            AEKLResBlock(3, a + b, config.groups, 1e-6, a) for a, b in zip(widths, widths[1:], strict=False)
        )
        self.out = nn.Conv3d(widths[0], HAAR_BANDS * config.classes, 1)

    def forward(self, stages: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Last features at half resolution and logits (B, classes, D, H, W)."""
        features = stages[-1]
        for n in reversed(range(len(self.blocks))):
            features = self.blocks[n](torch.cat([stages[n], _double(features)], dim=1))
        return features, _voxels(self.out(features).float(), self.classes)


def _timed_block(width: int, groups: int) -> Callable[[int, int], nn.Module]:
    """The paper's residual block: twice GroupNorm, SiLU, convolution, the time added in between."""
    lean_monai()
    from monai.networks.nets.diffusion_model_unet import DiffusionUNetResnetBlock

    def block(before: int, after: int) -> nn.Module:
        return DiffusionUNetResnetBlock(3, before, width, after, norm_num_groups=groups)

    return block


def _sinusoids(time: torch.Tensor, channels: int) -> torch.Tensor:
    lean_monai()
    from monai.networks.nets.diffusion_model_unet import get_timestep_embedding

    return get_timestep_embedding(time, channels)


def _conv(before: int, after: int) -> nn.Conv3d:
    return nn.Conv3d(before, after, 3, padding=1)


def _down(before: int, after: int) -> nn.Module:
    return nn.Conv3d(before, after, 3, stride=2, padding=1)


def _double(features: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(features, scale_factor=2.0, mode="nearest")


def _zero(layer: nn.Conv3d) -> nn.Conv3d:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _bands(images: torch.Tensor) -> torch.Tensor:
    """(B, C, D, H, W) -> (B, 8 C, D/2, H/2, W/2), as the convolutions like it best."""
    bands = haar_forward(images.flatten(0, 1)[:, None]).unflatten(0, images.shape[:2]).flatten(1, 2)
    return bands.contiguous(memory_format=torch.channels_last_3d)


def _voxels(bands: torch.Tensor, classes: int) -> torch.Tensor:
    """The inverse of :func:`_bands`."""
    of_one = bands.unflatten(1, (classes, HAAR_BANDS)).flatten(0, 1)
    return haar_inverse(of_one).unflatten(0, (len(bands), classes))[:, :, 0]
