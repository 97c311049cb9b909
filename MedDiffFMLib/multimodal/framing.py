"""Target of an X-ray: the body without the table, its outline, and where the scan cuts it off."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..conditioning.region import BODY_THRESHOLD_HU, air_around, grown, shrunk
from ..core.errors import InputError
from ..imaging.grid import Grid, from_grid, to_grid, working_grid
from ..imaging.volume import Volume, thinned

LIMB_MM = 9.0
CORE_SHARE = 0.1
SMALLEST = 0.01
"""A part of the body has this share of its voxels so far below its surface, and this share of the largest part's: limbs
do, tables, tubes and cushions do not."""
SKIN_MM = 4.0
CUT_SHARE = 0.02
"""Part of the end plane that the body fills from which on it counts as cut off there."""


@dataclass(frozen=True)
class Frame:
    """Body in a scan.

    Attributes:
        body: bool (k, j, i) on the scan's grid; all of it where nothing is left out.
        outline: RAS mm of points on the surface, (n, 3); they include all corners of the convex hull.
        ends: those of them that lie on the lower and on the upper end of the scan, (n, 3) each; none where the body
            ends before the scan does.
        cropped: the scan shows a part of the body's width only.
    """

    body: np.ndarray
    outline: np.ndarray
    ends: tuple[np.ndarray, np.ndarray]
    cropped: bool = False

    @property
    def center(self) -> np.ndarray:
        """RAS mm of the middle of the box around the outline."""
        return (self.outline.min(0) + self.outline.max(0)) / 2


def frame_body(volume: Volume, keep_table: bool = False) -> Frame:
    """Find the body in a CT, on every second or third voxel.

    Args:
        keep_table: everything in the scan counts as body.

    Raises:
        InputError: the scan holds air alone.
    """
    coarse = thinned(volume)
    grid = working_grid(coarse, None)
    hounsfield = to_grid(coarse, grid)
    dense = hounsfield > BODY_THRESHOLD_HU
    if not dense.any():
        raise InputError(
            f"The scan holds air alone: no voxel is above {BODY_THRESHOLD_HU:g} HU.", "Choose a CT that shows a body."
        )
    body = dense if keep_table else _body(hounsfield, dense, grid)
    outline, planes = _outline(body, grid)
    low, high = (outline[planes == k] if body[k].mean() >= CUT_SHARE else outline[:0] for k in (0, len(body) - 1))
    cropped = not air_around(hounsfield)
    if keep_table:
        return Frame(np.ones(volume.voxels.shape, bool), outline, (low, high), cropped)
    skin = grown(body, SKIN_MM, grid.spacing[::-1])
    return Frame(from_grid(skin, grid, volume, order=0), outline, (low, high), cropped)


def _body(hounsfield: np.ndarray, dense: np.ndarray, grid: Grid) -> np.ndarray:
    """Dense objects with a thick part, what they enclose in each axial plane included."""
    from scipy import ndimage

    if not air_around(hounsfield):
        return np.ones_like(dense)  # a crop inside the body
    opened = ndimage.binary_opening(dense, structure=np.ones((1, 3, 3)))
    labels, count = ndimage.label(opened)
    deep = shrunk(opened, LIMB_MM, grid.spacing[::-1])
    sizes, cores = (np.bincount(labels[where], minlength=count + 1)[1:] for where in (opened, deep))
    kept = (cores > CORE_SHARE * sizes) & (sizes > SMALLEST * sizes.max(initial=0))
    body = np.r_[False, kept][labels] if kept.any() else dense.copy()
    for plane in body:
        plane[...] = ndimage.binary_fill_holes(plane)
    return body


def _outline(body: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """First and last voxel of the body in each row: RAS mm (n, 3), and the plane k of each, (n,)."""
    k, j = np.nonzero(body.any(2))
    rows = body[k, j]
    first, last = rows.argmax(1), rows.shape[1] - 1 - rows[:, ::-1].argmax(1)
    index = np.concatenate([np.c_[i, j, k, np.ones(len(k))] for i in (first, last)])
    return (index @ grid.ijk_to_ras.T)[:, :3], np.tile(k, 2)
