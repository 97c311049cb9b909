"""What the volumes of a result are: the panel shows each kind in its own way; imports the standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class OutputKind(Enum):
    """What the voxels of an output mean."""

    CT = "ct"
    """HU, shown with the window of the input."""
    DIFFERENCE = "difference"
    """HU around zero, shown in gray with the same range to both sides."""
    Z_SCORE = "z-score"
    """How unusual, in standard deviations of normal tissue."""
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


@dataclass(frozen=True)
class Output:
    """One volume of a task's result.

    Attributes:
        name: in results, file names and the protocol.
        title: what a user reads; the name where it is left out.
    """

    name: str
    kind: OutputKind
    title: str = ""

    @property
    def words(self) -> str:
        """Title, else the name in words."""
        return self.title or self.name.replace("_", " ")
