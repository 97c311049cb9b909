"""Which part of the body a CT shows: two independent estimates, and a neck above shoulders, must not contradict."""

from __future__ import annotations

import numpy as np

from ...conditioning.region import guess_region
from .assess import known, unknown
from .fact import AXIAL, Evidence, Fact
from .kinds import LEVELS, REGION_WORDS, TOO_LITTLE, UNSURE
from .scan import Scan

LEVEL_FLOORS_M = (-0.10, 0.14, 0.36, 0.62, 0.70)
"""Metres above the pelvic floor at which pelvis, abdomen, chest, neck and head begin."""
SHOWN_M = 0.02
"""A level is named where so much of it is shown."""
NECK_CM2, NECK_MM, SHOULDERS = 300.0, 25.0, 1.5
"""A neck has smaller cross-sections than the first over such a height, and below it others so many times larger."""
WHOLE_BODY_M = 0.5
"""A span of body coordinates from which on no single region is shown."""
NECK_SCAN_MM = 260.0
"""A scan of neck and shoulders is no higher; a higher one is one of the chest."""
AGREED, NECK, SHORT = 0.98, 0.95, 0.85
"""Certainty where both estimates agree; where there is a neck; where the scan is too short for one of them."""


def region(scan: Scan) -> list[Fact]:
    """Region, and from where to where along the body."""
    if not scan.enough:
        return [unknown("region", TOO_LITTLE), unknown("reach", TOO_LITTLE)]
    facts = []
    name, certainty = _region(scan)
    here = scan.whole()
    if name is None:
        facts.append(unknown("region", UNSURE))
    else:
        facts.append(known("region", here, certainty, region=REGION_WORDS[name]))
    facts.append(_reach(scan, name is not None and certainty == AGREED))
    facts += [known("turned", here, SHORT, axis=axis) for axis in scan.position.flipped]
    return facts


def _region(scan: Scan) -> tuple[str | None, float]:
    """Region class and how certain it is."""
    if scan.around and neck_height(scan) >= NECK_MM and scan.shown_mm[0] < NECK_SCAN_MM:
        return "head-neck", NECK
    guessed = guess_region(scan.hounsfield, scan.spacing, scan.body)
    if guessed is None or guessed != _by_position(scan.position.span):
        return None, 0.0
    return guessed, AGREED if scan.position.region == guessed else SHORT


def _by_position(span: tuple[float, float]) -> str:
    """Region that most of a span of body coordinates lies in."""
    from ...preprocessing.body_coordinates import REGION_SPANS

    low, high = span
    if high - low > WHOLE_BODY_M:
        return "whole-body"
    return max(REGION_SPANS, key=lambda name: min(high, REGION_SPANS[name][1]) - max(low, REGION_SPANS[name][0]))


def neck_height(scan: Scan) -> float:
    """Height in mm of a neck above shoulders, at the upper end of the scan; 0 where there is none."""
    k, j, i = scan.spacing
    area = scan.body.sum((1, 2)) * j * i / 100
    shown = np.flatnonzero(area > 0.1 * area.max())
    wide = shown[area[shown] >= NECK_CM2]
    above = shown[shown > wide.max()] if wide.size else shown[:0]
    if not above.size or area.max() < SHOULDERS * area[above].max():
        return 0.0
    return float(len(above) * k)


def _reach(scan: Scan, trusted: bool) -> Fact:
    """First and last level of the body that is shown."""
    if not trusted:
        return unknown("reach", UNSURE)
    low, high = scan.position.span
    first, last = (int(np.searchsorted(LEVEL_FLOORS_M, height)) for height in (low + SHOWN_M, high - SHOWN_M))
    ends = tuple(scan.ras(np.array([k, *(np.array(scan.hounsfield.shape[1:]) - 1) / 2]))[2] for k in _rows(scan))
    evidence = Evidence(scan.center, plane=AXIAL, planes=ends)
    return known("reach", evidence, AGREED, **{"from": LEVELS[min(first, last)], "to": LEVELS[max(first, last)]})


def _rows(scan: Scan) -> tuple[int, int]:
    """First and last slice that shows the body."""
    shown = np.flatnonzero(scan.body.any((1, 2)))
    return int(shown[0]), int(shown[-1])
