"""Convolutions of the CPU by oneDNN, whatever their size.

PyTorch gives float32 convolutions of small inputs, and with one thread all of 1x1x1, to another implementation that
takes twice to nine times as long on inputs in the order that the engine stores them in (32 -> 64 channels on 20^3
voxels: 23 ms for 12; 96 -> 32 channels of 1x1x1 on 40^3 voxels: 48 ms for 5).
"""

from __future__ import annotations

import torch
from torch import nn


class DirectConvolution(nn.Conv3d):
    """A convolution with the same weights and, but for rounding, the same result."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, D, H, W) -> the same as of ``torch.nn.Conv3d``."""
        float32 = x.dtype == self.weight.dtype == torch.float32
        if x.device.type != "cpu" or not float32 or torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        padding = self.padding
        assert not isinstance(padding, str)  # of "same" and "valid" no convolution is made direct
        return torch.mkldnn_convolution(x, self.weight, self.bias, padding, self.stride, self.dilation, self.groups)


def convolve_directly(network: nn.Module) -> int:
    """Make every plain convolution inside ``network`` direct; returns how many it made so.

    The modules stay where they are, for networks share them, and others hold or hook them.
    """
    if not torch.backends.mkldnn.is_available():
        return 0
    count = 0
    for module in network.modules():
        if type(module) is nn.Conv3d and module.padding_mode == "zeros" and not isinstance(module.padding, str):
            module.__class__ = DirectConvolution
            count += 1
    return count
