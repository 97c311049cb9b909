"""Names and numbers of TotalSegmentator's 117 structures (task "total" of version 2), and 118 for the body."""

from __future__ import annotations

import re

_VERTEBRAE = [
    "S1",
    *(f"L{n}" for n in range(5, 0, -1)),
    *(f"T{n}" for n in range(12, 0, -1)),
    *(f"C{n}" for n in range(7, 0, -1)),
]

ORGANS: tuple[str, ...] = (
    "spleen", "kidney_right", "kidney_left", "gallbladder", "liver", "stomach", "pancreas", "adrenal_gland_right",
    "adrenal_gland_left", "lung_upper_lobe_left", "lung_lower_lobe_left", "lung_upper_lobe_right",
    "lung_middle_lobe_right", "lung_lower_lobe_right", "esophagus", "trachea", "thyroid_gland", "small_bowel",
    "duodenum", "colon", "urinary_bladder", "prostate", "kidney_cyst_left", "kidney_cyst_right", "sacrum",
    *(f"vertebrae_{name}" for name in _VERTEBRAE),
    "heart", "aorta", "pulmonary_vein", "brachiocephalic_trunk", "subclavian_artery_right", "subclavian_artery_left",
    "common_carotid_artery_right", "common_carotid_artery_left", "brachiocephalic_vein_left",
    "brachiocephalic_vein_right", "atrial_appendage_left", "superior_vena_cava", "inferior_vena_cava",
    "portal_vein_and_splenic_vein", "iliac_artery_left", "iliac_artery_right", "iliac_vena_left", "iliac_vena_right",
    "humerus_left", "humerus_right", "scapula_left", "scapula_right", "clavicula_left", "clavicula_right",
    "femur_left", "femur_right", "hip_left", "hip_right", "spinal_cord", "gluteus_maximus_left",
    "gluteus_maximus_right", "gluteus_medius_left", "gluteus_medius_right", "gluteus_minimus_left",
    "gluteus_minimus_right", "autochthon_left", "autochthon_right", "iliopsoas_left", "iliopsoas_right", "brain",
    "skull", *(f"rib_{side}_{n}" for side in ("left", "right") for n in range(1, 13)), "sternum", "costal_cartilages",
    "body",
)  # fmt: skip
"""Structure number n is ``ORGANS[n - 1]``."""

_NUMBERS = {name.lower(): number for number, name in enumerate(ORGANS, 1)}


def organ_number(name: str) -> int | None:
    """Number of a structure by its name; case, spaces and hyphens do not matter. None for any other name."""
    return _NUMBERS.get(re.sub(r"[\s-]+", "_", name.strip().lower()))


def organ_words(organ: str) -> str:
    """``lung_upper_lobe_right`` as "right lung upper lobe"."""
    words = organ.replace("vertebrae", "vertebra").split("_")
    sides = [word for word in words if word in ("right", "left")]
    return " ".join([*sides, *(word for word in words if word not in sides)])
