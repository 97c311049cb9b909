"""Expected Hounsfield units of tissue classes and organs: what an anatomy looks like before a prior has seen it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...conditioning.totalsegmentator_labels import ORGANS

SPONGY_BONE = 8
"""Code beside the seven of ``conditioning.tissue.TISSUES``: dense, but ringed by compact bone."""
LUNG_VESSELS = {9: -680, 10: -520, 11: -330}
"""Codes of lung that vessels fill in part, by the least HU."""
BONE_DENSITIES = {12: 155, 13: 180, 14: 240, 15: 310, 16: 400, 17: 520, 18: 680, 19: 880}
"""Codes of bone, its marrow and the voxels that it fills in part, by the least HU (of the first the usual). One density
for all compact bone and one for all marrow would leave little of the shell that tells a vertebra from a vessel."""
FIRST_ORGAN = 100
"""Code of organ n of TotalSegmentator is ``FIRST_ORGAN + n``."""
TISSUE_HU = {0: -1000, 1: -1000, 2: -860, 3: -980, 4: -100, 5: 45, 6: 160, 7: 380, SPONGY_BONE: 190}
"""HU by code; means of training CTs, rounded."""
_ORGAN_HU = (  # the first word that is part of the name decides
    ("lung", -860), ("trachea", -980), ("cartilage", 90), ("spinal_cord", 35), ("brain_", 150), ("brain", 35),
    ("vertebrae", 230), ("sacrum", 230), ("rib_", 330), ("sternum", 230), ("clavicula", 350), ("scapula", 330),
    ("humerus", 350), ("femur", 350), ("hip", 320), ("skull", 700), ("liver", 90), ("spleen", 95), ("kidney_cyst", 10),
    ("kidney", 130), ("pancreas", 65), ("adrenal", 45), ("gallbladder", 12), ("stomach", 20), ("duodenum", 35),
    ("small_bowel", 30), ("colon", -40), ("bladder", 10), ("thyroid", 90), ("aorta", 160), ("artery", 160),
    ("vein", 150), ("vena", 150), ("cava", 150), ("trunk", 160), ("atrial", 160), ("heart", 140), ("body", 20),
)  # fmt: skip


def organ_hu(organ: str) -> int:
    """Usual HU of one of ``ORGANS`` in a scan of the venous phase; muscle where nothing better is known."""
    return next((value for word, value in _ORGAN_HU if word in organ), 55)


def hu_table(measured: Mapping[int, float] | None = None) -> np.ndarray:
    """HU of every code 0 to 255, float32.

    Args:
        measured: code -> HU of a certain scan, in place of the usual.
    """
    table = np.full(256, 45.0, np.float32)
    for code, usual in {**TISSUE_HU, **LUNG_VESSELS, **BONE_DENSITIES}.items():
        table[code] = usual
    for number, organ in enumerate(ORGANS, 1):
        table[FIRST_ORGAN + number] = organ_hu(organ)
    for code, value in (measured or {}).items():
        table[code] = value
    return table


def tissue_table() -> np.ndarray:
    """Tissue class (1 to 7) of every code 0 to 255, uint8; of organs by their HU."""
    from ...conditioning.tissue import AIRWAY, BONE, CONTRAST, FAT, LUNG, MUSCLE, OUTSIDE

    table = np.full(256, MUSCLE, np.uint8)
    table[0] = OUTSIDE
    table[1:8] = np.arange(1, 8)
    table[SPONGY_BONE] = BONE
    table[list(LUNG_VESSELS)] = LUNG
    table[list(BONE_DENSITIES)] = BONE
    for number, organ in enumerate(ORGANS, 1):
        value = organ_hu(organ)
        for most, tissue in ((-940, AIRWAY), (-400, LUNG), (-60, FAT), (110, MUSCLE), (170, CONTRAST), (2000, BONE)):
            if value <= most:
                table[FIRST_ORGAN + number] = tissue
                break
    return table
