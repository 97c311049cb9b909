"""The body that an organ map shows: what is expected where it has labels, and what usually lies between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...conditioning.tissue import FAT, OUTSIDE
from ...conditioning.totalsegmentator_labels import ORGANS
from .expected_hu import FIRST_ORGAN, hu_table, tissue_table

if TYPE_CHECKING:
    from ...imaging.grid import Grid
    from ...imaging.volume import Volume

SKIN_FAT_MM = 14.0
"""What has no label within this distance of the skin is fat, deeper it is soft tissue."""
SOFTEN_VOXELS = 0.6


@dataclass(frozen=True)
class MappedBody:
    """Labels 0 to 118 of TotalSegmentator, 118 the rest of the body.

    Attributes:
        labels: on any orthogonal grid.
    """

    labels: Volume

    def expected(self, grid: Grid) -> np.ndarray:
        """Expected HU on a grid, float32 (k, j, i), softened where labels meet."""
        from scipy.ndimage import gaussian_filter

        return gaussian_filter(hu_table()[self._codes(grid)], SOFTEN_VOXELS, mode="nearest")

    def tissue(self, grid: Grid) -> np.ndarray:
        """Tissue classes on a grid, uint8 (k, j, i)."""
        return tissue_table()[self._codes(grid)]

    def facts(self) -> dict[str, Any]:
        """For the report."""
        present = np.unique(self.labels.voxels)
        return {"organ_map": [ORGANS[int(number) - 1] for number in present if number]}

    def _codes(self, grid: Grid) -> np.ndarray:
        from scipy.ndimage import distance_transform_edt

        from ...conditioning.anatomy import BODY_LABEL
        from ...imaging.grid import to_grid

        labels = to_grid(self.labels, grid, order=0, fill=0).astype(np.uint8)
        codes = np.where(labels > 0, labels + np.uint8(FIRST_ORGAN), np.uint8(OUTSIDE)).astype(np.uint8)
        padded = np.pad(labels > 0, ((0, 0), (1, 1), (1, 1)))  # the sides are skin, the ends are cuts
        depth = distance_transform_edt(padded, grid.spacing[::-1])[:, 1:-1, 1:-1]
        codes[(labels == BODY_LABEL) & (depth < SKIN_FAT_MM)] = FAT
        return codes


def shows_a_body(labels: np.ndarray) -> bool:
    """Whether labels tell where the body ends and name something in it."""
    from ...conditioning.anatomy import BODY_LABEL

    present = np.unique(labels)
    return bool((present == BODY_LABEL).any() and ((present > 0) & (present < BODY_LABEL)).any())
