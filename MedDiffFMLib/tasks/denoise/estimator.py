"""What removes noise before the filters look at it: the small denoiser, or the prior's passes."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ...conditioning.condition import Condition
    from ...core.progress import ProgressMeter

N = TypeVar("N", bound="nn.Module")


@dataclass(frozen=True)
class LastPass:
    """The last layer at work on an image.

    Attributes:
        inputs: (c, d, h, w) that it convolves.
        missing: (outputs, d, h, w), what its outputs lack for the result to be the target.
        block: voxels (k, j, i) that one place of ``inputs`` stands for.
    """

    inputs: torch.Tensor
    missing: torch.Tensor
    block: tuple[int, int, int]


class Estimator(Protocol):
    """A network whose result is linear in the weights of its last layer; images (1, 1, D, H, W), network range."""

    @property
    def evaluations(self) -> int:
        """Units by which :meth:`denoise` advances a meter."""

    @property
    def alone(self) -> float:
        """Share of the estimate as it is in the result, beside what the filters make of it."""

    def denoise(
        self, noisy: torch.Tensor, sigma: float, condition: Condition, meter: ProgressMeter | None = None
    ) -> torch.Tensor:
        """An image with noise of level ``sigma``, without it."""

    def last_pass(self, noisy: torch.Tensor, target: torch.Tensor, sigma: float, condition: Condition) -> LastPass:
        """What a new last layer is fitted to."""

    @property
    def last_layer(self) -> nn.Conv3d:
        """A convolution of 3x3x3."""

    def with_last_layer(self, layer: nn.Conv3d) -> Estimator:
        """The same but for its last layer; nothing that is there already changes."""


def sharing_all_but(network: N, old: nn.Module, new: nn.Module) -> N:
    """A copy of ``network`` that shares all weights but those of one module, in whose place another stands."""
    memo = {id(parameter): parameter for parameter in network.parameters()} | {id(old): new}
    return copy.deepcopy(network, memo)
