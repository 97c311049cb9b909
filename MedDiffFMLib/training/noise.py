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
            white noise. White noise alone would leave a scan's correlated noise in place.
    """

    levels: str = "log-normal"
    log_mean: float = -0.8
    log_std: float = 1.6
    fill_log_mean: float = 0.7
    fill_log_std: float = 1.1
    denoise_range: tuple[float, float] = (0.004, 0.12)
    ct_texture_share: float = 0.8


def draw_noise(
    shape: tuple[int, int, int, int], purpose: str, config: NoiseConfig, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise level () and unit-variance noise (1, D, H, W) for one window, on the CPU."""
    sigma = draw_level(purpose, config, generator)
    noise = torch.randn(shape, generator=generator)
    texture = draw_texture(purpose, config, generator)
    return sigma, noise if texture is None else texture.given_to(noise)


def draw_level(purpose: str, config: NoiseConfig, generator: torch.Generator) -> torch.Tensor:
    """Noise level ()."""
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
    return sigma.clamp(0.002, 80.0)


def draw_texture(purpose: str, config: NoiseConfig, generator: torch.Generator) -> Texture | None:
    """The texture of a window's noise, None for white noise."""
    if purpose == "denoise" and torch.rand((), generator=generator) < config.ct_texture_share:
        return random_texture(generator)
    return None


@functools.cache
def cosine_chain() -> torch.Tensor:
    """Noise levels (1000,) of the paper's chain, rising."""
    return CosineEpsilonDenoiser(torch.nn.Identity()).log_sigma.exp()


def balance(sigma: torch.Tensor, holed: torch.Tensor) -> torch.Tensor:
    """Weight of each sample's loss (B,), so that all noise levels train the network alike.

    EDM's weight makes the loss 1 everywhere for an untrained network, but a trained one errs six times less at high
    noise, where the loss would then hardly count. This divides by what a trained prior was seen to leave. In holes the
    initialization errs as much as its weight assumes, whatever the noise.
    """
    typical = 0.07 + 0.33 / (1 + sigma / 0.05)
    return torch.where(holed, 1.0, 0.2 / typical)


@dataclass(frozen=True)
class Texture:
    """Textures of the noise of n windows, as of filtered back-projection.

    In plane the spectrum is a ramp (no noise at zero frequency) times a Gaussian roll-off for the reconstruction
    kernel and the interpolation, with or without a preferred direction, as behind shoulders or hips.

    Attributes:
        cutoff: (n,) of the roll-off in plane, cycles a voxel.
        axial: (n,) of the one along the patient; neighboring slices are independent where it is large.
        angle, stretch: (n,) preferred direction and its strength, 0 for none.
        strength: (n, 1, 3, 3, 3) logarithm of the noise's local strength on a coarse grid, 0 for the same everywhere.
    """

    cutoff: torch.Tensor
    axial: torch.Tensor
    angle: torch.Tensor
    stretch: torch.Tensor
    strength: torch.Tensor

    def given_to(self, white: torch.Tensor) -> torch.Tensor:
        """White noise (n, D, H, W), n windows on this texture's device -> noise of unit variance."""
        _, depth, height, width = white.shape

        def column(numbers: torch.Tensor) -> torch.Tensor:
            return numbers[:, None, None]

        y = torch.fft.fftfreq(height, device=white.device)[:, None]
        x = torch.fft.rfftfreq(width, device=white.device)[None]
        radius = (y**2 + x**2).sqrt()
        plane = radius.sqrt() * torch.exp(-0.5 * (radius / column(self.cutoff)) ** 2)
        turned = torch.atan2(y, x) - column(self.angle)
        plane = plane * torch.exp(column(self.stretch) * torch.cos(2 * turned))
        along = torch.exp(-0.5 * (torch.fft.fftfreq(depth, device=white.device) / self.axial[:, None]) ** 2)
        spectrum = torch.fft.rfftn(white, dim=(1, 2, 3)) * plane[:, None] * along[:, :, None, None]
        textured = torch.fft.irfftn(spectrum, s=(depth, height, width), dim=(1, 2, 3))
        size = (depth, height, width)
        local = functional.interpolate(self.strength, size=size, mode="trilinear", align_corners=True)
        textured = textured * local[:, 0].exp()
        return textured / textured.flatten(1).std(1)[:, None, None, None]


def random_texture(generator: torch.Generator) -> Texture:
    """One texture.

    The cut-off is random. Half of the time there is a preferred direction. Neighboring slices are independent half of
    the time, else correlated by a random amount. Half of the time the noise is stronger in some places than in others.
    """

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * torch.rand(1, generator=generator).item()

    cutoff, axial, angle, stretch = uniform(0.12, 0.5), uniform(0.1, 0.8), 0.0, 0.0
    if uniform(0, 1) < 0.5:
        axial = 1e3
    if uniform(0, 1) < 0.5:
        angle, stretch = uniform(0, math.pi), uniform(0, 1.2)
    strength = torch.zeros(1, 1, 3, 3, 3)
    if uniform(0, 1) < 0.5:
        strength = torch.randn((1, 1, 3, 3, 3), generator=generator) * uniform(0, 0.4)
    numbers = [torch.tensor([number]) for number in (cutoff, axial, angle, stretch)]
    return Texture(numbers[0], numbers[1], numbers[2], numbers[3], strength)


def ct_texture(white: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """White noise (D, H, W) -> noise as of filtered back-projection, unit variance; see :func:`random_texture`."""
    return random_texture(generator).given_to(white[None])[0]
