"""Spread of a scan's noise over frequencies: its standard deviation in each band that the network looks at.

White noise of one level and the noise of a reconstruction of the same level differ by factors of two to ten in single
bands. Given the level alone, a network has to find out from a window which details are noise; given the signature, it
sees every detail in units of the noise of its own band. The bands are those of the network's input at half resolution:
seven details of the Haar transform, and what its mean holds beyond blurs of several widths.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional

from ..imaging.haar import haar_forward

BLUR_WIDTHS = ((1, 3, 3), (1, 5, 5), (1, 9, 9), (3, 3, 3), (5, 5, 5))
"""Boxes (k, j, i) at half resolution; what the mean band holds beyond each is a band of its own."""
DETAIL_BANDS = 7 + len(BLUR_WIDTHS)
LOWEST, HIGHEST = 0.05, 4.0
"""Limits of a signature: beyond them a band holds hardly any noise, or the measurement is not one of noise."""


def detail_bands(bands: torch.Tensor) -> torch.Tensor:
    """Haar bands (B, 8, d, h, w) of an image -> (B, 12, d, h, w): all that may hold noise."""
    mean = bands[:, :1]
    return torch.cat([bands[:, 1:], *(mean - box_mean(mean, width) for width in BLUR_WIDTHS)], dim=1)


def box_mean(image: torch.Tensor, width: tuple[int, int, int]) -> torch.Tensor:
    """Mean over a box around each voxel, as much of it as lies in the image; thin images get thinner boxes."""
    box = [min(w, n - 1 + n % 2) for w, n in zip(width, image.shape[2:], strict=True)]
    return functional.avg_pool3d(image, box, stride=1, padding=[w // 2 for w in box], count_include_pad=False)


def signature_of(noise: torch.Tensor) -> torch.Tensor:
    """Signature (B, 12) of noise (B, 1, D, H, W) of unit variance: standard deviation in each band.

    White noise has 1 in the Haar bands, since the transform is orthonormal, and hardly less beyond a wide blur.
    """
    bands = detail_bands(haar_forward(noise))
    return bands.square().mean(dim=(2, 3, 4)).sqrt().clamp(LOWEST, HIGHEST)


def unknown_signature(batch: int) -> torch.Tensor:
    """Signature where none is known: as much noise in all bands."""
    return torch.ones(batch, DETAIL_BANDS)
