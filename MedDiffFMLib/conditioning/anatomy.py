"""Anatomy masks: TotalSegmentator label numbers in, binary channels out.

117 structures plus "body" (118) fit in 7 bits. Averaging the bits over a 2x2x2 block keeps part of the boundary that
a nearest-neighbor label at half resolution would lose.
"""

from __future__ import annotations

import numpy as np
import torch

from ..core.errors import InputError
from ..imaging.volume import Volume, check_grid

BITS = 7
BODY_LABEL = 118
ANATOMY_CHANNELS = BITS + 1


def check_labels(labels: np.ndarray) -> np.ndarray:
    """Label map of any integer type -> uint8; raises InputError for numbers outside 0 to 118."""
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


def check_anatomy(labels: Volume, volume: Volume | None) -> np.ndarray:
    """The organ labels as an array (k, j, i) on the CT's grid; any grid will do where there is no CT.

    Raises:
        InputError: other geometry, or values that are no label numbers.
    """
    if volume is None:
        check_grid(labels)
    elif not labels.same_geometry(volume):
        same = labels.voxels.shape == volume.voxels.shape
        place = f": it lies up to {labels.apart(volume):.3g} mm away" if same else ""
        raise InputError(
            f"The organ map has another grid than the CT{place}.", "Resample it onto the CT (nearest neighbor)."
        )
    return check_labels(np.asarray(labels.voxels))
