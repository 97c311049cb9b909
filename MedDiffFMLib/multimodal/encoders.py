"""Encoders of boxes and of X-rays: one vector for the whole, and one for each part of it.

Short residual networks behind a Haar transform. Features are normalized in each place over the channels, never over
the image, whose mean and spread are what fat, bone and lung are known by.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from ..imaging.haar import haar_forward

EDGE, PIXELS = 32, 64
"""Voxels along a box, pixels along an X-ray."""
PARTS = 4
"""Parts along each edge of a box, and of an X-ray."""
SIZE = 128
"""Of the vectors."""


class Vectors(NamedTuple):
    """Unit vectors of a batch.

    Attributes:
        whole: (B, SIZE).
        parts: (B, parts, SIZE), in the order of the voxels.
    """

    whole: torch.Tensor
    parts: torch.Tensor


class Features(NamedTuple):
    """What the body of an encoder sees, before it is made comparable.

    Attributes:
        summary: (B, 2 * channels), mean and largest value of each channel.
        parts: (B, parts, channels).
    """

    summary: torch.Tensor
    parts: torch.Tensor


class ImageEncoder(nn.Module):
    """Boxes (B, 1, 32, 32, 32) or X-rays (B, 1, 64, 64) in [-1, 1] -> vectors.

    Args:
        dimensions: 3 for boxes, 2 for X-rays.
        stems: names of the modalities, each of which has a first layer of its own.
        widths: channels, from the Haar bands down to the parts, each level at half the resolution of the one before.
    """

    def __init__(self, dimensions: int, stems: tuple[str, ...], widths: tuple[int, ...]) -> None:
        super().__init__()
        self.dimensions = dimensions
        kind = nn.Conv3d if dimensions == 3 else nn.Conv2d
        self.stems = nn.ModuleDict({name: kind(2**dimensions, widths[0], 3, padding=1) for name in stems})
        layers: list[nn.Module] = []
        for before, after in zip(widths, widths[1:], strict=False):
            layers += [kind(before, after, 2, stride=2), Residual(kind, after)]
        self.body = nn.Sequential(*layers, Residual(kind, widths[-1]))
        self.norm = nn.LayerNorm(widths[-1])
        self.part = nn.Sequential(nn.Linear(widths[-1], 2 * SIZE), nn.GELU(), nn.Linear(2 * SIZE, SIZE))
        self.whole = nn.Sequential(nn.Linear(2 * widths[-1], 2 * SIZE), nn.GELU(), nn.Linear(2 * SIZE, SIZE))
        self.whole_norms, self.part_norms = (nn.ModuleDict({name: centering() for name in stems}) for _ in range(2))

    def forward(self, image: torch.Tensor, stem: str) -> Vectors:
        """Vectors of images of the modality ``stem``."""
        return self.vectors(self.features(image, stem), stem)

    def features(self, image: torch.Tensor, stem: str) -> Features:
        """What the body sees in images of the modality ``stem``."""
        bands = haar_forward(image) if self.dimensions == 3 else _haar_2d(image)
        parts = self.norm(self.body(self.stems[stem](bands)).flatten(2).transpose(1, 2))
        return Features(torch.cat([parts.mean(1), parts.amax(1)], 1), parts)

    def vectors(self, seen: Features, stem: str) -> Vectors:
        """Vectors of features."""
        whole = self.whole_norms[stem](self.whole(seen.summary).float())
        parts = self.part(seen.parts).float()
        parts = self.part_norms[stem](parts.flatten(0, 1)).view(parts.shape)
        return Vectors(functional.normalize(whole, dim=-1), functional.normalize(parts, dim=-1))


def centering() -> nn.BatchNorm1d:
    """Takes away what all vectors have in common. Without it those of texts, all of which have the same words, stayed
    one vector for the first hundred steps."""
    return nn.BatchNorm1d(SIZE, affine=False)


def volume_encoder() -> ImageEncoder:
    """Of boxes of CT and MR, 0.8 million parameters."""
    return ImageEncoder(3, ("ct", "mr"), (16, 40, 72))


def picture_encoder() -> ImageEncoder:
    """Of X-rays, 0.4 million parameters."""
    return ImageEncoder(2, ("xray",), (16, 32, 56, 80))


class Residual(nn.Module):
    """Two convolutions around a GELU, added to what comes in; normalized over the channels in each place."""

    def __init__(self, kind: type[nn.Conv2d] | type[nn.Conv3d], channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.first = kind(channels, channels, 3, padding=1)
        self.second = kind(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, channels, ...) -> the same."""
        normal = self.norm(x.movedim(1, -1)).movedim(-1, 1)
        return x + self.second(functional.gelu(self.first(normal)))


def _haar_2d(image: torch.Tensor) -> torch.Tensor:
    """(B, 1, H, W) with even H, W -> (B, 4, H/2, W/2): the orthonormal bands."""
    planes = image[:, :, None].expand(-1, -1, 2, -1, -1)
    return haar_forward(planes)[:, :4, 0] / 2**0.5
