"""Denoiser with a ControlNet, in place of the prior's denoiser."""

from __future__ import annotations

import torch
from torch import nn

from ..conditioning.condition import EncodedCondition
from ..core.errors import ModelError
from ..imaging.haar import haar_forward, haar_inverse
from ..networks.backbone import UNetBackbone
from ..networks.controlnet import ControlBranch, ControlConfig, ControlledUNet, local_detail
from .denoiser import CosineEpsilonDenoiser, EDMDenoiser, weighted_mean

NEGLIGIBLE = 0.01
"""Error of a guess, network range, below which it need not be improved."""


class ControlledDenoiser(nn.Module):
    """``denoiser(x, sigma, condition) -> x0`` with a ControlNet; takes the place of the prior's denoiser.

    Without ``ControlConfig.guess`` it is the prior's denoiser on a steered network. Before any training, with weight 0,
    and for conditions without ``control`` it returns what the prior returns, bit for bit.

    With a guess m of error g, x (noise sigma) and m are two measurements of the same image. Their mean weighted by
    inverse variances, w the control weight, has less error than either::

        q = w sigma^2 / (g^2 + w sigma^2),    x' = x + q (m - x),    sigma' = sigma sqrt(1 - q)

    1 - q of its variance is noise, which the steered prior P removes; the head H adds what the guess lacks, in units of
    the guess's detail s in the surroundings, or of x's noise where that is less::

        D = x' + (1 - q) (P(x', sigma') - x') + H / sqrt(1 / s^2 + 1 / sigma^2)

    So the first step of a sampler, where q is 1, is a plain regression from m: before any training m itself, and little
    training suffices for more. At low noise it is the prior, which works at noise levels where it is strong.
    """

    def __init__(self, denoiser: EDMDenoiser | CosineEpsilonDenoiser, control: ControlBranch) -> None:
        super().__init__()
        self.steered = type(denoiser)(ControlledUNet(denoiser.network, control))

    @property
    def network(self) -> ControlledUNet:
        """The steered network."""
        return self.steered.network  # type: ignore[return-value]

    @property
    def control(self) -> ControlBranch:
        """Branch that is trained and saved."""
        return self.network.control

    @property
    def weight(self) -> float:
        """Control weight, 0 to 2."""
        return self.network.weight

    @weight.setter
    def weight(self, weight: float) -> None:
        self.network.weight = weight

    def forward(self, x: torch.Tensor, sigma: torch.Tensor, condition: EncodedCondition) -> torch.Tensor:
        """x (B, 1, D, H, W); sigma (B,); returns x0 in x's shape and type."""
        if self._guess(condition) is None:
            return self.steered(x, sigma, condition)
        return self._corrected(*self._with_guess(x, sigma, condition), sigma, condition)

    def loss(
        self,
        x0: torch.Tensor,
        sigma: torch.Tensor,
        noise: torch.Tensor,
        condition: EncodedCondition,
        weight: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Loss of each sample (B,): the prior's own, or with a guess the share of the squared error of x' that is left.

        So each window counts by the decibels that it gains, and not the few with much bone and air for nearly all.
        ``weight`` (B, 1, D, H, W) says how much each voxel counts beside the others of its window.
        """
        if self._guess(condition) is None:
            return self.steered.loss(x0, sigma, noise, condition, weight)
        x = x0 + sigma.reshape(-1, 1, 1, 1, 1) * noise
        mixed, left, share = self._with_guess(x, sigma, condition)
        corrected = self._corrected(mixed, left, share, sigma, condition)
        before, remains = (weighted_mean((image - x0).square(), weight) for image in (mixed, corrected))
        return remains / (before + NEGLIGIBLE**2)

    def _guess(self, condition: EncodedCondition) -> torch.Tensor | None:
        if self.control.config.guess is None or condition.control is None or self.weight == 0:
            return None
        return condition.control[:, :1]

    def _with_guess(
        self, x: torch.Tensor, sigma: torch.Tensor, condition: EncodedCondition
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """x', sigma' (B,) and the guess's share q (B, 1, 1, 1, 1) in x'."""
        guess, error = self._guess(condition), self.control.config.guess
        assert guess is not None and error is not None
        precision = self.weight * (sigma / error) ** 2
        share = (precision / (1 + precision)).reshape(-1, 1, 1, 1, 1)
        return x + share * (guess - x), sigma / (1 + precision).sqrt(), share

    def _corrected(
        self,
        mixed: torch.Tensor,
        left: torch.Tensor,
        share: torch.Tensor,
        sigma: torch.Tensor,
        condition: EncodedCondition,
    ) -> torch.Tensor:
        """x' (noise and error sigma') with its noise removed by the prior and with what the head adds."""
        cleaned = self.steered(mixed, left, condition)
        added, self.network.added = self.network.added, None
        guess = self._guess(condition)
        assert added is not None and guess is not None
        detail = local_detail(haar_forward(guess))
        unit = (detail**-2 + sigma.reshape(-1, 1, 1, 1, 1) ** -2) ** -0.5
        return mixed + (1 - share) * (cleaned - mixed) + haar_inverse(unit * added)


def with_control(
    denoiser: EDMDenoiser | CosineEpsilonDenoiser, config: ControlConfig, state: dict[str, torch.Tensor] | None = None
) -> ControlledDenoiser:
    """A denoiser with a new ControlNet, or with the one whose weights are given; its prior is ``denoiser``'s, frozen.

    Raises:
        RuntimeError: the weights do not fit.
        ModelError: the prior's network is not one that a ControlNet can steer.
    """
    prior = denoiser.network
    if not isinstance(prior, UNetBackbone):
        raise ModelError(
            f"The model's network ({type(prior).__name__}) takes no ControlNet.", "Use a prior with another network."
        )
    branch = ControlBranch(prior.config, config)
    if state is None:
        branch.copy_encoder(prior)
    else:
        branch.load_state_dict(state)
    return ControlledDenoiser(denoiser, branch.to(next(denoiser.parameters()).device))
