"""Anatomy masks: TotalSegmentator label numbers in, binary channels out.

117 structures plus "body" (118) fit in 7 bits. Averaging the bits over a 2x2x2 block keeps part of the boundary that
a nearest-neighbour label at half resolution would lose.
"""

from __future__ import annotations

import numpy as np
import torch

BITS = 7
BODY_LABEL = 118
ANATOMY_CHANNELS = BITS + 1


def check_labels(labels: np.ndarray) -> np.ndarray:
    """Label map of any integer type -> uint8; raises InputError for numbers outside 0 to 118."""
    from ..core.errors import InputError

    if labels.size and (labels.min() < 0 or labels.max() > BODY_LABEL or not np.array_equal(labels, np.rint(labels))):
        raise InputError(
            f"The anatomy mask holds values from {labels.min()} to {labels.max()}.",
            "Use TotalSegmentator's label numbers 1 to 117, 118 for body and 0 for background.",
        )
    return labels.astype(np.uint8)


def encode_anatomy(labels: torch.Tensor) -> torch.Tensor:
    """(D, H, W) labels, even edges -> (8, D/2, H/2, W/2): seven averaged bits and a constant 1 for "mask is known"."""
    shifts = torch.arange(BITS, device=labels.device)[:, None, None, None]
    bits = ((labels[None].int() >> shifts) & 1).float()
    half = torch.nn.functional.avg_pool3d(bits[None], 2)[0]
    return torch.cat([half, torch.ones_like(half[:1])])
