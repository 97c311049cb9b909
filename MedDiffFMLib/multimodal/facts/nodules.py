"""Nodule candidates: compact pieces of soft tissue that lung surrounds on most sides.

Only isolated, solid, round ones of 8 mm and more are listed: what touches the chest wall broadly, what is flat, and
ground glass are not, so that a scan without a candidate may well have nodules.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...conditioning.region import grown, shrunk
from ...imaging.grid import Grid, to_grid, working_grid
from ...imaging.volume import Box, Volume
from .assess import known, unknown
from .fact import Evidence, Fact, Point
from .kinds import COARSE, CROPPED, LEFT, NO_LUNG, RIGHT, THIRDS
from .lungs import Lungs
from .scan import Scan

FINE_MM, COARSE_MM = 1.5, 3.1
"""Voxels are taken no more than the first apart where they lie closer; in slices thicker than the second nothing is
looked for."""
HULL_MM, SOFT_HU, SMOOTHING_MM = 12.0, -450, 1.5
"""Closing, density, smoothing: what a closing of the lungs by the first takes in is searched above the second."""
VESSEL_MM = 2.4
"""An opening by this radius takes vessels away."""
SIZE_MM = (8.0, 40.0)
SHELL_MM, AIR_HU, AIR_SHARE = 2.5, -600, 0.4
"""So much of what lies so near to a candidate is lung."""
COMPACT, LONG, FLAT = 0.85, 1.4, 1.7
"""Least volume over that of the ellipsoid with the same second moments; largest ratios of that ellipsoid's axes."""
RIM_MM, RIM_HU = 1.5, -600
"""The rim, a mixture with lung, belongs to a nodule, as readers outline it."""
SURE = 0.9
_MARGIN = 3


@dataclass(frozen=True)
class Candidate:
    """A compact piece of soft tissue in a lung.

    Attributes:
        inside: bool (k, j, i) of the part ``box`` of ``grid``.
        point: RAS mm of its middle.
        size: mm, diameter of a sphere of its volume.
        hu: mean.
    """

    inside: np.ndarray
    box: Box
    grid: Grid
    point: Point
    size: float
    hu: float


def find_candidates(scan: Scan, lungs: Lungs) -> list[Candidate]:
    """Candidates, the largest first."""
    from scipy import ndimage

    grid, hounsfield, lung = _fine(scan, lungs)
    spacing = grid.spacing[::-1]
    near = ndimage.find_objects(lung.view(np.uint8))
    if not near:
        return []
    box = near[0]
    hounsfield, lung = hounsfield[box], lung[box]
    smooth = ndimage.gaussian_filter(hounsfield, [SMOOTHING_MM / step / 2.355 for step in spacing])
    soft = smooth > SOFT_HU
    core = shrunk(soft & _hull(lung, spacing), VESSEL_MM, spacing)
    pieces, _ = ndimage.label(grown(core, VESSEL_MM, spacing) & soft)
    air = lung & (smooth < AIR_HU)
    found = []
    for number, part in enumerate(ndimage.find_objects(pieces), 1):
        wide = _widened(part)
        own = pieces[wide] == number
        if _is_round(own, spacing) and _in_air(own, air[wide], spacing):
            place = _shifted(wide, pieces.shape, box)
            found.append(_candidate(own, hounsfield[wide], place, grid))
    return sorted((one for one in found if SIZE_MM[0] <= one.size <= SIZE_MM[1]), key=lambda one: -one.size)


def _fine(scan: Scan, lungs: Lungs) -> tuple[Grid, np.ndarray, np.ndarray]:
    """Grid of fine voxels, their HU, and the lungs on them."""
    volume = scan.volume
    steps = [max(1, int(FINE_MM / step)) for step in volume.spacing]
    voxels = volume.voxels[:: steps[2], :: steps[1], :: steps[0]]
    fine = Volume(voxels, volume.ijk_to_ras @ np.diag([*steps, 1.0]))
    grid = working_grid(fine, None)
    coarse = Volume((lungs.inside > 0).astype(np.uint8), scan.grid.ijk_to_ras, "mask")
    return grid, to_grid(fine, grid), to_grid(coarse, grid, order=0, fill=0) > 0


def _hull(lung: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Lungs with what bulges into them: closed by a box."""
    from scipy import ndimage

    reach = [max(1, int(HULL_MM / step + 0.5)) for step in spacing]
    size = [2 * n + 1 for n in reach]
    padded = np.pad(lung, [(n, n) for n in reach]).view(np.uint8)
    closed = ndimage.minimum_filter(ndimage.maximum_filter(padded, size), size)
    return closed[tuple(slice(n, -n) for n in reach)] > 0


def _widened(part: Box) -> Box:
    k, j, i = (slice(max(s.start - _MARGIN, 0), s.stop + _MARGIN) for s in part)
    return k, j, i


def _shifted(part: Box, shape: tuple[int, ...], box: Box) -> Box:
    """A part of a box, in the whole."""
    k, j, i = (slice(s.start + b.start, min(s.stop, n) + b.start) for s, n, b in zip(part, shape, box, strict=True))
    return k, j, i


def _is_round(own: np.ndarray, spacing: tuple[float, ...]) -> bool:
    """Whether a piece of a fitting size fills an ellipsoid that is neither long nor flat."""
    volume = float(own.sum()) * float(np.prod(spacing))
    low, high = ((np.pi / 6) * edge**3 for edge in (0.7 * SIZE_MM[0], SIZE_MM[1]))
    if not low <= volume <= high:
        return False
    points = np.argwhere(own) * spacing
    moments = np.cov(points.T) + np.diag(np.square(spacing)) / 12
    axes = np.sqrt(np.linalg.eigvalsh(moments))[::-1]
    ellipsoid = 4 / 3 * np.pi * float(np.prod(np.sqrt(5) * axes))
    return bool(volume >= COMPACT * ellipsoid and axes[0] <= LONG * axes[1] and axes[1] <= FLAT * axes[2])


def _in_air(own: np.ndarray, air: np.ndarray, spacing: tuple[float, ...]) -> bool:
    """Whether lung surrounds a piece."""
    shell = grown(own, SHELL_MM, (spacing[0], spacing[1], spacing[2])) & ~own
    return float(air[shell].mean()) >= AIR_SHARE


def _candidate(own: np.ndarray, hounsfield: np.ndarray, place: Box, grid: Grid) -> Candidate:
    spacing = grid.spacing[::-1]
    inside = own | (grown(own, RIM_MM, spacing) & (hounsfield > RIM_HU))
    k, j, i = np.argwhere(inside).mean(0) + [s.start for s in place]
    r, a, s, _ = grid.ijk_to_ras @ [i, j, k, 1.0]
    size = (6 * float(inside.sum()) * float(np.prod(spacing)) / np.pi) ** (1 / 3)
    return Candidate(inside, place, grid, (float(r), float(a), float(s)), size, float(hounsfield[inside].mean()))


def nodules(scan: Scan, lungs: Lungs | None, found: list[Candidate]) -> list[Fact]:
    """A fact for each candidate; with none nothing is said, for some are overlooked.

    Args:
        found: see :func:`find_candidates`.
    """
    if lungs is None or not lungs.sides:
        return [unknown("nodule", NO_LUNG if scan.around else CROPPED)]
    if too_coarse(scan):
        return [unknown("nodule", COARSE)]
    facts = []
    for number, one in enumerate(found, 1):
        side, third = place_in_lungs(scan, lungs, one.point)
        evidence = Evidence(one.point, mask=f"nodule candidate {number}")
        facts.append(known("nodule", evidence, SURE, size=one.size, side=side, third=third, hu=one.hu))
    return facts


def too_coarse(scan: Scan) -> bool:
    """Whether slices are too thick to look for nodules."""
    return max(scan.volume.spacing) > COARSE_MM


def place_in_lungs(scan: Scan, lungs: Lungs, point: Point) -> tuple[str, str]:
    """Side of the lung nearest to a point, and the third of its height; "shown part" of one that is cut off."""
    i, j, k = (np.linalg.inv(scan.grid.ijk_to_ras) @ [*point, 1.0])[:3]
    voxels = np.argwhere(lungs.inside > 0)
    nearest = tuple(voxels[np.square((voxels - [k, j, i]) * scan.spacing).sum(1).argmin()])
    side = RIGHT if lungs.inside[nearest] == 1 else LEFT
    if lungs.cut:
        return side, THIRDS[3]
    low, high = lungs.heights(side)
    return side, THIRDS[int(np.clip(3 * (high + 0.5 - k) / (high - low + 1), 0, 2))]
