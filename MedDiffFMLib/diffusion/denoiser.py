"""Denoisers: networks behind one interface, ``denoiser(x, sigma, condition) -> x0``.

x is the clean image plus white noise of standard deviation sigma (variance-exploding form, network range), x0 the
expected clean image. Samplers, consistency hooks and tasks know only this.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from ..conditioning.condition import EncodedCondition
from .kinds import COSINE_EPSILON, EDM

SIGMA_MIN, SIGMA_MAX = 0.002, 80.0
SIGMA_DATA = 0.5
SIGMA_GUESS = 0.12
"""Typical error of the biharmonic initialization of a hole: what is left for the network to find there."""
HUBER = 0.05
"""Below this multiple of SIGMA_GUESS an error in a hole counts by its square, above by its size."""


def network_time(sigma: torch.Tensor) -> torch.Tensor:
    """Noise level -> [0, 1000], linear in log sigma: the range that MONAI's sinusoidal time embedding expects."""
    low, high = math.log(SIGMA_MIN), math.log(SIGMA_MAX)
    return (sigma.clamp(SIGMA_MIN, SIGMA_MAX).log() - low) * (1000.0 / (high - low))


def _column(sigma: torch.Tensor) -> torch.Tensor:
    return sigma.reshape(-1, 1, 1, 1, 1)


def weighted_mean(error: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    """(B,) mean of (B, 1, D, H, W), of all voxels alike where there is no weight."""
    if weight is None:
        return error.mean(dim=(1, 2, 3, 4))
    return (error * weight).sum(dim=(1, 2, 3, 4)) / weight.sum(dim=(1, 2, 3, 4))


def _mean_in_hole(error: torch.Tensor, condition: EncodedCondition, weight: torch.Tensor | None) -> torch.Tensor:
    """(B,) mean over the voxels that are not known, see :meth:`EDMDenoiser.loss` for ``weight``."""
    if condition.hole is None or weight is None:
        return weighted_mean(error, weight if condition.hole is None else condition.hole)
    return weighted_mean(error, weight * condition.hole)


def _keep_known(x0: torch.Tensor, condition: EncodedCondition) -> torch.Tensor:
    """The estimate in the hole, what is known around it: the expectation given the known voxels."""
    if condition.expected is None or condition.hole is None:
        return x0
    return torch.where(condition.hole > 0, x0, condition.expected)


class EDMDenoiser(nn.Module):
    """Karras et al. 2022 (arXiv 2206.00364), table 1, column "ours": D = c_skip x + c_out F(c_in x, c_noise).

    In a hole with known surroundings the same holds for the difference to the initialization m, whose deviation is
    smaller than the image's: D = m + c_skip (x - m) + c_out F. A network that knows nothing returns the guess where
    noise hides the image, and neither its errors nor the noise weigh more than the guess's own error.
    """

    kind = EDM

    def __init__(self, network: nn.Module, sigma_data: float = SIGMA_DATA) -> None:
        super().__init__()
        self.network = network
        self.sigma_data = sigma_data

    def forward(self, x: torch.Tensor, sigma: torch.Tensor, condition: EncodedCondition) -> torch.Tensor:
        """x (B, 1, D, H, W); sigma (B,); returns x0 in x's shape and type."""
        s, d = _column(sigma), self._deviation(condition)
        norm = (s**2 + self.sigma_data**2).sqrt()
        f = self.network(x / norm, sigma / norm.flatten(), network_time(sigma), condition)
        mean = 0.0 if condition.expected is None else condition.expected
        total = s**2 + d**2
        return _keep_known(mean + (x - mean) * (d**2 / total) + f * (s * d / total.sqrt()), condition)

    def _deviation(self, condition: EncodedCondition) -> torch.Tensor:
        """(B, 1, 1, 1, 1): standard deviation of what the network has to find."""
        whole = torch.full_like(condition.region, self.sigma_data, dtype=torch.float32)
        return _column(torch.where(condition.has_hole(), SIGMA_GUESS, whole))

    def loss(
        self,
        x0: torch.Tensor,
        sigma: torch.Tensor,
        noise: torch.Tensor,
        condition: EncodedCondition,
        weight: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Weighted squared error over the unknown voxels (B,), equation 8 with lambda = (s^2 + d^2) / (s d)^2.

        ``weight`` (B, 1, D, H, W) says how much each voxel counts beside the others of its window.

        In holes it is the pseudo-Huber error of the same weight: squared, the few voxels at bone and air would teach
        nearly all, and flat tissue, where the initialization is good already, would be left with their noise.
        """
        s, d = _column(sigma), self._deviation(condition)
        squared = (self(x0 + s * noise, sigma, condition) - x0).square() * (s**2 + d**2) / (s * d) ** 2
        robust = (squared + HUBER**2).sqrt() - HUBER
        return _mean_in_hole(torch.where(_column(condition.has_hole()), robust, squared), condition, weight)


class CosineEpsilonDenoiser(nn.Module):
    """The paper's parametrization: noise prediction on the cosine chain with 1000 steps (arXiv 2410.15432, 1.3).

    The chain sees sqrt(abar) (x0 + sigma eps) with sigma = sqrt((1 - abar) / abar), so a sigma names a step.
    """

    kind = COSINE_EPSILON

    def __init__(self, network: nn.Module, steps: int = 1000, offset: float = 0.008) -> None:
        super().__init__()
        self.network = network
        self.steps = steps
        time = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        curve = torch.cos((time + offset) / (1 + offset) * math.pi / 2) ** 2
        beta = (1 - curve[1:] / curve[:-1]).clamp(max=0.999)
        alpha_bar = torch.cumprod(1 - beta, 0)
        self.register_buffer("log_sigma", (0.5 * ((1 - alpha_bar) / alpha_bar).log()).float(), persistent=False)

    log_sigma: torch.Tensor

    def step_of(self, sigma: torch.Tensor) -> torch.Tensor:
        """Noise level (B,) -> fractional step of the chain (B,), linear between neighbors in log sigma."""
        level = sigma.log().clamp(self.log_sigma[0], self.log_sigma[-1])
        above = torch.searchsorted(self.log_sigma, level).clamp(1, self.steps - 1)
        low, high = self.log_sigma[above - 1], self.log_sigma[above]
        return above - 1 + (level - low) / (high - low)

    def predict_noise(self, x: torch.Tensor, sigma: torch.Tensor, condition: EncodedCondition) -> torch.Tensor:
        """The network's estimate of the unit noise in x, (B, 1, D, H, W)."""
        norm = (1 + sigma**2).sqrt()
        return self.network(x / _column(norm), sigma / norm, self.step_of(sigma), condition)

    def forward(self, x: torch.Tensor, sigma: torch.Tensor, condition: EncodedCondition) -> torch.Tensor:
        return _keep_known(x - _column(sigma) * self.predict_noise(x, sigma, condition), condition)

    def loss(
        self,
        x0: torch.Tensor,
        sigma: torch.Tensor,
        noise: torch.Tensor,
        condition: EncodedCondition,
        weight: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Per-sample L1 between noise and its estimate over the unknown voxels (B,), the paper's loss."""
        estimate = self.predict_noise(x0 + _column(sigma) * noise, sigma, condition)
        return _mean_in_hole((estimate - noise).abs(), condition, weight)


DENOISERS: dict[str, type[EDMDenoiser] | type[CosineEpsilonDenoiser]] = {
    cls.kind: cls for cls in (EDMDenoiser, CosineEpsilonDenoiser)
}
