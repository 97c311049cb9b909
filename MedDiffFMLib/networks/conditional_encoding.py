"""Fusion of mask and image features: dynamic conditional encoding, and V2's anchor condition."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import nn


def enhance(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Dynamic conditional encoding, A(m_I, m_x) = (LN(m_I) * LN(m_x)) * m_I (arXiv 2211.00611, equation 3).

    LN normalizes each sample over channels and voxels and has no weights, so it fits any size.

    Args:
        image, mask: (B, C, D, H, W) features of one stage of the two encoders.
    """
    return _layer_norm(image) * _layer_norm(mask) * image


def _layer_norm(features: torch.Tensor) -> torch.Tensor:
    return functional.layer_norm(features, features.shape[1:])


class AnchorAttention(nn.Module):
    """Uncertain spatial attention (MedSegDiff-V2, arXiv 2301.11798).

    f_anc = max(f_c * k_Gauss, f_c),  f_d' = sigmoid(conv(f_anc)) f_d + f_d: where the condition model sees the object,
    blurred because its outline is uncertain, the mask's features count up to twice. The Gaussian's width is learned.

    Args:
        condition, channels: channels of f_c and f_d.
        width: of the Gaussian at first, voxels.
    """

    RADIUS = 4

    def __init__(self, condition: int, channels: int, width: float = 1.0) -> None:
        super().__init__()
        self.log_width = nn.Parameter(torch.tensor(width).log())
        self.conv = nn.Conv3d(condition, channels, 1)

    def forward(self, condition: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        anchor = torch.maximum(self.blur(condition), condition)
        return torch.sigmoid(self.conv(anchor)) * mask + mask

    def blur(self, features: torch.Tensor) -> torch.Tensor:
        """Each channel convolved with the Gaussian, its edge voxels repeated beyond the window."""
        distance = torch.arange(-self.RADIUS, self.RADIUS + 1, device=features.device)
        line = torch.softmax(-0.5 * (distance / self.log_width.exp()) ** 2, dim=0).to(features.dtype)
        channels = features.shape[1]
        for axis in (2, 3, 4):
            shape = [1, 1, 1, 1, 1]
            shape[axis] = len(line)
            margin = [self.RADIUS if pair // 2 == 4 - axis else 0 for pair in range(6)]
            padded = functional.pad(features, margin, mode="replicate")
            features = functional.conv3d(padded, line.reshape(shape).expand(channels, *shape[1:]), groups=channels)
        return features
