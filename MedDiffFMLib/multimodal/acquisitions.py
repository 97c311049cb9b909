"""Other acquisitions of one anatomy: what scanners change and patients do not.

CT: dose as noise of a spectrum, the kernel, the thickness of slices, a few HU of calibration. MR: bias field, contrast,
noise, resolution. X-ray: exposure, the look-up table, blur, noise; other angles come from the projector. Images are in
the range of the encoders, [-1, 1], on a batch at once.
"""

from __future__ import annotations

import torch
from torch.nn import functional


def another_ct(image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """(B, 1, D, H, W), HU / 1000 clipped: thicker slices, softer or sharper kernel, noise, calibration."""
    thick = _uniform(image, 0, 0.5, generator)
    slices = functional.pad(image, (0, 0, 0, 0, 1, 1), mode="replicate")
    image = (1 - thick) * image + thick * (slices[:, :, :-2] + slices[:, :, 2:]) / 2
    kernel = _uniform(image, -0.4, 0.7, generator)
    image = image + kernel * (_smooth(image) - image)
    noise = torch.randn(image.shape, generator=generator)
    coarse = _uniform(image, 0, 1, generator)
    noise = (1 - coarse) * noise + 2.5 * coarse * _smooth(noise)
    level = _uniform(image, 0, 0.04, generator)
    return (image + level * noise + _uniform(image, -0.01, 0.01, generator)).clamp(-1, 1)


def another_mr(image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """(B, 1, D, H, W), 0 to 1.5 times fat as -1 to 1: bias field, gamma, blur, noise."""
    signal = (image + 1) / 2
    field = torch.randn((len(image), 1, 3, 3, 3), generator=generator)
    field = functional.interpolate(field, image.shape[2:], mode="trilinear", align_corners=True)
    signal = signal * (0.25 * field).exp() * _uniform(image, 0.85, 1.15, generator)
    signal = signal.clamp(1e-4, 1) ** _uniform(image, 0.75, 1.3, generator)
    signal = signal + _uniform(image, 0, 0.6, generator) * (_smooth(signal) - signal)
    level = _uniform(image, 0, 0.04, generator)
    real, imaginary = (level * torch.randn(image.shape, generator=generator) for _ in range(2))
    return (2 * torch.hypot(signal + real, imaginary) - 1).clamp(-1, 1)


def another_xray(image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """(B, 1, H, W), attenuation as -1 to 1: exposure, look-up table, blur, quantum noise."""
    lost = ((image + 1) / 2).clamp(1e-4, 1) ** _uniform(image, 0.8, 1.25, generator)
    lost = lost * _uniform(image, 0.9, 1.1, generator) + _uniform(image, -0.03, 0.03, generator)
    lost = lost + _uniform(image, 0, 0.6, generator) * (_smooth(lost) - lost)
    level = _uniform(image, 0, 0.02, generator)
    noise = torch.randn(image.shape, generator=generator) * (lost.clamp(0, 1) + 0.3)
    return (2 * (lost + level * noise) - 1).clamp(-1, 1)


def _uniform(image: torch.Tensor, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    """One number for each image of a batch."""
    shape = (len(image), *([1] * (image.ndim - 1)))
    return low + (high - low) * torch.rand(shape, generator=generator)


def _smooth(image: torch.Tensor) -> torch.Tensor:
    """Mean of 3 pixels along each axis."""
    pool = functional.avg_pool3d if image.ndim == 5 else functional.avg_pool2d
    padded = functional.pad(image, (1, 1) * (image.ndim - 2), mode="replicate")
    return pool(padded, 3, stride=1)
