"""Label map of what the sentences rest on, on the scan's own grid."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...conditioning.tissue import AIRWAY, BONE, CONTRAST, FAT, MUSCLE
from ...imaging.grid import from_grid
from .lungs import Lungs
from .nodules import Candidate
from .scan import Scan

FAT_NAME, SOFT_NAME, FILLED_NAME, BONE_NAME, GAS_NAME = (
    "fat", "soft tissue", "contrast-filled tissue", "bone", "airways and other gas",
)  # fmt: skip
STRUCTURES = {
    "right lung": (1, (197, 165, 145)), "left lung": (2, (172, 138, 115)), FAT_NAME: (3, (230, 220, 70)),
    SOFT_NAME: (4, (192, 104, 88)), FILLED_NAME: (5, (216, 101, 79)), BONE_NAME: (6, (241, 214, 145)),
    GAS_NAME: (7, (182, 228, 255)), "lung": (8, (185, 152, 130)),
}  # fmt: skip
"""Name -> number in the map and color; "lung" where right and left were not told apart."""
TISSUES = {FAT: FAT_NAME, MUSCLE: SOFT_NAME, CONTRAST: FILLED_NAME, BONE: BONE_NAME, AIRWAY: GAS_NAME}
FIRST_NODULE, NODULE_COLOR = 20, (255, 209, 63)


def evidence_map(scan: Scan, lungs: Lungs | None, nodules: list[Candidate]) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Numbers of structures, uint8 on the volume's grid, and what they stand for, as a segmentation's report has it.

    Nodule candidates lie over lungs, lungs over tissues.
    """
    coarse = np.zeros(scan.tissue.shape, np.uint8)
    for tissue, name in TISSUES.items():
        coarse[scan.tissue == tissue] = STRUCTURES[name][0]
    if lungs is not None:
        numbers = lungs.inside if lungs.sides else np.full_like(lungs.inside, STRUCTURES["lung"][0])
        coarse = np.where(lungs.inside > 0, numbers, coarse)
    found = from_grid(coarse, scan.grid, scan.volume, order=0)
    named = {value: (name, color) for name, (value, color) in STRUCTURES.items()}
    for number, nodule in enumerate(nodules, 1):
        fine = np.zeros(nodule.grid.shape, bool)
        fine[nodule.box] = nodule.inside
        value = FIRST_NODULE + number - 1
        found[from_grid(fine, nodule.grid, scan.volume, order=0)] = value
        named[value] = (f"nodule candidate {number}", NODULE_COLOR)
    voxels = np.bincount(found.ravel(), minlength=256)
    return found, [
        {
            "value": value, "name": name, "color": list(color), "terminology": "",
            "volume_ml": round(float(voxels[value]) * scan.volume.voxel_volume / 1000, 3), "uncertainty": None,
        }
        for value, (name, color) in named.items()
        if voxels[value]
    ]  # fmt: skip
