"""Prepared cases on disk: memory-mapped int16 levels of each CT with body box and region.

One folder a case: ``case.json``, ``acquisition.npy`` (the scanner's grid, axes turned to LPS), ``coarse.npy`` (3 mm),
``*_anatomy.npy`` and ``*_tissue.npy``. An open case is a path and a few numbers: thousands of them take some
megabytes, and no file stays open.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..conditioning.regions import NULL_REGION, REGIONS
from ..core.errors import InputError
from ..core.safe_load import load_array, plain_name, read_json

COARSE_SPACING_MM = 3.0


@dataclass(frozen=True)
class Level:
    """One resolution of a case; order (k, j, i), mm along S, P, L.

    Attributes:
        voxels: int16 HU.
        anatomy: uint8 labels or None.
        spacing, origin: (3,) mm; center of voxel 0 along each axis.
        tissue: uint8 classes of :mod:`conditioning.tissue`, or None.
    """

    voxels: np.ndarray
    anatomy: np.ndarray | None
    spacing: np.ndarray
    origin: np.ndarray
    tissue: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the voxels."""
        return self.voxels.shape

    @property
    def maps(self) -> frozenset[str]:
        """Kinds of labels that there are: "anatomy", "tissue"."""
        return frozenset(kind for kind in ("anatomy", "tissue") if getattr(self, kind) is not None)


@dataclass(frozen=True)
class StoredLevel:
    """The same in files that are mapped anew for each look.

    A memory map that is kept would hold a file open, of which a process may have about a thousand, and would travel to
    a worker process as a copy of the whole array.

    Attributes:
        voxels_file, anatomy_file, tissue_file: .npy files.
    """

    voxels_file: Path
    anatomy_file: Path | None
    spacing: np.ndarray
    origin: np.ndarray
    tissue_file: Path | None = None

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        """Of the voxels; the file is looked at once."""
        return self.voxels.shape

    @property
    def maps(self) -> frozenset[str]:
        """Kinds of labels that there are: "anatomy", "tissue"."""
        return frozenset(kind for kind in ("anatomy", "tissue") if getattr(self, f"{kind}_file") is not None)

    @property
    def voxels(self) -> np.ndarray:
        """Memory map of the int16 HU."""
        return load_array(self.voxels_file, "r")

    @property
    def anatomy(self) -> np.ndarray | None:
        """Memory map of the uint8 labels, or None."""
        return None if self.anatomy_file is None else load_array(self.anatomy_file, "r")

    @property
    def tissue(self) -> np.ndarray | None:
        """Memory map of the uint8 tissue classes, or None."""
        return None if self.tissue_file is None else load_array(self.tissue_file, "r")


@dataclass(frozen=True)
class Case:
    """One prepared CT.

    Attributes:
        name, patient: identifiers; a patient is never in two splits.
        region: region name, or "" where the whole case has no single one.
        levels: finest first.
        body_box: two (3,) corners in mm, order (k, j, i).
        parts: regions of a whole body as cases of their own, with the same levels and a box each.
        native: whether the finest level has a scanner's own voxels, neither resampled nor smoothed.
    """

    name: str
    patient: str
    region: str
    levels: tuple[Level | StoredLevel, ...]
    body_box: tuple[np.ndarray, np.ndarray]
    parts: tuple[Case, ...] = ()
    native: bool = True

    def level_for(self, spacing: np.ndarray) -> int:
        """Number of the coarsest level that is no coarser than ``spacing`` along any axis, else of the finest."""
        for number, level in reversed(list(enumerate(self.levels))):
            if np.all(level.spacing <= spacing * 1.01):
                return number
        return 0

    def normalized(self, position: np.ndarray, axis: int) -> np.ndarray:
        """Position in mm along an axis -> [-1, 1] in the body box, clipped a little outside of it."""
        low, high = self.body_box[0][axis], self.body_box[1][axis]
        return np.clip(2 * (position - low) / max(high - low, 1.0) - 1, -1.5, 1.5).astype(np.float32)

    def coordinates(self, start: np.ndarray, spacing: np.ndarray, count: tuple[int, int, int]) -> np.ndarray:
        """(3, n) normalized coordinates of the voxels of a box."""
        return np.stack([self.normalized(start[a] + spacing[a] * np.arange(count[a]), a) for a in range(3)])

    def region_of(self, coordinates: np.ndarray) -> int:
        """Class index of the case's region."""
        return REGIONS.index(self.region) if self.region in REGIONS else NULL_REGION


def open_case(folder: Path) -> Case:
    """A prepared case; reads its JSON and looks whether the arrays are whole."""
    record = read_json(folder / "case.json")
    levels = []
    for entry in record["levels"]:
        if not plain_name(entry["name"]):
            raise ValueError("a level has no name")
        voxels, *labels = (folder / f"{entry['name']}{kind}.npy" for kind in ("", "_anatomy", "_tissue"))
        anatomy, tissue = (path if path.exists() else None for path in labels)
        spacing, origin = (np.array(entry[key], dtype=float).reshape(3) for key in ("spacing", "origin"))
        level = StoredLevel(voxels, anatomy, spacing, origin, tissue)
        if level.voxels.ndim != 3:
            raise ValueError(f"{voxels.name} is no volume")
        if len({array.shape for array in (level.voxels, level.anatomy, level.tissue) if array is not None}) > 1:
            raise ValueError(f"{voxels.name} and its labels differ in size")
        levels.append(level)
    if not levels:
        raise ValueError(f"{folder.name} has no level")
    native = bool(record.get("native", True))
    case = Case(record["name"], record["patient"], record["region"], tuple(levels), _box(record), native=native)
    parts = record.get("parts", [])  # caches of the first version have none
    return replace(case, parts=tuple(replace(case, region=part["region"], body_box=_box(part)) for part in parts))


def _box(record: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the box that a record names."""
    low, high = np.array(record["body_box"], dtype=float).reshape(2, 3)
    return low, high


def open_cases(folder: Path, split: str) -> list[Case]:
    """All prepared cases of one split ("training" or "validation"), in the order of ``cases.json``.

    Raises:
        InputError: ``folder`` is no cache, or a case in it is damaged.
    """
    folder = Path(folder).absolute()
    try:
        names = read_json(folder / "cases.json")[split]
        if not all(plain_name(name) for name in names):
            raise ValueError("a case has no name")
        return [open_case(folder / name) for name in names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"'{folder}' is no folder made by `meddifffm prepare`, or it is damaged ({error}).",
            "Run `meddifffm prepare` with the datalist; finished cases are kept.",
        ) from error
