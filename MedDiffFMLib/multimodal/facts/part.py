"""Facts about a box of a scan: what is in it and where it lies, measured with what the whole scan tells."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np

from ...conditioning.tissue import OUTSIDE
from ...imaging.grid import Grid
from ...imaging.volume import Box, Volume
from .assess import known
from .composition import composition
from .contrast import contrast
from .fact import Evidence, Fact, Point, Statement
from .kinds import REGION_WORDS
from .landmarks import find_landmarks
from .lungs import Lungs, find_lungs, lungs
from .marked import place_in_body
from .nodules import place_in_lungs
from .scan import Scan

SHOWN_ML = 5.0
"""With less body in a box nothing is said about it, and with less lung nothing about that."""
SURE = 0.96


@dataclass(frozen=True)
class Spot:
    """A nodule that is known: outlined by readers, found, or put in.

    Attributes:
        point: RAS mm of its middle.
        size: mm, diameter of a sphere of its volume.
        hu: mean.
        side, third: of the lung.
    """

    point: Point
    size: float
    hu: float
    side: str
    third: str


class Surroundings:
    """A whole scan, with what its parts are told from.

    Attributes:
        scan: of which boxes are cut.
        lungs: None where none are shown.
        of_all: facts that hold for every part, such as contrast agent.
    """

    def __init__(self, scan: Scan) -> None:
        self.scan = scan
        self.lungs: Lungs | None = find_lungs(scan)
        landmarks = find_landmarks(scan) if scan.enough else None
        found = contrast(scan, landmarks)
        self.of_all: list[Fact] = [fact for fact in found if fact.statement.kind == "contrast" and fact.evidence]

    def spot(self, point: Point, size: float, hu: float) -> Spot | None:
        """A nodule at a point; None in a scan whose lungs cannot be told apart."""
        if self.lungs is None or not self.lungs.sides:
            return None
        return Spot(point, size, hu, *place_in_lungs(self.scan, self.lungs, point))

    def altered(self, hounsfield: np.ndarray, tissue: np.ndarray) -> Surroundings:
        """The same with other voxels (k, j, i), in which lungs and landmarks are where they were."""
        other, other.scan = copy(self), copy(self.scan)
        other.scan.hounsfield, other.scan.tissue = hounsfield, tissue
        return other

    def facts(self, box: Box, spots: Sequence[Spot] = ()) -> list[Statement]:
        """Statements about a box (k, j, i) of the scan, none where it holds hardly any body.

        Args:
            spots: nodules of the scan; those whose middle lies in the box are told.
        """
        part = Part(self.scan, box)
        if float((part.tissue != OUTSIDE).sum()) * part.voxel_ml < SHOWN_ML:
            return []
        facts = [*self._place(part), *_amount(part), *composition(part), *self._lungs(part, box), *self.of_all]
        facts += [_nodule(spot) for spot in spots if part.holds(spot.point)]
        return [_of_part(fact.statement) for fact in facts if fact.evidence is not None]

    def _place(self, part: Part) -> list[Fact]:
        """Side, depth, height and region."""
        here = Evidence(part.center, plane="axial")
        facts = []
        if self.scan.around:
            side, depth = place_in_body(self.scan, part.center)
            facts.append(known("place", here, SURE, side=side, depth=depth))
        position = self.scan.position
        if not position.understood or position.flipped:
            return facts
        from ...preprocessing.body_coordinates import REGION_SPANS

        level = float(position.offset[0] + position.slope[0] * part.center[2])
        facts.append(known("level", here, SURE, level=100 * level))
        named = [name for name, (low, high) in REGION_SPANS.items() if low <= level < high]
        return [*facts, *(known("region", here, SURE, region=REGION_WORDS[name]) for name in named)]

    def _lungs(self, part: Part, box: Box) -> list[Fact]:
        if self.lungs is None:
            return []
        inside = self.lungs.inside[box]
        if float((inside > 0).sum()) * part.voxel_ml < SHOWN_ML or not part.has_lung:
            return []
        return lungs(part, replace(self.lungs, inside=inside, cut=True))


class Part(Scan):
    """A box of a scan as a scan of its own, with body and tissues as they were found in the whole."""

    def __init__(self, whole: Scan, box: Box) -> None:
        shift = np.eye(4)
        shift[:3, 3] = [part.start for part in reversed(box)]
        self.hounsfield = whole.hounsfield[box]
        k, j, i = self.hounsfield.shape
        self.grid = Grid((k, j, i), whole.grid.ijk_to_ras @ shift)
        self.volume = Volume(self.hounsfield, self.grid.ijk_to_ras)
        self.padding = whole.padding[box]
        self.body, self.tissue = whole.body[box], whole.tissue[box]
        self.around, self.enough = whole.around, True

    @property
    def has_lung(self) -> bool:
        """Whether a density of lung can be told."""
        from ...conditioning.tissue import LUNG

        return bool((self.tissue == LUNG).any())

    def holds(self, point: Point) -> bool:
        """Whether a point (RAS mm) lies in the box."""
        index = (np.linalg.inv(self.grid.ijk_to_ras) @ [*point, 1.0])[:3][::-1]
        return bool(((index > -0.5) & (index < np.array(self.hounsfield.shape) - 0.5)).all())


def _amount(part: Part) -> list[Fact]:
    """Volume and mass of the body that is shown. The mass is what an X-ray of it tells best."""
    liters = float(part.body.sum()) * part.voxel_ml / 1000
    kilograms = float((part.hounsfield[part.body] + 1000.0).sum()) * part.voxel_ml / 1e6
    here = part.whole()
    return [known("body_volume", here, SURE, volume=liters), known("body_mass", here, SURE, mass=max(kilograms, 0.0))]


def _of_part(said: Statement) -> Statement:
    """The statement without what is only said of whole scans."""
    return Statement(said.kind, {name: value for name, value in said.values.items() if name != "whole"})


def _nodule(spot: Spot) -> Fact:
    evidence = Evidence(spot.point)
    return known("nodule", evidence, SURE, size=spot.size, side=spot.side, third=spot.third, hu=spot.hu)
