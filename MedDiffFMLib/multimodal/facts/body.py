"""Outline of the body: size, symmetry, where the scan cuts it off."""

from __future__ import annotations

import numpy as np

from .assess import known, unknown
from .fact import AXIAL, Evidence, Fact
from .kinds import CROPPED, CUTS, ENDS, HOLDS, TOO_LITTLE
from .scan import Scan

CUT_SHARE = 0.3
"""Part of the largest cross-section that the body has in an end slice in which it is cut off."""
TOUCHING = 0.02
"""A body whose outline runs along a side of the field of view for more of its length goes on beyond it."""


def body(scan: Scan) -> list[Fact]:
    """Height, width, depth, cross-section, symmetry and the ends at which the body goes on."""
    if not scan.enough:
        return [unknown("body_width", TOO_LITTLE)]
    facts = [_height(scan), *_ends(scan)]
    facts.append(known("body_volume", scan.whole(), volume=float(scan.body.sum()) * scan.voxel_ml / 1000))
    inside = not scan.around
    facts.append(known("cropped", scan.whole(), sides=CUTS if inside or _touches(scan.body) else HOLDS))
    if inside:
        return [*facts, unknown("body_width", CROPPED)]
    return [*facts, *_sizes(scan), *_symmetry(scan)]


def _height(scan: Scan) -> Fact:
    shown = np.flatnonzero(scan.body.any((1, 2)))
    k, (j, i) = shown[[0, -1]], (np.array(scan.hounsfield.shape[1:]) - 1) / 2
    planes = tuple(scan.ras(np.array([end, j, i]))[2] for end in k)
    evidence = Evidence(scan.center, plane=AXIAL, planes=planes)
    return known("height", evidence, height=(np.ptp(shown) + 1) * scan.spacing[0])


def _ends(scan: Scan) -> list[Fact]:
    """Ends of the scan that cut the body; nothing where it ends before the scan does."""
    area = scan.body.sum((1, 2))
    cut = [end for end in (0, len(area) - 1) if area[end] > CUT_SHARE * area.max()]
    if not cut:
        return []
    lower, upper, both = ENDS
    j, i = (np.array(scan.hounsfield.shape[1:]) - 1) / 2
    points = [scan.ras(np.array([end, j, i])) for end in cut]
    evidence = Evidence(points[0], plane=AXIAL, planes=tuple(point[2] for point in points))
    return [known("ends", evidence, ends=both if len(cut) == 2 else lower if cut[0] == 0 else upper)]


def _touches(mask: np.ndarray) -> bool:
    """Whether a mask (..., j, i) runs along a side of the slices."""
    sides = [mask[..., 0, :], mask[..., -1, :], mask[..., 0], mask[..., -1]]
    return any(float(side.mean()) > TOUCHING for side in sides)


def _sizes(scan: Scan) -> list[Fact]:
    """Largest width, depth and cross-section of a slice; none of a slice that the field of view cuts."""
    _, j, i = scan.spacing
    widths, depths = (_extents(np.asarray(scan.body.any(axis))) for axis in (1, 2))
    found = []
    for kind, slot, lengths in (
        ("body_width", "width", widths * i),
        ("body_depth", "depth", depths * j),
        ("body_area", "area", scan.body.sum((1, 2)) * j * i / 100),
    ):
        k = int(lengths.argmax())
        if _touches(scan.body[k]):
            found.append(unknown(kind, CROPPED))
            continue
        center = np.argwhere(scan.body[k]).mean(0)
        evidence = Evidence(scan.ras(np.array([k, *center])), plane=AXIAL)
        found.append(known(kind, evidence, **{slot: float(lengths[k])}))
    return found


def _extents(lines: np.ndarray) -> np.ndarray:
    """Number of voxels from the first to the last hit of each row of a bool array (k, n)."""
    last = lines.shape[1] - lines[:, ::-1].argmax(1)
    return np.where(lines.any(1), last - lines.argmax(1), 0)


def _symmetry(scan: Scan) -> list[Fact]:
    """Dice of the outline and its mirror image, slice by slice around its own middle."""
    if _touches(scan.body):
        return [unknown("symmetry", CROPPED)]
    both = total = 0
    for plane in scan.body:
        columns = np.flatnonzero(plane.any(0))
        if columns.size:
            part = plane[:, columns[0] : columns[-1] + 1]
            both += int((part & part[:, ::-1]).sum())
            total += int(part.sum())
    return [known("symmetry", scan.whole(), share=100 * both / max(total, 1))]
