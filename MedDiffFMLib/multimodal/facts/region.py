"""Which part of the body a CT shows: landmarks first; else two estimates that must not contradict each other."""

from __future__ import annotations

import numpy as np

from ...conditioning.region import guess_region
from .assess import known, unknown
from .fact import AXIAL, Evidence, Fact
from .kinds import CROPPED, REGION_WORDS, TOO_LITTLE, UNSURE
from .landmarks import Landmarks
from .scan import Scan

NECK_MM, NECK_SCAN_MM = 25.0, 260.0
"""A scan of neck and shoulders shows so much of the neck and is no higher; a higher one is one of the chest."""
WHOLE_BODY_MM, WHOLE_BODY_M = 600.0, 0.5
"""Height, or span of body coordinates, from which on no single region is shown."""
HIP_SHARE = 0.6
"""A scan of the pelvis shows hip bones in such a share of its slices."""
ABDOMEN_MM, CHEST_MM = 25.0, 10.0
"""Of slices without lung below the lungs: from the first on the abdomen is shown, up to the second it is not."""
NECK_SHOWN_MM, CHEST_TOP_MM = 60.0, 35.0
"""Of slices without lung above them: from the first on the neck is shown, up to the second it is not."""
PELVIS_MM, LEGS_MM, ABOVE_HIPS_MM = 230.0, 300.0, 60.0
"""From the highest slice with hip bones down: up to the first no more than the pelvis is shown, from the second on
legs. The abdomen is shown so far above hip bones."""
AGREED, LANDMARK, SHORT = 0.98, 0.96, 0.85
"""Certainty where both estimates agree; by landmarks; where the scan is too short for body coordinates."""


def region(scan: Scan, landmarks: Landmarks | None) -> list[Fact]:
    """Region, from where to where along the body, and whether the scan seems to be turned around."""
    if landmarks is None:
        return [unknown("region", TOO_LITTLE), unknown("reach", TOO_LITTLE)]
    name, certainty = _region(scan, landmarks)
    facts = []
    if name is None:
        facts.append(unknown("region", UNSURE))
    else:
        facts.append(known("region", scan.whole(), certainty, region=REGION_WORDS[name]))
    facts += _reach(scan, landmarks, name)
    return [*facts, *(known("turned", scan.whole(), SHORT, axis=axis) for axis in scan.position.flipped)]


def _region(scan: Scan, seen: Landmarks) -> tuple[str | None, float]:
    """Region class and how certain it is."""
    if scan.around:
        if seen.neck_mm >= NECK_MM and seen.height < NECK_SCAN_MM:
            return "head-neck", LANDMARK
        if seen.lung.any() and seen.hip.any() and seen.height > WHOLE_BODY_MM:
            return "whole-body", LANDMARK
        if not seen.lung.any() and seen.hip.sum() * seen.step > HIP_SHARE * seen.height:
            return "pelvis", LANDMARK
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


def _reach(scan: Scan, seen: Landmarks, name: str | None) -> list[Fact]:
    """First and last level of the body that is shown; nothing where it is one."""
    if not scan.around:
        return [unknown("reach", CROPPED)]
    low, high = (None, None) if name in (None, "head-neck") else (_lowest(seen), _highest(seen))
    if low is None or high is None:
        return [unknown("reach", UNSURE)]
    if low == high:
        return []
    j, i = (np.array(scan.hounsfield.shape[1:]) - 1) / 2
    ends = tuple(scan.ras(np.array([k, j, i]))[2] for k in (seen.bottom, seen.top))
    evidence = Evidence(scan.center, plane=AXIAL, planes=ends)
    return [known("reach", evidence, LANDMARK, **{"from": low, "to": high})]


def _lowest(seen: Landmarks) -> str | None:
    """Level at the lower end."""
    if seen.hip.any():
        below = float(np.flatnonzero(seen.hip).max() - seen.bottom) * seen.step
        return "legs" if below >= LEGS_MM else "pelvis" if below <= PELVIS_MM else None
    if not seen.lung.any():
        return None
    free = seen.below(seen.lung)
    return "abdomen" if free >= ABDOMEN_MM else "chest" if free <= CHEST_MM else None


def _highest(seen: Landmarks) -> str | None:
    """Level at the upper end."""
    if seen.lung.any():
        free = seen.above(seen.lung)
        neck = free >= NECK_SHOWN_MM or seen.neck_mm >= NECK_MM
        return "neck" if neck else "chest" if free <= CHEST_TOP_MM else None
    if not seen.hip.any():
        return None
    return "abdomen" if seen.above(seen.hip) >= ABOVE_HIPS_MM else "pelvis"
