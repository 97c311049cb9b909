"""Both parametrisations are the same interface: with a perfect network each gives back the clean image."""

import math

import pytest
import torch
from torch import nn

from MedDiffFMLib.conditioning.condition import CONDITION_CHANNELS, EncodedCondition
from MedDiffFMLib.diffusion.denoiser import CosineEpsilonDenoiser, EDMDenoiser, network_time


def encoded(batch=1, size=4):
    return EncodedCondition(torch.zeros(batch, dtype=torch.long), torch.zeros(batch, CONDITION_CHANNELS, *[size] * 3))


class PerfectGaussian(nn.Module):
    """The network that makes a denoiser optimal for N(0, width^2) data, for either parametrisation."""

    def __init__(self, width, edm):
        super().__init__()
        self.width, self.edm = width, edm

    def forward(self, x, noise, time, condition):
        # noise is the noise's share of a unit-variance (EDM) or VP-scaled input; recover sigma from it.
        noise = noise.reshape(-1, 1, 1, 1, 1)
        if self.edm:
            d = 0.5
            sigma = noise * d / (1 - noise**2).sqrt()
            scale = (sigma**2 + d**2).sqrt()
            raw = x * scale
            best = self.width**2 / (self.width**2 + sigma**2) * raw
            return (best - raw * d**2 / scale**2) * scale / (sigma * d)
        sigma = noise / (1 - noise**2).sqrt()
        raw = x * (1 + sigma**2).sqrt()
        return (raw - self.width**2 / (self.width**2 + sigma**2) * raw) / sigma


@pytest.mark.parametrize("kind", [EDMDenoiser, CosineEpsilonDenoiser])
@pytest.mark.parametrize("sigma", [0.02, 0.3, 4.0])
def test_optimal_network_gives_the_posterior_mean(kind, sigma):
    denoiser = kind(PerfectGaussian(0.7, kind is EDMDenoiser))
    x = torch.randn(2, 1, 4, 4, 4)
    x0 = denoiser(x, torch.tensor([sigma, sigma]), encoded(2))
    assert torch.allclose(x0, 0.7**2 / (0.7**2 + sigma**2) * x, atol=1e-4)


def test_cosine_steps_match_the_published_chain():
    """papers: sigma 0.171 at step 100, 1.016 at 500, 13.1 at 950 (s = 0.008, T = 1000)."""
    denoiser = CosineEpsilonDenoiser(nn.Identity())
    steps = denoiser.step_of(torch.tensor([0.171, 1.016, 13.1]))
    assert steps.tolist() == pytest.approx([99, 499, 949], abs=1.5)


def test_edm_loss_of_an_untrained_network_is_one():
    """F = 0 leaves c_skip x; the weight is chosen so that this costs 1 at every noise level for unit data."""

    class Zero(nn.Module):
        def forward(self, x, noise, time, condition):
            return torch.zeros_like(x)

    x0 = 0.5 * torch.randn(4, 1, 16, 16, 16)
    for sigma in (0.02, 0.5, 10.0):
        loss = EDMDenoiser(Zero()).loss(
            x0, torch.full((4,), sigma), torch.randn_like(x0), encoded(4, 8), torch.ones_like(x0)
        )
        assert loss.mean().item() == pytest.approx(1.0, rel=0.05)


def test_time_spans_the_embedding():
    time = network_time(torch.tensor([0.002, math.sqrt(0.002 * 80), 80.0]))
    assert time.tolist() == pytest.approx([0, 500, 1000], abs=0.5)
