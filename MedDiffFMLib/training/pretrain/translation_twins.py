"""The visual invariant as a loss of translation: a result and the truth are two pictures of one anatomy, so their parts
have the same vectors (MedM2G, arXiv 2403.04290; Barlow Twins, see :mod:`multimodal.invariant`).

The encoders are those of the alignment, and stay as they are. Parts are 32 mm wide, so a truth that lies some voxels
off costs little.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from ...multimodal.aligned import AlignedEncoders
from ...multimodal.boxes import SPACING_MM as BOX_MM
from ...multimodal.encoders import EDGE, PARTS
from ...multimodal.flow import BACKGROUND
from ...multimodal.invariant import invariant_loss
from ...multimodal.names import CT
from ...multimodal.pairs import SPACING_MM

POOL = round(BOX_MM / SPACING_MM)
"""Voxels of a window along one of a box."""


class TwinLoss:
    """Loss between windows and their truth, by encoders that are not trained.

    Args:
        encoders: of boxes of CT and MR.
    """

    def __init__(self, encoders: AlignedEncoders) -> None:
        self.volumes = encoders.volumes.float().eval().requires_grad_(False)

    def __call__(self, image: torch.Tensor, truth: torch.Tensor, target: str) -> torch.Tensor:
        """Mean loss, 0 dimensions; its gradient reaches ``image``.

        Args:
            image, truth: (B, 1, D, H, W) on 2 mm, network range.
            target: modality of both.
        """
        stem = "ct" if target == CT else "mr"
        seen = shown_parts(image)
        with torch.autocast(image.device.type, enabled=False):
            volumes = self.volumes.to(image.device)
            made, real = (volumes(box_of(part.float()), stem).parts[:, seen] for part in (image, truth))
            return invariant_loss(made, real)


def box_of(window: torch.Tensor) -> torch.Tensor:
    """Window (B, 1, D, H, W) on 2 mm -> the box (B, 1, 32, 32, 32) on 4 mm that it begins, with air after its end."""
    coarse = functional.avg_pool3d(window.clamp(-1, 1), POOL)[..., :EDGE, :EDGE, :EDGE]
    room = [n for size in reversed(coarse.shape[2:]) for n in (0, EDGE - size)]
    return functional.pad(coarse, room, value=BACKGROUND)


def shown_parts(window: torch.Tensor) -> torch.Tensor:
    """Numbers of the parts of :func:`box_of` at least half of which a window fills along each axis."""
    part = EDGE // PARTS
    shown = torch.zeros((PARTS,) * 3, dtype=torch.bool)
    k, j, i = (min(PARTS, (size // POOL + part // 2) // part) for size in window.shape[2:])
    shown[:k, :j, :i] = True
    return shown.flatten().nonzero()[:, 0]
