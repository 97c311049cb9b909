"""The fact: a statement, how certain it is, and the place in the scan where it can be checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Value = str | int | float
Point = tuple[float, float, float]
"""R, A, S in mm."""

AXIAL, CORONAL, SAGITTAL = "axial", "coronal", "sagittal"


@dataclass(frozen=True)
class Statement:
    """Content of a sentence, whoever says it.

    Attributes:
        kind: name in ``kinds.KINDS``.
        values: slot -> word or number; numbers have the decimals of their slot. Empty where ``unknown`` tells why.
        likely: it is held to be probable, not measured without doubt.
        unknown: why the kind was not assessed, one of ``kinds.REASONS``; empty where it was.
    """

    kind: str
    values: dict[str, Value] = field(default_factory=dict)
    likely: bool = False
    unknown: str = ""


@dataclass(frozen=True)
class Evidence:
    """Place where a statement can be checked.

    Attributes:
        point: in the middle of what was measured, RAS mm: where the views go.
        mask: name of a structure in the label map of evidence; "" for none.
        plane: "axial", "coronal" or "sagittal" through the point; "" for none.
        planes: S (axial), A (coronal) or R (sagittal) of further planes in mm, such as both ends of an extent.
    """

    point: Point
    mask: str = ""
    plane: str = ""
    planes: tuple[float, ...] = ()

    @property
    def kind(self) -> str:
        """ "mask", "plane" or "point"."""
        return "mask" if self.mask else "plane" if self.plane else "point"

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        found: dict[str, Any] = {"kind": self.kind, "point_ras_mm": [round(x, 1) for x in self.point]}
        if self.mask:
            found["mask"] = self.mask
        if self.plane:
            found["plane"] = self.plane
        if self.planes:
            found["planes_mm"] = [round(x, 1) for x in self.planes]
        return found


@dataclass(frozen=True)
class Fact:
    """A statement about one scan.

    Attributes:
        certainty: share of such statements that hold; 1 for what a ruler tells.
        evidence: None only for what was not assessed.
    """

    statement: Statement
    certainty: float = 1.0
    evidence: Evidence | None = None

    def __post_init__(self) -> None:
        """No statement without evidence."""
        assert bool(self.statement.unknown) == (self.evidence is None), self.statement
