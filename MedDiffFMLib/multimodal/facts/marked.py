"""Places that a mask marks, and organs that an anatomy segmentation outlines: size, density, where they lie."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...conditioning.totalsegmentator_labels import ORGANS, organ_words
from ...imaging.volume import Volume
from .assess import known
from .fact import Evidence, Fact, Point
from .kinds import BACK, CUT, FRONT, LEFT, MIDDLE, RIGHT, WHOLE
from .lungs import Lungs
from .nodules import place_in_lungs
from .scan import Scan

MOST = 20
"""The largest places are described."""
MIDDLE_SHARE = 0.1
"""A place is in the middle up to this share of the body's width, or depth, from its middle."""
IN_LUNG_MM = 3.0
"""A place lies in a lung if its middle is no farther from one."""
ORGAN_ML = 0.2
SURE = 0.98


def marked_places(scan: Scan, mask: np.ndarray, lungs: Lungs | None) -> list[Fact]:
    """A fact for each connected piece of a mask, the largest first.

    Args:
        mask: bool (k, j, i) on the volume's grid.
    """
    from scipy import ndimage

    pieces, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    voxels = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    boxes = ndimage.find_objects(pieces)
    facts = []
    for number, piece in enumerate(np.argsort(-voxels, kind="stable")[:MOST], 1):
        own = pieces[boxes[piece]] == piece + 1
        corner = [s.start for s in boxes[piece]]
        point = _ras(scan.volume, np.argwhere(own).mean(0) + corner)
        volume = float(voxels[piece]) * scan.volume.voxel_volume
        values = {
            "number": number, "size": (6 * volume / np.pi) ** (1 / 3), "volume": volume / 1000,
            "hu": float(scan.volume.voxels[boxes[piece]][own].mean()),
        }  # fmt: skip
        facts.append(_placed(scan, lungs, point, values))
    return facts


def _ras(volume: Volume, index_kji: np.ndarray) -> Point:
    k, j, i = index_kji
    r, a, s, _ = volume.ijk_to_ras @ [i, j, k, 1.0]
    return float(r), float(a), float(s)


def _placed(scan: Scan, lungs: Lungs | None, point: Point, values: dict[str, Any]) -> Fact:
    evidence = Evidence(point, mask=f"marked place {values['number']}")
    if lungs is not None and lungs.sides and _in_lung(scan, lungs, point):
        side, third = place_in_lungs(scan, lungs, point)
        return known("lung_finding", evidence, SURE, **values, side=side, third=third)
    side, depth = place_in_body(scan, point)
    return known("finding", evidence, SURE, **values, side=side, depth=depth)


def _in_lung(scan: Scan, lungs: Lungs, point: Point) -> bool:
    i, j, k = (np.linalg.inv(scan.grid.ijk_to_ras) @ [*point, 1.0])[:3]
    reach = [max(1, int(IN_LUNG_MM / step + 0.5)) for step in scan.spacing]
    around = tuple(slice(max(round(x) - n, 0), round(x) + n + 1) for x, n in zip((k, j, i), reach, strict=True))
    return bool((lungs.inside[around] > 0).any())


def place_in_body(scan: Scan, point: Point) -> tuple[str, str]:
    """Side and depth of a point in the box of the body in its slice."""
    i, j, k = (np.linalg.inv(scan.grid.ijk_to_ras) @ [*point, 1.0])[:3]
    plane = scan.body[int(np.clip(round(k), 0, len(scan.body) - 1))]
    places = []
    for axis, at, (first, last) in ((0, i, (RIGHT, LEFT)), (1, j, (FRONT, BACK))):
        line = np.flatnonzero(plane.any(axis)) if plane.any() else np.arange(plane.shape[1 - axis])
        share = (at - line[0]) / max(line[-1] - line[0], 1) - 0.5
        places.append(MIDDLE if abs(share) <= MIDDLE_SHARE else first if share < 0 else last)
    return places[0], places[1]


def organs(scan: Scan, anatomy: np.ndarray) -> list[Fact]:
    """A fact for each outlined organ, in the order of TotalSegmentator's numbers.

    Args:
        anatomy: labels (k, j, i) on the volume's grid.
    """
    from scipy import ndimage

    facts = []
    for number, box in enumerate(ndimage.find_objects(anatomy), 1):
        if box is None or number >= len(ORGANS):  # the last one is the body
            continue
        own = anatomy[box] == number
        volume = float(own.sum()) * scan.volume.voxel_volume / 1000
        if volume < ORGAN_ML:
            continue
        name = organ_words(ORGANS[number - 1])
        nearest = np.argwhere(own)
        middle = nearest[np.square(nearest - nearest.mean(0)).sum(1).argmin()] + [s.start for s in box]
        evidence = Evidence(_ras(scan.volume, middle), mask=name)
        hu = float(scan.volume.voxels[box][own].mean())
        whole = CUT if _at_an_end(box, anatomy.shape) else WHOLE
        facts.append(known("organ", evidence, SURE, organ=name, volume=volume, hu=hu, whole=whole))
    return facts


def _at_an_end(box: tuple[slice, ...], shape: tuple[int, ...]) -> bool:
    """Whether a box reaches a border of the volume."""
    return any(s.start == 0 or s.stop == n for s, n in zip(box, shape, strict=True))
