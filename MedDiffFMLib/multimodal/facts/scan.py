"""Scan that facts are measured in: body, tissues and place in the body, each found once."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ...conditioning.region import air_around, body_mask
from ...imaging.grid import Grid, to_grid, working_grid
from ...imaging.intensity import is_padding
from ...imaging.volume import Volume, thinned
from .fact import AXIAL, Evidence, Point

if TYPE_CHECKING:
    from ...preprocessing.body_coordinates import BodyPosition

LEAST_BODY_ML = 200.0
"""With less body in view nothing is said about it."""


class Scan:
    """A CT on its own voxels, 1.5 to 3 mm apart where they lie closer, axes along left, posterior and superior.

    Attributes:
        volume: as given.
        grid: of all arrays here.
        hounsfield: (k, j, i) int16.
    """

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        coarse = thinned(volume)
        self.grid: Grid = working_grid(coarse, None)
        self.hounsfield = np.clip(to_grid(coarse, self.grid), -1024, 3071).astype(np.int16)
        self.padding = is_padding(to_grid(coarse, self.grid))

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel edges (k, j, i) in mm."""
        i, j, k = self.grid.spacing
        return k, j, i

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel."""
        return float(np.prod(self.spacing)) / 1000

    @cached_property
    def body(self) -> np.ndarray:
        """Bool (k, j, i): see :func:`.region.body_mask`."""
        return body_mask(self.hounsfield)

    @cached_property
    def around(self) -> bool:
        """Whether the air around the body is shown; else the field of view lies inside the body."""
        return air_around(self.hounsfield)

    @cached_property
    def enough(self) -> bool:
        """Whether there is enough body for anything to be said about it."""
        return float(self.body.sum()) * self.voxel_ml >= LEAST_BODY_ML

    @cached_property
    def tissue(self) -> np.ndarray:
        """Classes (k, j, i), see ``conditioning/tissue.py``."""
        from ...conditioning.tissue import classify_tissue

        return classify_tissue(self.hounsfield, self.spacing, self.body)

    @cached_property
    def position(self) -> BodyPosition:
        """Place of the scan in the body, by the shipped body coordinates."""
        from ...preprocessing.body_coordinates import locate

        return locate(self.volume)

    @property
    def shown_mm(self) -> tuple[float, float, float]:
        """Extent of the voxels (k, j, i)."""
        k, j, i = (n * s for n, s in zip(self.hounsfield.shape, self.spacing, strict=True))
        return k, j, i

    def ras(self, index_kji: np.ndarray) -> Point:
        """RAS mm of an index (k, j, i), which need not be whole."""
        k, j, i = (float(x) for x in index_kji)
        r, a, s, _ = self.grid.ijk_to_ras @ [i, j, k, 1.0]
        return float(r), float(a), float(s)

    @property
    def center(self) -> Point:
        """RAS mm of the middle of the voxels."""
        return self.ras((np.array(self.hounsfield.shape) - 1) / 2)

    def whole(self) -> Evidence:
        """Evidence of what is true of the whole scan: the axial plane in its middle."""
        return Evidence(self.center, plane=AXIAL)

    def middle(self, mask: np.ndarray) -> Point:
        """RAS mm of the voxel of a mask (k, j, i) that lies nearest to its centroid."""
        voxels = np.argwhere(mask)
        nearest = np.square((voxels - voxels.mean(0)) * self.spacing).sum(1).argmin()
        return self.ras(voxels[nearest])
