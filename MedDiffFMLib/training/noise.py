"""Noise levels and noise textures for training."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as functional

from ..diffusion.denoiser import CosineEpsilonDenoiser


@dataclass(frozen=True)
class NoiseConfig:
    """Which noise the network learns to remove, by the purpose of the window.

    Attributes:
        levels: "generate": "log-normal" as below, or "cosine-steps": a step of the paper's cosine chain, each equally
            often (arXiv 2410.15432, 1.3).
        log_mean, log_std: "generate": normal distribution of log sigma (EDM's P_mean, P_std), sigma in units of
            1000 HU.
        fill_log_mean, fill_log_std: the same for "fill": what belongs into a hole is decided at high noise.
        denoise_range: "denoise": sigma log-uniform from 4 to 120 HU, the noise of real scans.
        ct_texture_share: share of the "denoise" windows whose noise has the texture of reconstructed CT instead of
            white noise. White noise alone would leave a scan's blotches in place.
        signature_share: share of the "denoise" windows for which the network is told the noise's strength by band.
    """

    levels: str = "log-normal"
    log_mean: float = -0.8
    log_std: float = 1.6
    fill_log_mean: float = 0.7
    fill_log_std: float = 1.1
    denoise_range: tuple[float, float] = (0.004, 0.12)
    ct_texture_share: float = 0.8
    signature_share: float = 0.6


def draw_noise(
    shape: tuple[int, int, int, int], purpose: str, config: NoiseConfig, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise level () and unit-variance noise (1, D, H, W) for one window, on the CPU."""
    if purpose == "denoise":
        low, high = (torch.tensor(edge).log() for edge in config.denoise_range)
        sigma = (low + (high - low) * torch.rand((), generator=generator)).exp()
    elif purpose == "generate" and config.levels == "cosine-steps":
        chain = cosine_chain()
        sigma = chain[int(torch.randint(len(chain), (), generator=generator))]
    else:
        fill = purpose == "fill"
        mean, std = (config.fill_log_mean, config.fill_log_std) if fill else (config.log_mean, config.log_std)
        sigma = (mean + std * torch.randn((), generator=generator)).exp()
    noise = torch.randn(shape, generator=generator)
    if purpose == "denoise" and torch.rand((), generator=generator) < config.ct_texture_share:
        noise = ct_texture(noise[0], generator)[None]
    return sigma.clamp(0.002, 80.0), noise


@functools.cache
def cosine_chain() -> torch.Tensor:
    """Noise levels (1000,) of the paper's chain, rising."""
    return CosineEpsilonDenoiser(torch.nn.Identity()).log_sigma.exp()


def balance(sigma: torch.Tensor, holed: torch.Tensor) -> torch.Tensor:
    """Weight of each sample's loss (B,), so that all noise levels train the network alike.

    EDM's weight makes the loss 1 everywhere for an untrained network, but a trained one errs six times less at high
    noise, where the loss would then hardly count. This divides by what a trained prior was seen to leave. In holes the
    first guess errs as much as its weight assumes, whatever the noise.
    """
    typical = 0.07 + 0.33 / (1 + sigma / 0.05)
    return torch.where(holed, 1.0, 0.2 / typical)


def ct_texture(white: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """White noise (D, H, W) -> noise as of filtered back-projection, unit variance.

    In plane the spectrum is a ramp (no noise at zero frequency) times a Gaussian roll-off with a random cut-off for
    the reconstruction kernel and the interpolation, half of the time with a preferred direction, as behind shoulders
    or hips. Neighbouring slices are independent half of the time, else correlated by a random amount. Half of the
    time the noise is stronger in some places than in others.
    """
    depth, height, width = white.shape

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * torch.rand(1, generator=generator).item()

    cutoff, axial = uniform(0.12, 0.5), uniform(0.1, 0.8)
    if uniform(0, 1) < 0.5:
        axial = 1e3
    y, x = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
    radius = (y**2 + x**2).sqrt()
    plane = radius.sqrt() * torch.exp(-0.5 * (radius / cutoff) ** 2)
    if uniform(0, 1) < 0.5:
        turned = torch.atan2(y, x) - uniform(0, math.pi)
        plane = plane * torch.exp(uniform(0, 1.2) * torch.cos(2 * turned))
    along = torch.exp(-0.5 * (torch.fft.fftfreq(depth) / axial) ** 2)
    spectrum = torch.fft.rfftn(white) * plane[None] * along[:, None, None]
    textured = torch.fft.irfftn(spectrum, s=(depth, height, width))
    if uniform(0, 1) < 0.5:
        coarse = torch.randn((1, 1, 3, 3, 3), generator=generator) * uniform(0, 0.4)
        strength = functional.interpolate(coarse, size=(depth, height, width), mode="trilinear", align_corners=True)
        textured = textured * strength[0, 0].exp()
    return textured / textured.std()
