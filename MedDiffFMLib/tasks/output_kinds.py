"""Kinds of output of a task: the panel shows each kind in its own way; imports the standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ..imaging.modality import CT, MR, XR


class OutputKind(Enum):
    """Kind of an output."""

    CT = "ct"
    """HU, shown with the window of the input."""
    MR = "mr"
    """Signal of an MR, shown with a window that fits it."""
    XRAY = "x-ray"
    """Radiographs, each a plane (1, j, i) with a geometry of its own."""
    DIFFERENCE = "difference"
    """HU around zero, shown in gray with the same range to both sides."""
    Z_SCORE = "z-score"
    """Distance from the usual, in standard deviations of normal tissue."""
    CHANGE = "change"
    """Signed, in standard deviations of the noise, shown in blue and red around zero."""
    HU_SPREAD = "hu-spread"
    """Usual error, HU."""
    MASK = "mask"
    """True inside, shown as an outline over the other outputs."""
    LABELS = "labels"
    """Numbers of structures, shown as segments; names and colors are in the result's facts."""
    LABEL_SPREAD = "label-spread"
    """Standard deviation of a label, 0 to 0.5; one of each structure may follow, as ``<name>_<structure>``."""
    VALUES = "values"
    """Any other numbers, shown with a window that fits them."""
    TABLE = "table"
    """Rows of figures."""
    POINTS = "points"
    """Rows with a place each: ``r_mm``, ``a_mm``, ``s_mm`` among the columns."""
    TEXT = "text"
    """A text to read."""

    @property
    def modality(self) -> str:
        """Of an image; "mask" for label maps, and "CT" for maps in HU or without unit beside one."""
        special = {OutputKind.MR: MR, OutputKind.XRAY: XR, OutputKind.MASK: "mask", OutputKind.LABELS: "mask"}
        return special.get(self, CT)

    @property
    def suffix(self) -> str:
        """Of its file; empty for voxels, which are written in the format of the input."""
        return {OutputKind.TABLE: ".csv", OutputKind.POINTS: ".csv", OutputKind.TEXT: ".txt"}.get(self, "")


@dataclass(frozen=True)
class Output:
    """One part of a task's result.

    Attributes:
        name: in results, file names and the protocol.
        title: what a user reads; the name where it is left out.
        columns: of a table or of points.
        invented: whether it shows tissue that the patient does not have; DICOM objects of it are marked as synthetic.
    """

    name: str
    kind: OutputKind
    title: str = ""
    columns: tuple[str, ...] = ()
    invented: bool = False

    @property
    def words(self) -> str:
        """Title, else the name in words."""
        return self.title or self.name.replace("_", " ")
