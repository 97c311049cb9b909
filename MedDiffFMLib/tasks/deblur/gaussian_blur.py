"""Gaussian blur within slices, which the cosine transform makes diagonal, and consistency with a blurred image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

FWHM_OVER_SIGMA = 2 * math.sqrt(2 * math.log(2))
AT_ONCE = 4_000_000
"""Voxels that are transformed together, in whole slices."""


@dataclass(frozen=True)
class BlurredImage:
    """Proximal step towards a noisy and blurred measurement (DiffPIR, arXiv 2305.08995, equation 13).

    With mirrored edges the blur H is diagonal in the cosine transform C of a slice, H = C^T h C: a closed form::

        x0 -> C^T (h C y + rho C x0) / (h^2 + rho),    rho = lambda (noise / sigma)^2

    Attributes:
        measurement: y in the network's range, (1, 1, D, H, W).
        widths: standard deviation of the blur along (k, j, i) in voxels; 0 along the axis across the slices.
        noise: standard deviation of the noise in y, network range.
        strength: DiffPIR's lambda; larger trusts the prior more.
    """

    measurement: torch.Tensor
    widths: tuple[float, float, float]
    noise: float
    strength: float = 1.0

    def __call__(self, x0: torch.Tensor, sigma: float) -> torch.Tensor:
        import torch
        from scipy.fft import dctn, idctn

        rho = np.float32(self.strength * (self.noise / sigma) ** 2)
        result = torch.empty_like(x0)
        across = self.widths.index(0.0)
        images = (np.moveaxis(image_part[0, 0].numpy(), across, 0) for image_part in (self.measurement, x0, result))
        measured, image, consistent = images
        h = self._transfer(across)
        for planes in _slabs(measured.shape):
            y, x = (dctn(image_part[planes], axes=(1, 2), norm="ortho") for image_part in (measured, image))
            consistent[planes] = idctn((h * y + rho * x) / (h * h + rho), axes=(1, 2), norm="ortho")
        return result

    def _transfer(self, across: int) -> np.ndarray:
        """Share that is left of each cosine of a slice, float32."""
        shape = self.measurement.shape[2:]
        lines = [
            np.exp(-0.5 * (np.pi * np.arange(shape[axis]) / shape[axis] * self.widths[axis]) ** 2)
            for axis in range(3)
            if axis != across
        ]
        return np.outer(*lines).astype(np.float32)


def _slabs(shape: tuple[int, ...]) -> Iterator[slice]:
    step = max(1, AT_ONCE // math.prod(shape[1:]))
    return (slice(first, first + step) for first in range(0, shape[0], step))
