"""What was found out about a scan, kept for the next run on the same scan: while one paints, each stroke is a run."""

from __future__ import annotations

import functools
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from ..imaging.volume import Volume

Answer = TypeVar("Answer")
KEPT = 4
"""Scans of which a function keeps its answer; answers are small, scans are not kept."""


def remembering(function: Callable[[Volume], Answer]) -> Callable[[Volume], Answer]:
    """Wrap a function of one coarse volume, so that it is not computed again for the same voxels at the same place.

    What it returns is shared and must not be changed.
    """
    answers: OrderedDict[bytes, Answer] = OrderedDict()

    @functools.wraps(function)
    def remembered(coarse: Volume) -> Answer:
        key = _digest(coarse)
        if key not in answers:
            answers[key] = function(coarse)
        answers.move_to_end(key)
        while len(answers) > KEPT:
            answers.popitem(last=False)
        return answers[key]

    return remembered


def _digest(volume: Volume) -> bytes:
    """Of all that a function may see of a volume: voxels, place, modality."""
    voxels = np.ascontiguousarray(volume.voxels)
    about = repr((voxels.shape, voxels.dtype.str, volume.modality)).encode()
    return hashlib.blake2b(about + volume.ijk_to_ras.tobytes() + voxels.tobytes()).digest()
