"""Lungs: right and left, volume, density, low-attenuation share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...conditioning.tissue import BONE, LUNG
from .assess import known, unknown
from .fact import Evidence, Fact
from .kinds import COARSE, CROPPED, CUT, CUT_LUNG, LEFT, NO_LUNG, RIGHT, WHOLE
from .scan import Scan

LEAST_ML = 50.0
"""Of lung in view, for anything to be said about it."""
CORE_MM, SPINE_MM = 8.0, 8.0
"""Right and left lung are told apart by their cores, and those by the spine: bone that is so thick."""
ONE_SIDE = 0.9
"""A core is one lung's if so much of it lies on one side; else the spine divides it."""
CLOSING_MM, VESSEL_HU = 6.0, 300
"""Vessels and small nodules in a lung belong to its volume: what a closing by so much takes in, bone aside."""
LOW_HU, DENSE_HU = -950, -700
END_ML = 1.0
"""A lung with more in the first or the last slice is cut off there."""
COARSE_MM = 5.5
"""Thicker slices average emphysema away."""
SURE = 0.96


@dataclass(frozen=True)
class Lungs:
    """Lungs of a scan.

    Attributes:
        inside: right 1 and left 2 with vessels, uint8 (k, j, i).
        cut: whether the scan cuts one off.
        sides: whether right and left were told apart.
    """

    inside: np.ndarray
    cut: bool
    sides: bool

    def mask(self, side: str) -> np.ndarray:
        """Bool of one lung."""
        return self.inside == (1 if side == RIGHT else 2)

    def heights(self, side: str) -> tuple[int, int]:
        """First and last slice of one lung."""
        shown = np.flatnonzero(self.mask(side).any((1, 2)))
        return int(shown[0]), int(shown[-1])


def find_lungs(scan: Scan) -> Lungs | None:
    """Right and left lung, or None where too little of them is shown."""
    from scipy import ndimage

    air = scan.tissue == LUNG
    if float(air.sum()) * scan.voxel_ml < LEAST_ML:
        return None
    box = ndimage.find_objects(air.view(np.uint8))[0]
    part, spacing = air[box], scan.spacing
    closed = _closed(part, spacing) & (scan.hounsfield[box] < VESSEL_HU) & (scan.tissue[box] != BONE)
    divided = _sides(part, closed, spacing, _middle(scan) - box[2].start)
    inside = np.zeros(air.shape, np.uint8)
    inside[box] = divided
    ends = [(inside[end] > 0).sum() * scan.voxel_ml > END_ML for end in (0, -1)]
    edges = [inside[:, 0], inside[:, -1], inside[:, :, 0], inside[:, :, -1]]
    cropped = any((edge > 0).sum() * scan.voxel_ml > END_ML for edge in edges)
    return Lungs(inside, bool(any(ends) or cropped), scan.around)


def _closed(mask: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Mask closed in all directions, and with what it encloses in each slice."""
    from scipy import ndimage

    reach = [max(1, int(CLOSING_MM / step + 0.5)) for step in spacing]
    padded = np.pad(mask, [(n, n) for n in reach]).view(np.uint8)
    size = [2 * n + 1 for n in reach]
    grown = ndimage.maximum_filter(padded, size)
    closed = ndimage.minimum_filter(grown, size)[tuple(slice(n, -n) for n in reach)] > 0
    for plane in closed:
        plane[...] = ndimage.binary_fill_holes(plane)
    return closed


def _middle(scan: Scan) -> float:
    """Column of the spine: the median of thick bone; of the body where there is none."""
    from scipy import ndimage

    size = [2 * int(SPINE_MM / 2 / step + 0.5) + 1 for step in scan.spacing]
    thick = ndimage.minimum_filter((scan.tissue == BONE).view(np.uint8), size)
    bone = thick.sum((0, 1))
    columns = bone if bone.sum() * scan.voxel_ml > 1 else scan.body.sum((0, 1))
    return float(np.searchsorted(np.cumsum(columns), columns.sum() / 2))


def _sides(air: np.ndarray, closed: np.ndarray, spacing: tuple[float, float, float], middle: float) -> np.ndarray:
    """1 right and 2 left in ``closed``: the side of the core that lies nearest."""
    from scipy import ndimage

    size = [2 * int(CORE_MM / 2 / step + 0.5) + 1 for step in spacing]
    core = ndimage.minimum_filter(air.view(np.uint8), size) > 0
    pieces, count = ndimage.label(core)
    is_left = np.arange(air.shape[2]) > middle  # columns run to the patient's left
    left = np.bincount(pieces[:, :, is_left].ravel(), minlength=count + 1)
    share = left / np.maximum(np.bincount(pieces.ravel(), minlength=count + 1), 1)
    divided = np.where(share > ONE_SIDE, 2, np.where(share < 1 - ONE_SIDE, 1, 3)).astype(np.uint8)
    divided[0] = 0
    sides = divided[pieces]
    sides[sides == 3] = np.broadcast_to(np.where(is_left, 2, 1).astype(np.uint8), air.shape)[sides == 3]
    if not sides.any():
        return np.where(closed, np.where(is_left, 2, 1), 0).astype(np.uint8)
    nearest = ndimage.distance_transform_edt(sides == 0, spacing, return_distances=False, return_indices=True)
    return np.where(closed, sides[tuple(nearest)], 0)


def lungs(scan: Scan, found: Lungs | None) -> list[Fact]:
    """Volumes and densities."""
    if found is None:
        reason = CROPPED if not scan.around else NO_LUNG
        return [unknown("lungs", reason), unknown("low_attenuation", reason)]
    inside = found.inside > 0
    volume = float(inside.sum()) * scan.voxel_ml
    here = Evidence(scan.middle(inside), mask="lungs")
    facts = [known("lungs", here, SURE, volume=volume, whole=CUT if found.cut else WHOLE)]
    if found.sides:
        facts += _each(scan, found, volume)
    if not found.cut:
        rows = np.flatnonzero(inside.any((1, 2)))
        facts.append(known("lung_height", here, SURE, height=(np.ptp(rows) + 1) * scan.spacing[0]))
    return [*facts, *_densities(scan, inside & (scan.tissue == LUNG), here, found.cut)]


def _each(scan: Scan, found: Lungs, volume: float) -> list[Fact]:
    facts = []
    for side, kind in ((RIGHT, "lung_right"), (LEFT, "lung_left")):
        own = found.mask(side)
        if float(own.sum()) * scan.voxel_ml >= LEAST_ML:
            evidence = Evidence(scan.middle(own), mask=f"{side} lung")
            facts.append(known(kind, evidence, SURE, volume=float(own.sum()) * scan.voxel_ml))
    if len(facts) == 2 and not found.cut:
        right = float(found.mask(RIGHT).sum()) * scan.voxel_ml
        evidence = Evidence(scan.middle(found.mask(RIGHT)), mask="right lung")
        facts.append(known("lung_balance", evidence, SURE, share=100 * right / volume))
    return facts


def _densities(scan: Scan, air: np.ndarray, here: Evidence, cut: bool) -> list[Fact]:
    """Of the lungs without their vessels."""
    hounsfield = scan.hounsfield[air]
    facts = [
        known("lung_density", here, SURE, hu=float(hounsfield.mean())),
        known("lung_percentile", here, SURE, hu=float(np.percentile(hounsfield, 15))),
        known("dense_lung", here, SURE, share=100 * float((hounsfield > DENSE_HU).mean())),
    ]
    if max(scan.volume.spacing) > COARSE_MM:
        return [*facts, unknown("low_attenuation", COARSE)]
    if cut:
        return [*facts, unknown("low_attenuation", CUT_LUNG)]
    return [*facts, known("low_attenuation", here, SURE, share=100 * float((hounsfield < LOW_HU).mean()))]
