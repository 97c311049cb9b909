"""Composition of the shown body: fat, soft tissue, bone, gas."""

from __future__ import annotations

import numpy as np

from ...conditioning.tissue import AIRWAY, BONE, CONTRAST, FAT, MUSCLE, OUTSIDE
from .assess import known, unknown
from .fact import Evidence, Fact
from .kinds import TOO_LITTLE
from .scan import Scan

SHARE = 0.96
"""Certainty of a tissue's share: classes are told by HU and neighborhood, see ``conditioning/tissue.py``."""
SHOWN_ML = 2.0
"""A tissue with less is not spoken of."""


def composition(scan: Scan) -> list[Fact]:
    """Shares of the tissues in the shown body, lungs and all, and their densities."""
    if not scan.enough:
        return [unknown("fat", TOO_LITTLE), unknown("bone", TOO_LITTLE)]
    tissue, hounsfield, ml = scan.tissue, scan.hounsfield, scan.voxel_ml
    total = float((tissue != OUTSIDE).sum()) * ml
    facts: list[Fact] = []
    for kind, mask, numbers, unit_ml in (
        ("fat", "fat", (FAT,), 1000), ("muscle", "soft tissue", (MUSCLE, CONTRAST), 1000), ("bone", "bone", (BONE,), 1),
    ):  # fmt: skip
        inside = np.isin(tissue, numbers)
        volume = float(inside.sum()) * ml
        if volume < SHOWN_ML:
            facts += [unknown(kind, TOO_LITTLE)] if kind != "muscle" else []
            continue
        here = Evidence(scan.middle(inside), mask=mask)
        facts.append(known(kind, here, SHARE, share=100 * volume / total, volume=volume / unit_ml))
        density = float(hounsfield[inside].mean()) if kind == "bone" else float(np.median(hounsfield[inside]))
        facts.append(known(_DENSITIES[kind], here, SHARE, hu=density))
    gas = tissue == AIRWAY
    if (volume := float(gas.sum()) * ml) >= SHOWN_ML:
        here = Evidence(scan.middle(gas), mask="airways and other gas")
        facts.append(known("gas", here, SHARE, volume=volume))
    return facts


_DENSITIES = {"fat": "fat_density", "muscle": "soft_density", "bone": "bone_density"}
