"""Crop of a CT that a task with a mask needs, so that only the mask's neighborhood travels to a worker.

A piece remembers a coarse copy of the whole CT, from which the body's box and region are found, so a run on the piece
gives the same voxels as one on the whole.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..imaging.volume import Box, Volume
from ..preprocessing.mask_crop import WINDOW, neighborhood

CONTEXT = 16
"""Voxels that ``inpaint`` wants around the mask on each side."""


def needed_piece(task: str, volume: Volume, mask: np.ndarray | None, parameters: Any) -> Box | None:
    """Index box (k, j, i) that holds all that the task looks at; None where it needs the whole volume.

    Args:
        mask: bool (k, j, i) on the volume's grid.
        parameters: the task's parameter dataclass.
    """
    if mask is None or not mask.any() or task not in ("inpaint", "generate_lesion"):
        return None
    if parameters.spacing is not None:  # the working grid of a piece would begin elsewhere
        return None
    context = _lesion_context(volume, mask, parameters) if task == "generate_lesion" else CONTEXT
    return None if context is None else _box(volume, mask, context)


def _lesion_context(volume: Volume, mask: np.ndarray, parameters: Any) -> int | None:
    """Voxels around the mask that hold the neighborhood of any lesion in it; None where coarser voxels are used."""
    from .generate_lesion.recipe import SHELL_MM, working_spacing

    if working_spacing(mask, volume.spacing) is not None:
        return None
    reach = max(parameters.rim, SHELL_MM[1])
    return max(WINDOW // 2, int(np.ceil(reach / min(volume.spacing))) + 1)


def _box(volume: Volume, mask: np.ndarray, context: int) -> Box:
    low, high = neighborhood(mask, volume, None, WINDOW, context)
    first, last = np.floor(low).astype(int), np.ceil(high).astype(int)
    i, j, k = (slice(int(a), int(b) + 1) for a, b in zip(first, last, strict=True))
    return k, j, i
