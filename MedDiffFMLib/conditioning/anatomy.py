"""Anatomy masks: TotalSegmentator label numbers in, binary channels out.

117 structures plus "body" (118) fit in 7 bits. Averaging the bits over a 2x2x2 block keeps part of the boundary that
a nearest-neighbor label at half resolution would lose.
"""

from __future__ import annotations

import logging

import numpy as np
import torch

from ..core.errors import InputError
from ..imaging.segments import labels_in, listed
from ..imaging.volume import Volume, check_grid
from .totalsegmentator_labels import organ_number

_log = logging.getLogger(__name__)
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
    return check_labels(organ_numbers(labels))


def organ_numbers(labels: Volume) -> np.ndarray:
    """Voxels (k, j, i) of an organ map with TotalSegmentator's numbers.

    Where the file names its labels, and organs are among the names, the names count and not the numbers, which other
    versions and other programs give differently; labels of other names are left out, with a log warning.
    """
    voxels = np.asarray(labels.voxels)
    organs = {segment: organ_number(segment.name) for segment in labels.segments}
    if not any(organs.values()) or voxels.dtype.kind not in "iu" or voxels.size == 0 or voxels.min() < 0:
        return voxels
    others = [segment for segment in labels_in(voxels, labels.segments) if not organs.get(segment)]
    if others:
        _log.warning("The organ map holds labels that are no organs, which are left out: %s.", listed(others))
    table = np.zeros(int(voxels.max()) + 1, np.uint8)
    for segment, number in organs.items():
        table[[n for n in segment.numbers if n < len(table)]] = number or 0
    return table[voxels]
