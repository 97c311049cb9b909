"""Prepared cases on disk: memory-mapped int16 levels of each CT with body box and region.

One folder a case: ``case.json``, ``acquisition.npy`` (the scanner's grid, axes turned to LPS), ``coarse.npy`` (3 mm),
and ``*_anatomy.npy`` where labels were given. Opening any number of cases costs no memory.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..conditioning.condition import NULL_REGION, REGIONS
from ..errors import InputError

COARSE_SPACING_MM = 3.0


@dataclass(frozen=True)
class Level:
    """One resolution of a case; order (k, j, i), mm along S, P, L.

    Attributes:
        voxels: int16 HU.
        anatomy: uint8 labels or None.
        spacing, origin: (3,) mm; centre of voxel 0 along each axis.
    """

    voxels: np.ndarray
    anatomy: np.ndarray | None
    spacing: np.ndarray
    origin: np.ndarray


@dataclass(frozen=True)
class Case:
    """One prepared CT.

    Attributes:
        name, patient: identifiers; a patient is never in two splits.
        region: region name, or "" where the whole case has no single one.
        levels: finest first.
        body_box: two (3,) corners in mm, order (k, j, i).
    """

    name: str
    patient: str
    region: str
    levels: tuple[Level, ...]
    body_box: tuple[np.ndarray, np.ndarray]

    def level_for(self, spacing: np.ndarray) -> Level:
        """The coarsest level that is no coarser than ``spacing`` along any axis, else the finest."""
        for level in reversed(self.levels):
            if np.all(level.spacing <= spacing * 1.01):
                return level
        return self.levels[0]

    def normalised(self, position: np.ndarray, axis: int) -> np.ndarray:
        """Position in mm along an axis -> [-1, 1] in the body box, clipped a little outside of it."""
        low, high = self.body_box[0][axis], self.body_box[1][axis]
        return np.clip(2 * (position - low) / max(high - low, 1.0) - 1, -1.5, 1.5).astype(np.float32)

    def coordinates(self, start: np.ndarray, spacing: np.ndarray, count: tuple[int, int, int]) -> np.ndarray:
        """(3, n) normalised coordinates of the voxels of a box."""
        return np.stack([self.normalised(start[a] + spacing[a] * np.arange(count[a]), a) for a in range(3)])

    def region_of(self, coordinates: np.ndarray) -> int:
        """Class index of the case's region."""
        return REGIONS.index(self.region) if self.region in REGIONS else NULL_REGION


def open_case(folder: Path) -> Case:
    """Map a prepared case; reads only its JSON."""
    record = json.loads((folder / "case.json").read_text())
    levels = []
    for entry in record["levels"]:
        anatomy = folder / f"{entry['name']}_anatomy.npy"
        levels.append(
            Level(
                np.load(folder / f"{entry['name']}.npy", mmap_mode="r"),
                np.load(anatomy, mmap_mode="r") if anatomy.exists() else None,
                np.array(entry["spacing"]),
                np.array(entry["origin"]),
            )
        )
    low, high = record["body_box"]
    return Case(record["name"], record["patient"], record["region"], tuple(levels), (np.array(low), np.array(high)))


def open_cases(folder: Path, split: str) -> list[Case]:
    """All prepared cases of one split ("training" or "validation"), in the order of ``cases.json``.

    Raises:
        InputError: ``folder`` is no cache, or a case in it is damaged.
    """
    folder = Path(folder)
    try:
        index = json.loads((folder / "cases.json").read_text(encoding="utf-8"))
        return [open_case(folder / name) for name in index[split]]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"'{folder}' is no folder made by `meddifffm prepare`, or it is damaged ({error}).",
            "Run `meddifffm prepare` with the datalist; finished cases are kept.",
        ) from error
