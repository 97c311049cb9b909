"""The folded upsampling of the training: MONAI's function, gradients and parameter names."""

from __future__ import annotations

import torch
from monai.networks.nets import DiffusionModelUNet

from MedDiffFMLib.networks.folded_upsampling import FoldedUpsample, fold_for_training


def unet() -> DiffusionModelUNet:
    torch.manual_seed(0)
    network = DiffusionModelUNet(
        spatial_dims=3,
        in_channels=2,
        out_channels=2,
        channels=(8, 8, 16),
        attention_levels=(False,) * 3,
        num_res_blocks=1,
        norm_num_groups=4,
        num_head_channels=8,
    )
    for parameter in network.parameters():  # MONAI starts some convolutions at zero
        torch.nn.init.normal_(parameter, std=0.1)
    return network.double()


def test_the_folded_network_is_monais_network_with_its_gradients_and_names():
    plain, folded = unet(), unet()
    assert fold_for_training(folded) == 2 and fold_for_training(folded) == 0
    assert sum(isinstance(part, FoldedUpsample) for part in folded.modules()) == 2
    assert list(plain.state_dict()) == list(folded.state_dict())
    x, time = torch.randn(2, 2, 8, 12, 16, dtype=torch.float64), torch.tensor([10.0, 700.0])
    outputs = [network(x, time) for network in (plain, folded)]
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-9, atol=1e-9)
    for output in outputs:
        output.square().mean().backward()
    for (name, one), other in zip(plain.named_parameters(), folded.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-8, atol=1e-12, msg=name)
