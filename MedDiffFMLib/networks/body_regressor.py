"""Network of universal body coordinates: a small 3-D U-Net on the tissue shares of 16 mm cells."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..core.lean_monai import lean_monai

TISSUES, OUTPUTS = 5, 3
DIVISOR = 8


class BodyRegressor(nn.Module):
    """Shares of the tissues in each cell -> body coordinates of the cell.

    Args:
        filters: of the finest of four levels.
    """

    def __init__(self, filters: int = 8) -> None:
        super().__init__()
        lean_monai()
        from monai.networks.nets import SegResNet

        self.filters = filters
        self.unet = SegResNet(
            spatial_dims=3,
            init_filters=filters,
            in_channels=TISSUES,
            out_channels=OUTPUTS,
            norm=("group", {"num_groups": 4}),
            blocks_down=(1, 1, 2, 2),
            blocks_up=(1, 1, 1),
        )

    def config(self) -> dict[str, Any]:
        """JSON-ready; ``BodyRegressor(**config)`` is the same network."""
        return {"filters": self.filters}

    def forward(self, shares: torch.Tensor) -> torch.Tensor:
        """(B, 5, D, H, W) in [0, 1], any size -> (B, 3, D, H, W): metres from feet to head, -1 to 1 front to back and
        right to left."""
        size = shares.shape[2:]
        pad = [part for n in reversed(size) for part in (0, -n % DIVISOR)]
        features = self.unet(2 * nn.functional.pad(shares, pad) - 1)
        return features[..., : size[0], : size[1], : size[2]]
