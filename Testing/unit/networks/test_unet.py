"""The prior's network: gradients where its coarsest features have few voxels."""

from __future__ import annotations

import torch

from MedDiffFMLib.conditioning.condition import Condition, stack
from MedDiffFMLib.networks.unet import NetworkConfig, PriorUNet


def test_gradients_are_right_in_bfloat16_on_small_windows() -> None:
    """The coarsest features of a 16^3 window have 2^3 voxels, where torch's bfloat16 convolutions must not be used."""
    torch.manual_seed(0)
    network = PriorUNet(NetworkConfig(channels=(8, 16, 32)))
    for parameter in network.parameters():  # MONAI starts some convolutions at zero
        torch.nn.init.normal_(parameter, std=0.1)
    condition = stack([Condition((2.0, 2.0, 2.0)).encode((16, 16, 16))] * 2)
    x, time = torch.randn(2, 1, 16, 16, 16), torch.tensor([100.0, 700.0])

    def gradient(bfloat16: bool) -> torch.Tensor:
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            network(x, torch.tensor([0.1, 1.0]), time, condition).square().mean().backward()
        return torch.cat([weight.grad.flatten() for weight in network.parameters() if weight.grad is not None])

    exact = gradient(False)
    for _ in range(3):  # what is read there is whatever memory held before
        assert (gradient(True) - exact).norm() < 0.1 * exact.norm()
