"""Intravenous contrast agent: how much of the soft tissue away from bone is brighter than any is without."""

from __future__ import annotations

import numpy as np

from ...conditioning.tissue import BONE, CONTRAST
from .assess import known, unknown
from .fact import Evidence, Fact
from .kinds import CROPPED, TOO_LITTLE, UNSURE, WITH, WITHOUT
from .landmarks import TRUNK_MM, Landmarks
from .scan import Scan

SMOOTHING_MM = 4.0
"""Full width at half maximum, against noise."""
SOFT_HU, BRIGHT_HU, DENSE_HU = (0, 500), 110, 600
FROM_BONE_MM, FROM_SKIN_MM = 6.0, 10.0
LEAST_ML = 300.0
WITH_SHARE, WITHOUT_SHARE = 0.08, 0.02
"""Bright share of the soft tissue from which on, and up to which, the sentence is written. Of 24 CTs of trunk and head
whose protocol is known it was 0.16 and more with contrast agent and 0.014 and less without."""
NECK_SHARE = 0.15
SURE, WITHOUT_SURE = 0.97, 0.95


def contrast(scan: Scan, landmarks: Landmarks | None) -> list[Fact]:
    """Whether vessels and organs are enhanced, and how much of what contrast agent fills there is.

    It is said only of trunks: in a head, a neck or a limb hardly anything is bright with contrast agent, and in necks
    the thyroid is bright without.
    """
    if landmarks is None:
        return [unknown("contrast", TOO_LITTLE)]
    if scan.around and not _trunk(scan, landmarks):
        return [unknown("contrast", TOO_LITTLE)]
    soft, smooth = _soft(scan)
    if float(soft.sum()) * scan.voxel_ml < LEAST_ML:
        return [unknown("contrast", TOO_LITTLE)]
    bright = soft & (smooth > BRIGHT_HU)
    share = float(bright.sum()) / float(soft.sum())
    if share >= WITH_SHARE:
        return [known("contrast", Evidence(scan.middle(bright)), SURE, contrast=WITH), *_filled(scan)]
    if share > WITHOUT_SHARE:
        return [unknown("contrast", UNSURE)]
    if not scan.around:
        return [unknown("contrast", CROPPED)]
    return [known("contrast", Evidence(scan.middle(soft)), WITHOUT_SURE, contrast=WITHOUT)]


def _soft(scan: Scan) -> tuple[np.ndarray, np.ndarray]:
    """Soft tissue away from bone and skin, bool (k, j, i), and the smoothed HU."""
    from scipy import ndimage

    k, j, i = scan.spacing
    widths = [SMOOTHING_MM / step / 2.355 for step in (k, j, i)]
    smooth = ndimage.gaussian_filter(scan.hounsfield.astype(np.float32), widths, truncate=3)
    dense = (scan.tissue == BONE) | (scan.hounsfield > DENSE_HU)
    near = [2 * int(FROM_BONE_MM / step + 0.5) + 1 for step in (k, j, i)]
    away = ndimage.maximum_filter(dense.view(np.uint8), near) == 0
    skin = [1, *(2 * int(FROM_SKIN_MM / step) + 1 for step in (j, i))]
    deep = ndimage.minimum_filter(scan.body.view(np.uint8), skin) > 0
    return deep & away & (smooth > SOFT_HU[0]) & (smooth < SOFT_HU[1]), smooth


def _trunk(scan: Scan, landmarks: Landmarks) -> bool:
    """Whether heart, liver, kidneys or iliac vessels are in view: the body is as wide as a trunk, and no neck."""
    widest = float(scan.body.any(1).sum(1).max()) * scan.spacing[2]
    return widest >= TRUNK_MM and landmarks.neck_mm < NECK_SHARE * landmarks.height


def _filled(scan: Scan) -> list[Fact]:
    inside = scan.tissue == CONTRAST
    volume = float(inside.sum()) * scan.voxel_ml
    if volume < 1:
        return []
    here = Evidence(scan.middle(inside), mask="contrast-filled tissue")
    return [known("bright_tissue", here, volume=volume, hu=float(scan.hounsfield[inside].mean()))]
