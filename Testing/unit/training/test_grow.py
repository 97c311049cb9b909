"""A grown network is the same function at first, and every new weight can learn."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from MedDiffFMLib.conditioning.condition import CONDITION_CHANNELS, EncodedCondition
from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.diffusion.denoiser import EDMDenoiser
from MedDiffFMLib.networks.unet import NetworkConfig, PriorUNet
from MedDiffFMLib.training.pretrain.grow import grow

SMALL = NetworkConfig(channels=(8, 16, 32), attention=(False,) * 3)


@pytest.mark.parametrize("blocks", [1, 2, (1, 2, 3), (2, 1, 1)])
def test_the_grown_network_is_the_same_function_and_learns(blocks):
    torch.manual_seed(0)
    small = EDMDenoiser(PriorUNet(SMALL))
    for parameter in small.parameters():  # as after a training: nothing is zero
        torch.nn.init.normal_(parameter, std=0.05)
    config = replace(SMALL, blocks=blocks, tissue=True)
    large = EDMDenoiser(PriorUNet(config))
    grow(small.state_dict(), SMALL, config, large)
    x, sigma = torch.randn(2, 1, 16, 16, 16), torch.tensor([0.1, 2.0])
    condition = EncodedCondition(torch.tensor([0, 3]), torch.randn(2, CONDITION_CHANNELS, 8, 8, 8))
    with torch.no_grad():
        before, after = (denoiser.eval()(x, sigma, condition) for denoiser in (small, large))
    assert before.std() > 0.1
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    large.loss(x, sigma, torch.randn_like(x), condition).mean().backward()
    second = [p for name, p in large.named_parameters() if ".conv2." in name and name.endswith("weight")]
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in second)
    assert large.network.unet.conv_in.conv.weight.grad[:, -1].abs().max() > 0, "the tissue's last channel"


@pytest.mark.parametrize(
    "large",
    [replace(SMALL, channels=(8, 16, 64)), replace(SMALL, blocks=2, groups=4), replace(SMALL, channels=(8, 32))],
)
def test_what_would_not_be_the_same_function_is_refused(large):
    small = EDMDenoiser(PriorUNet(SMALL))
    with pytest.raises(InputError, match="another network"):
        grow(small.state_dict(), SMALL, large, small)


def test_a_network_does_not_shrink():
    large = replace(SMALL, blocks=2)
    denoiser = EDMDenoiser(PriorUNet(large))
    with pytest.raises(InputError, match="another network"):
        grow(denoiser.state_dict(), large, SMALL, EDMDenoiser(PriorUNet(SMALL)))
