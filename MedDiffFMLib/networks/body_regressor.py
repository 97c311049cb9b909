"""The network behind universal body coordinates: a small 3-D U-Net on the whole scan at 12 mm."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

INPUTS, OUTPUTS = 3, 3
WINDOWS_HU = ((-1000.0, 1000.0), (-160.0, 240.0), (-1000.0, -500.0))
"""Everything, soft tissue and lung, each stretched to [-1, 1]."""


DIVISOR, LEAST = 8, 24
"""Edges are padded to multiples of 8, and to three cells of the coarsest level: weight gradients of convolutions on 2^3
voxels in bfloat16 are wrong on CPUs (PyTorch 2.13)."""


class BodyRegressor(nn.Module):
    """CT -> body coordinates of each voxel.

    Args:
        filters: of the finest of four levels.
    """

    def __init__(self, filters: int = 8) -> None:
        super().__init__()
        from monai.networks.nets import SegResNet

        self.filters = filters
        self.unet = SegResNet(
            spatial_dims=3, init_filters=filters, in_channels=INPUTS, out_channels=OUTPUTS,
            norm=("group", {"num_groups": 4}), blocks_down=(1, 2, 2, 2), blocks_up=(1, 1, 1),
        )  # fmt: skip

    def config(self) -> dict[str, Any]:
        """JSON-ready; ``BodyRegressor(**config)`` is the same network."""
        return {"filters": self.filters}

    def forward(self, hounsfield: torch.Tensor) -> torch.Tensor:
        """(B, 1, D, H, W) HU, any size -> (B, 3, D, H, W): head-feet in metres, front-back and right-left -1 to 1."""
        size = hounsfield.shape[2:]
        pad = [part for n in reversed(size) for part in (0, max(-n % DIVISOR, LEAST - n))]
        padded = nn.functional.pad(hounsfield, pad, value=-1000.0)
        stretched = [((padded - low) * (2 / (high - low)) - 1).clamp(-1, 1) for low, high in WINDOWS_HU]
        return self.unet(torch.cat(stretched, dim=1))[..., : size[0], : size[1], : size[2]]
