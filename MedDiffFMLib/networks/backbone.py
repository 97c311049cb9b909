"""Interface of a prior's network: all that denoisers, engine, training and weight files know of one.

Samplers, windows and tasks see a denoiser only. What is attached to a frozen prior needs more of its network:
ControlNets a :class:`UNetBackbone`, segmentation heads a :class:`DecoderBackbone`. A network without that serves all
else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..conditioning.condition import EncodedCondition


class BackboneConfig(Protocol):
    """Size of a network: a frozen dataclass whose fields are written into weight files as JSON.

    Attributes:
        name: row of NETWORKS.
    """

    name: ClassVar[str]

    @property
    def divisor(self) -> int:
        """Edge lengths of windows must be multiples of this; it is even."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; ``type(config)(**config.as_dict())``, lists as tuples, is the same."""

    def check(self) -> None:
        """Refuse sizes that cannot be built, or would take for ever.

        Raises:
            ValueError: says why, in words.
            TypeError: a field of another type.
        """


class Backbone(Protocol):
    """Network (x, noise, time, condition) -> output of x's shape; a ``torch.nn.Module`` made from its config alone.

    x: (B, 1, D, H, W), D, H, W multiples of ``config.divisor``; noise: (B,) standard deviation of the noise in x;
    time: (B,) in [0, 1000]; condition: encoded at half resolution. With an output of zero the denoiser returns its
    starting point: begin there.
    """

    config: Any

    def __call__(
        self, x: torch.Tensor, noise: torch.Tensor, time: torch.Tensor, condition: EncodedCondition
    ) -> torch.Tensor: ...


@runtime_checkable
class DecoderBackbone(Protocol):
    """A network whose decoder a segmentation head reads; ``config.channels`` are those of its levels, finest first,
    the first at half of the window's resolution and each further one at half of the one before."""

    config: Any

    def decoder_levels(self) -> list[nn.Module]:
        """Modules whose outputs are the activations of each level, coarsest first."""


@runtime_checkable
class UNetBackbone(Protocol):
    """A network around MONAI's ``DiffusionModelUNet``, whose encoder a ControlNet copies; its config has the fields of
    :class:`.unet.NetworkConfig`.

    Attributes:
        unet: the U-Net at half of the window's resolution, with 16 output channels: two heads of eight Haar bands.
    """

    config: Any
    unet: nn.Module

    def stem(self, x: torch.Tensor, noise: torch.Tensor, condition: EncodedCondition) -> torch.Tensor:
        """The U-Net's input channels at half resolution."""

    def image(self, heads: torch.Tensor, condition: EncodedCondition) -> torch.Tensor:
        """(B, 16, d, h, w) -> (B, 1, D, H, W)."""
