"""Operator fusion: exact rewrites of a trained network that cost less."""

from __future__ import annotations

import torch
from torch import nn


class TransposedUpsample(nn.ConvTranspose3d):
    """Nearest-neighbor doubling followed by a 3x3x3 convolution, as one transposed convolution.

    Of the 27 products a voxel, doubling makes all but 8 superfluous: they multiply equal values. The kernel of the
    transposed convolution, 4x4x4 at stride 2, holds the sums of the weights that meet the same value.
    """

    def __init__(self, convolution: nn.Conv3d) -> None:
        channels = convolution.out_channels, convolution.in_channels
        super().__init__(channels[1], channels[0], 4, stride=2, padding=1, bias=convolution.bias is not None)
        kernel = convolution.weight.detach()
        for axis in (2, 3, 4):
            none = torch.zeros_like(kernel.narrow(axis, 0, 1))
            kernel = torch.cat([kernel, none], axis) + torch.cat([none, kernel], axis)
        self.weight = nn.Parameter(kernel.flip(2, 3, 4).transpose(0, 1).contiguous(), convolution.weight.requires_grad)
        if self.bias is not None and convolution.bias is not None:
            self.bias = convolution.bias

    def forward(self, x: torch.Tensor, *_time: torch.Tensor | None) -> torch.Tensor:  # type: ignore[override]
        """MONAI's upsampling takes the time embedding and does not look at it."""
        return super().forward(x)


def fold_upsampling(network: nn.Module) -> int:
    """Replace every doubling with its convolution inside ``network`` by one module; returns how many there were.

    What has been folded stays as it is, so that networks that share modules can be folded one after the other.
    """
    from monai.networks.blocks import UpSample

    found = 0
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            convolution = _after_doubling(child) if isinstance(child, UpSample) else None
            if convolution is not None:
                setattr(parent, name, TransposedUpsample(convolution).train(child.training))
                found += 1
    return found


def _after_doubling(block: nn.Module) -> nn.Conv3d | None:
    """The 3x3x3 convolution after a doubling by copies, None for any other block."""
    parts = dict(block.named_children())
    if set(parts) != {"upsample_non_trainable", "postconv"}:
        return None
    doubling, convolution = parts["upsample_non_trainable"], getattr(parts["postconv"], "conv", None)
    if not isinstance(doubling, nn.Upsample) or not isinstance(convolution, nn.Conv3d):
        return None
    plain = (convolution.kernel_size, convolution.stride, convolution.padding, convolution.dilation)
    if plain != ((3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1)) or convolution.groups != 1:
        return None
    return convolution if doubling.mode == "nearest" and doubling.scale_factor == (2.0, 2.0, 2.0) else None
