"""Bands of an image in which noise may hide, at half resolution.

They are seven details of the Haar transform, and what its mean holds beyond blurs of several widths.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional

BLUR_WIDTHS = ((1, 3, 3), (1, 5, 5), (1, 9, 9), (3, 3, 3), (5, 5, 5))
"""Boxes (k, j, i) at half resolution; what the mean band holds beyond each is a band of its own."""
DETAIL_BANDS = 7 + len(BLUR_WIDTHS)


def detail_bands(bands: torch.Tensor) -> torch.Tensor:
    """Haar bands (B, 8, d, h, w) of an image -> (B, 12, d, h, w): all that may hold noise."""
    mean = bands[:, :1]
    return torch.cat([bands[:, 1:], *(mean - box_mean(mean, width) for width in BLUR_WIDTHS)], dim=1)


def box_mean(image: torch.Tensor, width: tuple[int, int, int]) -> torch.Tensor:
    """Mean over a box around each voxel, as much of it as lies in the image; thin images get thinner boxes."""
    box = [min(w, n - 1 + n % 2) for w, n in zip(width, image.shape[2:], strict=True)]
    return functional.avg_pool3d(image, box, stride=1, padding=[w // 2 for w in box], count_include_pad=False)
