"""Universal body coordinates (arXiv 2501.19265): where in a body each voxel lies, whatever part of it was scanned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as functional

if TYPE_CHECKING:
    from ..inference.patches import Box


@dataclass(frozen=True)
class BodyField:
    """Body coordinates of a box of voxels, stored coarsely and interpolated.

    Attributes:
        values: (3, d, h, w) float32: head to feet (metres above the pelvic floor of an adult), front to back and right
            to left (-1 to 1 across the body).
        first, step: position of voxel n along (k, j, i) in the stored array is ``first + step * n``.
    """

    values: torch.Tensor
    first: tuple[float, float, float]
    step: tuple[float, float, float]

    def window(self, box: Box, stride: int = 1) -> torch.Tensor:
        """(3, d, h, w): coordinates of the voxels of a box, or of the middles of blocks of ``stride``^3 voxels."""
        lines = []
        for axis, part in enumerate(box):
            count = (part.stop - part.start) // stride
            index = part.start + (stride - 1) / 2 + stride * torch.arange(count)
            size = self.values.shape[axis + 1]
            position = (self.first[axis] + self.step[axis] * index).clamp(0, size - 1)
            lines.append(position / max(size - 1, 1) * 2 - 1)
        k, j, i = torch.meshgrid(*lines, indexing="ij")
        points = torch.stack([i, j, k], dim=-1)[None].float()
        return functional.grid_sample(self.values[None], points, align_corners=True, padding_mode="border")[0]
