"""Data consistency as hooks ``correct(x0, sigma) -> x0`` for any sampler."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class DiffPIR:
    """Proximal step towards a noisy measurement of the image itself (DiffPIR, arXiv 2305.08995, equation 13, H = 1).

    Attributes:
        measurement: noisy image in the network's range, x0's shape.
        noise: standard deviation of its noise, same units; a float, or a tensor for noise that varies in space.
        strength: DiffPIR's lambda; larger trusts the prior more.
    """

    measurement: torch.Tensor
    noise: float | torch.Tensor
    strength: float = 1.0

    def __call__(self, x0: torch.Tensor, sigma: float) -> torch.Tensor:
        rho = self.strength * (self.noise / sigma) ** 2
        return (self.measurement + rho * x0) / (1 + rho)


@dataclass(frozen=True)
class RePaint:
    """Known voxels are put back at every step (RePaint, arXiv 2201.09865, equation 8, in x0 form).

    Attributes:
        known: the image outside the hole, x0's shape.
        hole: 1 where the model may paint, 0 where the image is known; values between blend.
    """

    known: torch.Tensor
    hole: torch.Tensor

    def __call__(self, x0: torch.Tensor, sigma: float) -> torch.Tensor:
        return self.known + self.hole * (x0 - self.known)
