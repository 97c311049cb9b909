"""Nearest-neighbor doubling followed by a 3x3x3 convolution, as one transposed convolution that can be trained.

Of the 27 products a voxel, doubling makes all but 8 superfluous: they multiply equal values. The kernel of the
transposed convolution, 4x4x4 at stride 2, holds the sums of the weights that meet the same value. In a U-Net of few
channels this layer is the most expensive of all.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import nn

from ..core.lean_monai import lean_monai


def folded_kernel(weight: torch.Tensor) -> torch.Tensor:
    """Kernel (C_out, C_in, 3, 3, 3) of a convolution after doubling -> (C_in, C_out, 4, 4, 4) of the transposed one."""
    for axis in (2, 3, 4):
        none = torch.zeros_like(weight.narrow(axis, 0, 1))
        weight = torch.cat([weight, none], axis) + torch.cat([none, weight], axis)
    return weight.flip(2, 3, 4).transpose(0, 1).contiguous()


class FoldedUpsample(nn.Module):
    """The same function as MONAI's upsampling block with the same parameters under the same names.

    Args:
        postconv: MONAI's ``Convolution`` around the 3x3x3 convolution.
    """

    def __init__(self, postconv: nn.Module) -> None:
        super().__init__()
        self.postconv = postconv

    @property
    def convolution(self) -> nn.Conv3d:
        """The convolution that follows the doubling."""
        return self.postconv.conv  # type: ignore[return-value]

    def forward(self, x: torch.Tensor, *_time: torch.Tensor | None) -> torch.Tensor:
        """Double (B, C, d, h, w); MONAI's block takes the time embedding, too, and does not use it."""
        kernel = folded_kernel(self.convolution.weight)
        return functional.conv_transpose3d(x, kernel, self.convolution.bias, stride=2, padding=1)


def fold_for_training(network: nn.Module) -> int:
    """Replace every doubling with its convolution inside ``network``; returns how many there were."""
    lean_monai()
    from monai.networks.blocks import UpSample

    count = 0
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, UpSample) and is_plain_doubling(child):
                setattr(parent, name, FoldedUpsample(child.postconv))  # type: ignore[arg-type]
                count += 1
    return count


def is_plain_doubling(block: nn.Module) -> bool:
    """Whether a block doubles by copies and convolves with a plain 3x3x3 kernel afterwards."""
    parts = dict(block.named_children())
    if set(parts) != {"upsample_non_trainable", "postconv"}:
        return False
    doubling, convolution = parts["upsample_non_trainable"], getattr(parts["postconv"], "conv", None)
    if not isinstance(doubling, nn.Upsample) or not isinstance(convolution, nn.Conv3d):
        return False
    plain = (convolution.kernel_size, convolution.stride, convolution.padding, convolution.dilation)
    if plain != ((3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1)) or convolution.groups != 1:
        return False
    return bool(doubling.mode == "nearest" and doubling.scale_factor == (2.0, 2.0, 2.0))
