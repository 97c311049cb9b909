"""Both parametrizations are the same interface: with a perfect network each gives back the clean image."""

import math

import pytest
import torch
from torch import nn

from MedDiffFMLib.conditioning.condition import CONDITION_CHANNELS, Condition, EncodedCondition, stack
from MedDiffFMLib.diffusion.denoiser import (
    DENOISERS,
    HUBER,
    SIGMA_GUESS,
    CosineEpsilonDenoiser,
    EDMDenoiser,
    network_time,
)
from MedDiffFMLib.networks.unet import NetworkConfig, PriorUNet


def encoded(batch=1, size=4):
    return EncodedCondition(torch.zeros(batch, dtype=torch.long), torch.zeros(batch, CONDITION_CHANNELS, *[size] * 3))


class PerfectGaussian(nn.Module):
    """The network that makes a denoiser optimal for N(0, width^2) data, for either parametrization."""

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


class Zero(nn.Module):
    """A network that knows nothing."""

    def forward(self, x, noise, time, condition):
        return torch.zeros_like(x)


def ball_in_a_ramp():
    """An image (16^3, network range) that is linear along one axis, and a ball in it to fill."""
    line = torch.linspace(-1, 1, 16)
    radius = (line[:, None, None] ** 2 + line[None, :, None] ** 2 + line[None, None] ** 2).sqrt()
    return 0.6 * line.expand(16, 16, 16).contiguous(), (radius < 0.6).float()


def filling(image, hole):
    return Condition((1.5, 1.5, 1.5)).filling(image, hole).encode((16, 16, 16))


def test_edm_loss_of_an_untrained_network_is_one():
    """F = 0 leaves c_skip x; the weight is chosen so that this costs 1 at every noise level for unit data."""
    x0 = 0.5 * torch.randn(4, 1, 16, 16, 16)
    for sigma in (0.02, 0.5, 10.0):
        loss = EDMDenoiser(Zero()).loss(x0, torch.full((4,), sigma), torch.randn_like(x0), encoded(4, 8))
        assert loss.shape == (4,) and loss.mean().item() == pytest.approx(1.0, rel=0.05)


def test_time_spans_the_embedding():
    time = network_time(torch.tensor([0.002, math.sqrt(0.002 * 80), 80.0]))
    assert time.tolist() == pytest.approx([0, 500, 1000], abs=0.5)


@pytest.mark.parametrize("kind", DENOISERS)
@pytest.mark.parametrize("sigma", [0.01, 0.5, 40.0])
def test_known_voxels_come_back_exactly(kind, sigma):
    """Whatever the network says, in a batch with and without holes."""
    image, hole = ball_in_a_ramp()
    torch.manual_seed(0)
    denoiser = DENOISERS[kind](PriorUNet(NetworkConfig(channels=(8, 32), attention=(False, False)))).eval()
    condition = stack([filling(image, hole), Condition((1.5, 1.5, 1.5)).encode((16, 16, 16))])
    x = image + sigma * torch.randn(2, 1, 16, 16, 16)
    with torch.no_grad():
        x0 = denoiser(x, torch.tensor([sigma, sigma]), condition)
    known = hole == 0
    assert torch.equal(x0[0, 0][known], image[known])
    assert not torch.isclose(x0[0, 0], image)[~known].all(), "the hole is the network's to fill"
    assert not torch.isclose(x0[1, 0], image)[known].all(), "without a hole nothing is known"


def test_a_network_of_zeros_gives_the_bent_guess_at_high_noise():
    """c_skip is (SIGMA_GUESS / sigma)^2 there, so the noise that is left in the guess is SIGMA_GUESS^2 / sigma."""
    image, hole = ball_in_a_ramp()
    inside = hole > 0
    condition = filling(torch.where(inside, 9.0, image), hole)
    assert torch.allclose(condition.expected[0, 0][inside], image[inside], atol=0.02), "a ramp has nothing to bend"
    sigma = 50.0
    x = image[None, None] + sigma * torch.randn(1, 1, 16, 16, 16)
    x0 = EDMDenoiser(Zero())(x, torch.tensor([sigma]), condition)
    left = (x0 - condition.expected)[0, 0][inside]
    expected = SIGMA_GUESS**2 / sigma
    assert left.std().item() == pytest.approx(expected, rel=0.15) and left.abs().max() < 5 * expected


def test_the_loss_looks_at_the_hole_only():
    """Known voxels are exact, so they must not dilute what is judged; a wrong guess outside costs nothing."""
    image, hole = ball_in_a_ramp()
    condition = filling(image, hole)
    x0, noise, sigma = image[None, None], torch.randn(1, 1, 16, 16, 16), torch.tensor([2.0])
    denoiser = EDMDenoiser(Zero())
    error = (denoiser(x0 + 2 * noise, sigma, condition) - x0)[0, 0][hole > 0]
    squared = error.square() * (2.0**2 + SIGMA_GUESS**2) / (2.0 * SIGMA_GUESS) ** 2
    robust = ((squared + HUBER**2).sqrt() - HUBER).mean().item()
    assert denoiser.loss(x0, sigma, noise, condition).item() == pytest.approx(robust, rel=1e-4)
    changed = torch.where(hole > 0, noise, 100.0)
    same = CosineEpsilonDenoiser(Zero())
    assert torch.allclose(same.loss(x0, sigma, noise, condition), same.loss(x0, sigma, changed, condition))
