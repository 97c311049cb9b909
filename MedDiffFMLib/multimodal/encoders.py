"""Encoders of boxes and of X-rays: one vector for the whole, and one for each part of it.

What is in a cell is told by how its voxels are spread over densities, which needs no training and is computed once;
small mixing networks (Tolstikhin et al., MLP-Mixer, NeurIPS 2021) read the cells of all parts together. Their weights
differ from part to part, which is what tells left from right; a mean over the parts does not.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

EDGE, PIXELS = 32, 64
"""Voxels along a box, pixels along an X-ray."""
PARTS = 4
"""Parts along each edge of a box, and of an X-ray."""
CELL = 4
"""Voxels, and pixels, along a cell."""
SIZE = 64
"""Of the vectors."""
WIDTH, STEM, POOLED, NARROW = 40, 24, 6, 24
"""Channels of the parts and of the cells; learned means over the parts, and their channels."""
KNOTS = {
    "ct": (-1, -0.92, -0.82, -0.65, -0.4, -0.2, -0.13, -0.09, -0.04, 0.0, 0.04, 0.08, 0.14, 0.25, 0.5, 1),
    "mr": (-1, -0.9, -0.75, -0.6, -0.45, -0.3, -0.15, 0.0, 0.15, 0.3, 0.5, 1),
    "xray": (-1, -0.9, -0.75, -0.6, -0.45, -0.3, -0.15, 0.0, 0.15, 0.3, 0.45, 0.6, 0.8, 1),
}
"""Values of an image in [-1, 1] between which a cell's voxels are spread, closest where tissues are."""


class Vectors(NamedTuple):
    """Unit vectors of a batch.

    Attributes:
        whole: (B, SIZE).
        parts: (B, parts, SIZE), in the order of the voxels.
    """

    whole: torch.Tensor
    parts: torch.Tensor


def cells_of(image: torch.Tensor, modality: str) -> torch.Tensor:
    """How the voxels of each cell are spread over the knots of a modality.

    A voxel between two knots counts for both, the more the nearer, so that the mean of a cell is kept exactly.

    Args:
        image: (B, 1, 32, 32, 32), or (B, 1, 64, 64) of X-rays, in [-1, 1].

    Returns:
        (B, parts, cells of a part, knots), sums over the knots are 1.
    """
    pool = functional.avg_pool3d if image.ndim == 5 else functional.avg_pool2d
    knots = KNOTS[modality]
    above = [
        pool(((image - low) / (high - low)).clamp(0, 1), CELL) for low, high in zip(knots, knots[1:], strict=False)
    ]
    ramps = torch.stack([torch.ones_like(above[0]), *above, torch.zeros_like(above[0])], -1)[:, 0]
    spread = ramps[..., :-1] - ramps[..., 1:]
    axes = image.ndim - 2
    each = spread.shape[1] // PARTS
    split = spread.reshape(len(spread), *[n for _ in range(axes) for n in (PARTS, each)], len(knots))
    order = (0, *(1 + 2 * n for n in range(axes)), *(2 + 2 * n for n in range(axes)), 1 + 2 * axes)
    return split.permute(order).reshape(len(spread), PARTS**axes, each**axes, len(knots))


class ImageEncoder(nn.Module):
    """Boxes (B, 1, 32, 32, 32) or X-rays (B, 1, 64, 64) in [-1, 1] -> vectors.

    Args:
        dimensions: 3 for boxes, 2 for X-rays.
        stems: names of the modalities, each of which has a first layer of its own.
    """

    def __init__(self, dimensions: int, stems: tuple[str, ...]) -> None:
        super().__init__()
        parts = PARTS**dimensions
        cells = ((EDGE if dimensions == 3 else PIXELS) // PARTS // CELL) ** dimensions
        self.stems = nn.ModuleDict({name: nn.Linear(len(KNOTS[name]), STEM) for name in stems})
        self.merge = nn.Linear(cells * STEM, WIDTH)
        self.body = nn.Sequential(Mixing(parts), Mixing(parts), nn.LayerNorm(WIDTH))
        self.part = nn.Linear(WIDTH, SIZE)
        self.means, self.narrow = nn.Linear(parts, POOLED), nn.Linear(WIDTH, NARROW)
        self.whole = nn.Linear(POOLED * NARROW + WIDTH, SIZE)
        self.whole_norms, self.part_norms = (nn.ModuleDict({name: centering() for name in stems}) for _ in range(2))

    def forward(self, image: torch.Tensor, stem: str) -> Vectors:
        """Vectors of images of the modality ``stem``."""
        return self.vectors(cells_of(image, stem), stem)

    def vectors(self, cells: torch.Tensor, stem: str) -> Vectors:
        """Vectors of cells, see :func:`cells_of`."""
        return self.centered(*self.features(cells, stem), stem)

    def features(self, cells: torch.Tensor, stem: str) -> tuple[torch.Tensor, torch.Tensor]:
        """What becomes vectors of the whole (B, SIZE) and of the parts (B, parts, SIZE); each row by itself."""
        parts = self.body(self.merge(functional.gelu(self.stems[stem](cells)).flatten(2)))
        means = self.means(self.narrow(parts).transpose(1, 2)).flatten(1)
        whole = self.whole(functional.gelu(torch.cat([means, parts.amax(1)], 1))).float()
        return whole, self.part(parts).float()

    def centered(self, whole: torch.Tensor, each: torch.Tensor, stem: str) -> Vectors:
        """Unit vectors of features; in training all samples of a batch have to be among the rows."""
        each = self.part_norms[stem](each.flatten(0, 1)).view(each.shape)
        whole = self.whole_norms[stem](whole)
        return Vectors(functional.normalize(whole, dim=-1), functional.normalize(each, dim=-1))


def centering() -> nn.BatchNorm1d:
    """Takes away what all vectors have in common. Without it those of texts, all of which have the same words, stayed
    one vector for the first hundred steps."""
    return nn.BatchNorm1d(SIZE, affine=False)


class Mixing(nn.Module):
    """What a part learns from the others, and then from itself; both are added to what comes in.

    Args:
        parts: of an image.
    """

    def __init__(self, parts: int) -> None:
        super().__init__()
        between = max(parts // 2, PARTS**2)
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)])
        last = nn.Linear(between, parts)
        self.across = nn.Sequential(nn.Linear(parts, between), nn.GELU(), last)
        self.within = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))
        nn.init.zeros_(last.weight)  # at first each part speaks for itself
        nn.init.zeros_(last.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, parts, WIDTH) -> the same."""
        x = x + self.across(self.norms[0](x).transpose(1, 2)).transpose(1, 2)
        return x + self.within(self.norms[1](x))
