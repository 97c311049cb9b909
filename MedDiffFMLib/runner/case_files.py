"""The files of one case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..imaging.image_files import stem_of


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case.

    Attributes:
        input: NRRD, NIfTI, DICOM folder, DICOMDIR or one file of a DICOM series; None for a task that makes a CT.
        mask: label map on the input's grid, DICOM segmentation or RT structure set, for tasks that need one.
        anatomy: organ label map (TotalSegmentator numbers) on the input's grid.
        scans: further scans by name, for tasks that take them.
        texts: by name.
        series: number or UID of the wanted one, where the input is a DICOM folder or DICOMDIR with several.
        label: number or name of the one label, or DICOM segment or structure, of the mask that is taken; None for all.
        force: scans whose values do not look like those of their modality are worked on, with a warning.
        origin: address of an archive that the input was fetched from; the report then names it and no path.
    """

    input: Path | None = None
    mask: Path | None = None
    anatomy: Path | None = None
    scans: Mapping[str, Path] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    series: str | None = None
    label: str | None = None
    force: bool = False
    origin: str | None = None

    @property
    def name(self) -> str:
        """Name that results are called after; empty where there is no input."""
        source = self.input or self.anatomy or next(iter(self.scans.values()), None)
        if source is None:
            return ""
        return stem_of(source) if self.series is None else f"{stem_of(source)}_series{self.series}"

    @property
    def source(self) -> Path | None:
        """File that results are named and formatted like; None where there is no input."""
        if self.input is None or self.series is None:
            return self.input or self.anatomy
        return self.input.with_name(self.name)

    @property
    def paths(self) -> dict[str, Path]:
        """Every file by the name of the input."""
        named = {"volume": self.input, "mask": self.mask, "anatomy": self.anatomy, **self.scans}
        return {name: path for name, path in named.items() if path is not None}

    @property
    def names(self) -> list[str]:
        """Inputs and texts that are given."""
        return [*self.paths, *self.texts]
