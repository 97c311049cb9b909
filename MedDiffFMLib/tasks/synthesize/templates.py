"""Anatomy templates: bodies of published CTs, and the mean neck of many, as codes of tissue and organs.

Synthesis bends them into nobody's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ...core.errors import MedDiffFMError
from ...core.resources import resource_folder


@dataclass(frozen=True)
class Template:
    """One body.

    Attributes:
        file: label map of codes, see ``expected_hu``; axes along left, posterior, superior.
        regions: region -> lowest and highest part of the length that shows it, 0 feet and 1 head.
        contrast: whether vessels are filled with contrast agent.
        credit: whose CT it was, or of whose CTs it is the median, and its license.
        hu: code -> its median HU in that CT.
    """

    file: Path
    regions: dict[str, tuple[float, float]]
    contrast: bool
    credit: str
    hu: dict[int, float]

    @property
    def name(self) -> str:
        """Name for reports."""
        return self.file.stem

    def codes(self) -> tuple[np.ndarray, tuple[float, float, float]]:
        """Codes (k, j, i), uint8, and the voxel size (k, j, i) in mm."""
        from ...imaging.io import read_volume

        volume = read_volume(self.file)
        return np.asarray(volume.voxels, np.uint8), volume.spacing[::-1]


@lru_cache(maxsize=1)
def templates() -> tuple[Template, ...]:
    """What ships, in the order of the index.

    Raises:
        MedDiffFMError: the index is damaged.
    """
    folder = resource_folder() / "Anatomy"
    if not (folder / "index.json").is_file():
        return ()
    try:
        return tuple(
            Template(
                folder / str(row["file"]),
                {name: (float(low), float(high)) for name, (low, high) in row["regions"].items()},
                bool(row["contrast"]),
                str(row["credit"]),
                {int(code): float(value) for code, value in row["hu"].items()},
            )
            for row in json.loads((folder / "index.json").read_text(encoding="utf-8"))["templates"]
        )
    except (OSError, KeyError, TypeError, ValueError) as problem:
        raise MedDiffFMError(
            "The index of the anatomy templates is damaged.", "Install the package again."
        ) from problem


def of_region(region: str | None) -> list[Template]:
    """Templates that show a region."""
    return [template for template in templates() if region in template.regions]
