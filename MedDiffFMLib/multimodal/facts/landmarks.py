"""Landmarks along the body that need no network: lungs, hip bones, a neck above shoulders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...conditioning.tissue import BONE, LUNG
from .scan import Scan

LUNG_SHARE = 0.03
"""A slice shows lung where it is more than this share of the body."""
THICK_MM, BESIDE, HIP_CM2 = 6.0, 0.15, 3.5
"""Bone so thick, farther from the middle than this share of the body's width, and so much of it in a slice: hip bones
and thighs, but also shoulders, which lie above the lungs."""
TRUNK_MM = 250.0
"""Narrower bodies have no hips: heads are walled by thick bone, too."""
NECK_CM2, SHOULDERS = 300.0, 1.5
"""A neck has smaller cross-sections than the first, and below it others so many times larger."""


@dataclass(frozen=True)
class Landmarks:
    """Landmarks that slices show; ``bottom`` and ``top`` are the first and the last one with the body in it.

    Attributes:
        lung: bool (k,) of slices with lung.
        hip: bool (k,) of slices with hip bones or thighs.
        neck_mm: height of a neck at the upper end; 0 without shoulders below it.
        step: mm from slice to slice.
    """

    bottom: int
    top: int
    lung: np.ndarray
    hip: np.ndarray
    neck_mm: float
    step: float

    @property
    def height(self) -> float:
        """Of the shown body, mm."""
        return (self.top - self.bottom + 1) * self.step

    def above(self, slices: np.ndarray) -> float:
        """Mm from the highest of some slices to the top."""
        return float(self.top - np.flatnonzero(slices).max()) * self.step

    def below(self, slices: np.ndarray) -> float:
        """Mm from the bottom to the lowest of some slices."""
        return float(np.flatnonzero(slices).min() - self.bottom) * self.step


def find_landmarks(scan: Scan) -> Landmarks:
    """Landmarks of a scan that shows some of a body."""
    k, j, i = scan.spacing
    area = scan.body.sum((1, 2)) * j * i / 100
    shown = np.flatnonzero(area > 0.1 * area.max())
    lung = ((scan.tissue == LUNG) & scan.body).sum((1, 2)) * j * i / 100 > LUNG_SHARE * np.maximum(area, 1)
    hip = _thick_bone_beside(scan) >= HIP_CM2
    if lung.any():
        hip[np.flatnonzero(lung).min() :] = False
    if float(scan.body.any(1).sum(1).max()) * i < TRUNK_MM:
        hip[:] = False
    return Landmarks(int(shown[0]), int(shown[-1]), lung, hip, _neck(area, shown) * k, k)


def _thick_bone_beside(scan: Scan) -> np.ndarray:
    """Area of thick bone away from the middle of the body, cm2 (k,)."""
    from scipy import ndimage

    _, j, i = scan.spacing
    size = [2 * int(THICK_MM / step + 0.5) + 1 for step in scan.spacing]
    thick = ndimage.minimum_filter(ndimage.maximum_filter((scan.tissue == BONE).view(np.uint8), 3), size)
    columns = np.arange(scan.body.shape[2])
    found = np.zeros(len(scan.body))
    for number, (plane, bone) in enumerate(zip(scan.body.sum(1), thick.sum(1), strict=True)):
        inside = np.flatnonzero(plane)
        if inside.size:
            middle = np.average(columns, weights=plane)
            beside = np.abs(columns - middle) > BESIDE * np.ptp(inside)
            found[number] = bone[beside].sum() * j * i / 100
    return found


def _neck(area: np.ndarray, shown: np.ndarray) -> int:
    """Number of narrow slices above shoulders.

    Args:
        area: cm2 of the body in each slice.
        shown: slices that show the body.
    """
    wide = shown[area[shown] >= NECK_CM2]
    above = shown[shown > wide.max()] if wide.size else shown[:0]
    return len(above) if above.size and area.max() >= SHOULDERS * area[above].max() else 0
