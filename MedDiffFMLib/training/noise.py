"""Noise levels and noise textures for training."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class NoiseConfig:
    """Which noise the network learns to remove.

    Attributes:
        log_mean, log_std: normal distribution of log sigma (EDM's P_mean, P_std), sigma in units of 1000 HU.
        fine_share: share of samples whose sigma is drawn log-uniformly from ``fine_range`` instead: the noise levels
            of real scans, which the normal distribution visits rarely.
        fine_range: 5 to 150 HU.
        ct_texture_share: share of those fine samples whose noise has the texture of reconstructed CT instead of
            white noise. Scanner noise is what ``denoise`` meets; white noise alone would leave its blotches in place.
        hole_log_mean, hole_log_std: the same as log_mean and log_std for samples with a hole: what belongs into a hole
            is decided at high noise.
    """

    log_mean: float = -1.3
    log_std: float = 1.5
    fine_share: float = 0.4
    fine_range: tuple[float, float] = (0.005, 0.15)
    ct_texture_share: float = 0.7
    hole_log_mean: float = 0.3
    hole_log_std: float = 1.2


def draw_noise(
    shape: tuple[int, int, int, int, int], config: NoiseConfig, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise level (B,) and unit-variance noise (B, 1, D, H, W) for one batch, on the CPU."""
    count = shape[0]
    sigma = (config.log_mean + config.log_std * torch.randn(count, generator=generator)).exp()
    low, high = (torch.tensor(edge).log() for edge in config.fine_range)
    fine = (low + (high - low) * torch.rand(count, generator=generator)).exp()
    is_fine = torch.rand(count, generator=generator) < config.fine_share
    textured = is_fine & (torch.rand(count, generator=generator) < config.ct_texture_share)
    sigma = torch.where(is_fine, fine, sigma).clamp(0.002, 80.0)
    noise = torch.randn(shape, generator=generator)
    for n in torch.nonzero(textured).flatten().tolist():
        noise[n, 0] = ct_texture(noise[n, 0], generator)
    return sigma, noise


def draw_hole_noise(
    shape: tuple[int, int, int, int], config: NoiseConfig, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise level () and white noise (1, D, H, W) for one sample with a hole."""
    sigma = (config.hole_log_mean + config.hole_log_std * torch.randn((), generator=generator)).exp()
    return sigma.clamp(0.002, 80.0), torch.randn(shape, generator=generator)


def balance(sigma: torch.Tensor, holed: torch.Tensor) -> torch.Tensor:
    """Weight of each sample's loss (B,), so that all noise levels train the network alike.

    EDM's weight makes the loss 1 everywhere for an untrained network, but a trained one errs six times less at high
    noise, where the loss would then hardly count. This divides by what a trained prior was seen to leave. Samples with
    a hole count more, since few of their voxels are judged.
    """
    typical = 0.07 + 0.33 / (1 + sigma / 0.05)
    return 0.2 / typical * torch.where(holed, 2.5, 1.0)


def ct_texture(white: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """White noise (D, H, W) -> noise with the in-plane spectrum of filtered back-projection, unit variance.

    The spectrum is a ramp (no noise at zero frequency) times a Gaussian roll-off with a random cut-off for the
    reconstruction kernel and the interpolation; neighbouring slices are independent half of
    the time, else correlated by a random amount.
    """
    depth, height, width = white.shape
    cutoff = 0.12 + 0.38 * torch.rand(1, generator=generator).item()
    axial = 0.1 + 0.7 * torch.rand(1, generator=generator).item()
    if torch.rand(1, generator=generator).item() < 0.5:
        axial = 1e3
    radius = (torch.fft.fftfreq(height)[:, None] ** 2 + torch.fft.rfftfreq(width)[None] ** 2).sqrt()
    plane = radius.sqrt() * torch.exp(-0.5 * (radius / cutoff) ** 2)
    along = torch.exp(-0.5 * (torch.fft.fftfreq(depth) / axial) ** 2)
    spectrum = torch.fft.rfftn(white) * plane[None] * along[:, None, None]
    textured = torch.fft.irfftn(spectrum, s=(depth, height, width))
    return textured / textured.std()
