"""Non-local means beside the result, by as much as the scan itself asks for.

Heads and limbs of which the network has seen few keep noise that non-local means remove, for tissue there is alike over
many voxels; in most other scans a part of them helps, because they err otherwise. How much is told without a clean
image: noise like the scan's is added to some windows and, with the opposite sign, taken from targets, so that the two
are independent (Recorrupted-to-Recorrupted, Pang et al. 2021, CVPR). The squared distance to these targets is the risk
and a constant, and a parabola in the share of non-local means: its minimum is known from two scalar products.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ...imaging.non_local_means import non_local_means
from .blocks import AIR, EDGE
from .combination import combined_planes
from .thresholding import ALONE, thresholded_planes
from .tuning import noise_like, windows_of_tissue

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from ...conditioning.condition import Condition
    from ...core.progress import ProgressMeter
    from ...inference.engine import Engine

WINDOWS, SLICES = 4, 24
"""Windows in which the share is told at most, and slices of them."""
ADDED = 0.5
"""Noise added to a window over its own; what is taken from the target is its inverse."""
LEAST = 0.1
"""Share below which non-local means are not worth their time."""
SOFT = 0.3
"""Tissue in which the result is judged, network range."""
AT_ONCE = 8
"""Planes that are filtered together, on as many threads as there are."""
MARGIN = 8
"""Pixels around the patient in which planes are filtered, too."""
