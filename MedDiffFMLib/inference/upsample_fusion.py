"""Operator fusion: exact rewrites of a trained network that cost less."""

from __future__ import annotations

import torch
from torch import nn

from ..core.lean_monai import lean_monai
from ..networks.folded_upsampling import FoldedUpsample, folded_kernel, is_plain_doubling


class TransposedUpsample(nn.ConvTranspose3d):
    """Doubling and convolution as one transposed convolution whose kernel is summed once, not at each call."""

    def __init__(self, convolution: nn.Conv3d) -> None:
        channels = convolution.out_channels, convolution.in_channels
        super().__init__(channels[1], channels[0], 4, stride=2, padding=1, bias=convolution.bias is not None)
        self.weight = nn.Parameter(folded_kernel(convolution.weight.detach()), convolution.weight.requires_grad)
        if self.bias is not None and convolution.bias is not None:
            self.bias = convolution.bias

    def forward(self, x: torch.Tensor, *_time: torch.Tensor | None) -> torch.Tensor:  # type: ignore[override]
        """MONAI's upsampling takes the time embedding and does not look at it."""
        return super().forward(x)


def fold_upsampling(network: nn.Module) -> int:
    """Replace every doubling with its convolution inside ``network`` by one module; returns how many there were.

    What has been folded stays as it is, so that networks that share modules can be folded one after the other.
    """
    lean_monai()
    from monai.networks.blocks import UpSample

    count = 0
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, FoldedUpsample):
                convolution = child.convolution
            elif isinstance(child, UpSample) and is_plain_doubling(child):
                convolution = child.postconv.conv  # type: ignore[assignment, union-attr]
            else:
                continue
            setattr(parent, name, TransposedUpsample(convolution).train(child.training))
            count += 1
    return count
