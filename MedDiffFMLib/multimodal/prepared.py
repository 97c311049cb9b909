"""An MR as the networks take it: on cubic voxels, in units of fat, with its field of view and its body."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..core.errors import InputError

if TYPE_CHECKING:
    from ..imaging.grid import Grid
    from ..imaging.volume import Volume


@dataclass(frozen=True)
class Prepared:
    """A source on the working grid; image (network range), seen and body (k, j, i)."""

    grid: Grid
    image: np.ndarray
    seen: np.ndarray
    body: np.ndarray
    fat_from_peak: bool = True


def prepare_mr(volume: Volume) -> Prepared:
    """An MR in units of fat."""
    from ..imaging.grid import working_grid
    from .field_of_view import field_of_view
    from .mr_body import mr_body
    from .mr_intensity import mr_scale
    from .pairs import SPACING_MM, mr_on_grid

    scanned = field_of_view(volume.voxels)
    try:
        scale = mr_scale(volume.voxels, scanned)
    except ValueError as error:
        raise InputError("The MR shows nothing but background.", "Give an MR that shows a body.") from error
    grid = working_grid(volume, SPACING_MM)
    signal, seen = mr_on_grid(volume, scanned, grid)
    body = mr_body(signal / scale.fat, (SPACING_MM,) * 3) & seen
    return Prepared(grid, scale.to_network(signal), seen, body, scale.from_peak)
