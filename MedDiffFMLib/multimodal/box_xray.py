"""X-rays of a box of the body, alone in air: pairs of a CT and its X-rays without end."""

from __future__ import annotations

import numpy as np
import torch

from ..imaging.grid import Grid
from .attenuation import attenuation, densities
from .beam import Beam
from .encoders import PIXELS
from .names import Angles
from .projection import project
from .radiograph import AIR_HU, MM_PER_CM
from .views import from_angles

DISTANCE, MARGIN = 1000.0, 1.25
"""From source to detector in mm, and how much wider than the box the field is."""
BRIGHTEST = 4.0
"""Attenuation that becomes 1; none becomes -1."""


def box_xray(hounsfield: np.ndarray, body: np.ndarray, ijk_to_ras: np.ndarray, angles: Angles) -> np.ndarray:
    """X-ray of a cube, (64, 64) float32 in [-1, 1].

    Args:
        hounsfield, body: (k, j, i); what is not body is left out.
        ijk_to_ras: of the cube.
    """
    values = torch.from_numpy(np.where(body, hounsfield, AIR_HU).astype(np.float32))
    areal = project(densities(values), ijk_to_ras, _beam(hounsfield.shape, ijk_to_ras, angles)) / MM_PER_CM
    return (attenuation(areal) * (2 / BRIGHTEST) - 1).clamp(-1, 1).numpy()


def _beam(shape: tuple[int, ...], ijk_to_ras: np.ndarray, angles: Angles) -> Beam:
    """A cone around the middle of the cube."""
    view = from_angles(angles)
    edge = float(max(np.array(shape[::-1]) * np.linalg.norm(ijk_to_ras[:3, :3], axis=0)))
    middle = (ijk_to_ras @ [*((n - 1) / 2 for n in shape[::-1]), 1.0])[:3]
    target = middle + edge * view.ahead
    pixel = MARGIN * edge / PIXELS * DISTANCE / (DISTANCE - edge)
    matrix = np.eye(4)
    matrix[:3, :3] = np.column_stack([pixel * view.right, pixel * view.down, view.ahead])
    matrix[:3, 3] = target - (PIXELS - 1) / 2 * (matrix[:3, 0] + matrix[:3, 1])
    return Beam(Grid((1, PIXELS, PIXELS), matrix), target - DISTANCE * view.ahead)
