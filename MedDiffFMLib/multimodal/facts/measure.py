"""All facts about a CT, in the order in which they are read."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...imaging.volume import Volume
from .acquisition import acquisition
from .body import body
from .composition import composition
from .contrast import contrast
from .evidence_map import evidence_map
from .fact import Fact
from .landmarks import find_landmarks
from .lungs import find_lungs, lungs
from .marked import marked_places, organs
from .nodules import Candidate, find_candidates, nodules, too_coarse
from .region import region
from .scan import Scan

STAGES = ("scan", "region", "tissues", "contrast agent", "lungs", "nodules", "organs", "evidence")


@dataclass(frozen=True)
class Measured:
    """Facts that were found in a scan.

    Attributes:
        facts: those with a sentence first, then what was not assessed.
        evidence: label map on the volume's grid, uint8.
        labels: what its numbers stand for.
    """

    facts: list[Fact]
    evidence: np.ndarray
    labels: list[dict[str, Any]]


def measure(volume: Volume, mask: np.ndarray | None = None, anatomy: np.ndarray | None = None) -> Measured:
    """Measure everything at once, see :func:`measuring`."""
    steps = measuring(volume, mask, anatomy)
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            return finished.value


def measuring(
    volume: Volume, mask: np.ndarray | None = None, anatomy: np.ndarray | None = None
) -> Generator[str, None, Measured]:
    """Measure in steps, each of which is one of ``STAGES`` and is yielded before it begins.

    Args:
        volume: CT in HU, any geometry.
        mask: bool (k, j, i), places to describe.
        anatomy: TotalSegmentator's labels (k, j, i).

    Returns:
        :class:`Measured`, as the generator's value.
    """
    stages = iter(STAGES)
    yield next(stages)
    scan = Scan(volume)
    facts = acquisition(scan)
    yield next(stages)
    landmarks = find_landmarks(scan) if scan.enough else None
    facts = [*region(scan, landmarks), *facts]
    yield next(stages)
    tissues = [*body(scan), *composition(scan)]
    yield next(stages)
    facts += [*contrast(scan, landmarks), *tissues]
    yield next(stages)
    found = find_lungs(scan)
    facts += lungs(scan, found)
    yield next(stages)
    spots: list[Candidate] = []
    if found is not None and found.sides and not too_coarse(scan):
        spots = find_candidates(scan, found)
    facts += nodules(scan, found, spots)
    yield next(stages)
    facts += marked_places(scan, mask, found) if mask is not None else []
    facts += organs(scan, anatomy) if anatomy is not None else []
    yield next(stages)
    evidence, labels = evidence_map(scan, found, spots)
    return Measured(sorted(facts, key=lambda fact: fact.evidence is None), evidence, labels)
