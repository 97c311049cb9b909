"""Body box and region of a volume, from a coarse subset of its voxels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..conditioning.region import body_box, body_mask, guess_region
from ..conditioning.regions import NO_REGION, check_region
from ..imaging.grid import Grid, to_grid, working_grid
from ..imaging.volume import Volume, thinned
from .remembered import remembering

_LPS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class BodyLocalization:
    """Facts that the conditions need to know about a volume.

    Attributes:
        low, high: corners of the body box, mm along (superior, posterior, left), the order of array axes.
        guessed: region guessed from the image, None if nothing fits.
    """

    low: np.ndarray
    high: np.ndarray
    guessed: str | None

    def coordinates(self, grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Position of the grid's voxels in the body box, [-1, 1], one float32 line per array axis (k, j, i).

        On an oblique acquisition grid each line is taken through the middle of the grid.
        """
        lines = []
        middle = (np.array(grid.shape[::-1]) - 1) / 2
        for axis in range(3):
            index = np.tile(middle[:, None], grid.shape[axis])
            index[2 - axis] = np.arange(grid.shape[axis])
            position = _LPS[2 - axis] * (grid.ijk_to_ras[2 - axis, :3] @ index + grid.ijk_to_ras[2 - axis, 3])
            length = max(self.high[axis] - self.low[axis], 1.0)
            lines.append(np.clip(2 * (position - self.low[axis]) / length - 1, -1.5, 1.5).astype(np.float32))
        return lines[0], lines[1], lines[2]


def localize_body(volume: Volume) -> BodyLocalization:
    """Body box and region of a CT; a fraction of a second also for a large one, and less for the scan of before."""
    return _localize(thinned(volume.whole or volume))


@remembering
def _localize(coarse: Volume) -> BodyLocalization:
    grid = working_grid(coarse, None)
    hounsfield = to_grid(coarse, grid)
    body = body_mask(hounsfield)
    i, j, k = grid.spacing
    low, high = box_in_mm(grid, *body_box(body))
    return BodyLocalization(low, high, guess_region(hounsfield, (k, j, i), body))


def box_in_mm(grid: Grid, first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the box of the voxels from index ``first`` to ``last`` (k, j, i), outer edges."""
    corners = np.array(
        [
            [a, b, c, 1.0]
            for a in (first[2] - 0.5, last[2] + 0.5)
            for b in (first[1] - 0.5, last[1] + 0.5)
            for c in (first[0] - 0.5, last[0] + 0.5)
        ]
    )
    positions = (grid.ijk_to_ras @ corners.T)[:3] * _LPS[:, None]
    return positions.min(1)[::-1], positions.max(1)[::-1]


def choose_region(requested: str | None, localization: BodyLocalization) -> str | None:
    """Region class: as given, without condition for "none", estimated for None."""
    check_region(requested)
    if requested is None:
        return localization.guessed
    return None if requested == NO_REGION else requested
