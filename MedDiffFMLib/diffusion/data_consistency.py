"""Data consistency as hooks ``correct(x0, sigma) -> x0`` for any sampler."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as functional


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


@dataclass(frozen=True)
class BlockAverages:
    """Proximal step towards measured averages over blocks of voxels (DiffPIR, equation 13), as of thick slices.

    A averages blocks without overlap, so A A^T is 1/n for blocks of n voxels and the step has a closed form::

        x0 + A^T (A A^T + rho)^-1 (y - A x0) = x0 + repeat(y - A x0) / (1 + n rho),    rho = lambda (noise / sigma)^2

    Attributes:
        measured: the averages y in the network's range; its last three axes are x0's divided by ``factors``.
        factors: voxels of a block along (k, j, i).
        noise: standard deviation of the noise in ``measured``; with 0 the averages are met exactly.
        strength: DiffPIR's lambda; larger trusts the prior more.
    """

    measured: torch.Tensor
    factors: tuple[int, int, int]
    noise: float = 0.0
    strength: float = 1.0

    def __call__(self, x0: torch.Tensor, sigma: float) -> torch.Tensor:
        rho = self.strength * (self.noise / sigma) ** 2 if self.noise else 0.0
        missing = self._repeat(self.measured - functional.avg_pool3d(x0, self.factors))
        return x0 + missing / (1 + math.prod(self.factors) * rho)

    def repeated(self) -> torch.Tensor:
        """The measured averages in every voxel of their blocks."""
        return self._repeat(self.measured)

    def _repeat(self, averages: torch.Tensor) -> torch.Tensor:
        for axis, factor in zip((-3, -2, -1), self.factors, strict=True):
            averages = averages.repeat_interleave(factor, dim=axis)
        return averages


@dataclass(frozen=True)
class WeightedMean:
    """The mean over a region is brought to a target value, by the least change: in proportion to the weights.

    Attributes:
        weight: x0's shape, how much each voxel belongs to the region.
        target: weighted mean in the network's range.
    """

    weight: torch.Tensor
    target: float

    def __call__(self, x0: torch.Tensor, sigma: float) -> torch.Tensor:
        missing = (self.weight * (self.target - x0)).sum()
        return x0 + self.weight * missing / self.weight.square().sum()
