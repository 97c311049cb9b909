"""Lesions of two scans: measured, matched, and what became of each."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import InputError, reason_of
from ...imaging.volume import Volume
from ..anomaly.findings import place
from .registration import Registration

NEAR_MM = 10.0
"""Two lesions may be one if their middles lie no farther apart, or no farther than the mean of their diameters."""
MOST = 100
FEW_VOXELS = 30
"""Volumes of fewer voxels are not known to a quarter."""
_DESCRIBED = ("nodule candidate", "marked place")
"""Facts of a description that are places; the size is the diameter of a sphere of the same volume."""


@dataclass(frozen=True)
class Lesion:
    """One in one scan.

    Attributes:
        number: in its table, or by size in its mask.
        point: RAS mm in its own scan.
        volume: mm3, None where it is not known.
        diameter: longest one in an axial slice, mm, None where it is not known.
        voxels: that it was measured on, None where it comes from a table.
    """

    number: int
    point: tuple[float, float, float]
    volume: float | None
    diameter: float | None
    voxels: int | None = None

    @property
    def size(self) -> float:
        """Diameter of a sphere of the same volume, mm; that measured where there is no volume, else 0."""
        return self.diameter or 0.0 if self.volume is None else (6 * self.volume / math.pi) ** (1 / 3)


def marked(mask: np.ndarray, volume: Volume) -> list[Lesion]:
    """The connected pieces of a mask, the largest first.

    Args:
        mask: bool (k, j, i) on the volume's grid; axes to superior, posterior, left.
    """
    from scipy import ndimage

    pieces, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    boxes = ndimage.find_objects(pieces)
    found = []
    for number, piece in enumerate(np.argsort(-sizes, kind="stable")[:MOST], 1):
        own = pieces[boxes[piece]] == piece + 1
        k, j, i = np.argwhere(own).mean(0) + [part.start for part in boxes[piece]]
        r, a, s, _ = volume.ijk_to_ras @ [i, j, k, 1.0]
        size = int(sizes[piece])
        diameter = longest_diameter(own, volume.spacing)
        found.append(Lesion(number, (float(r), float(a), float(s)), size * volume.voxel_volume, diameter, size))
    return found


def longest_diameter(inside: np.ndarray, spacing: tuple[float, float, float]) -> float:
    """Longest distance within an axial slice, from edge to edge of the outermost voxels, mm.

    Args:
        inside: bool (k, j, i).
        spacing: (i, j, k) in mm.
    """
    from scipy.spatial.distance import pdist

    longest, pixel = 0.0, (spacing[0] + spacing[1]) / 2
    for plane in inside:
        rim = plane & ~(_shifted(plane, 0) & _shifted(plane, 1))
        points = np.argwhere(rim) * (spacing[1], spacing[0])
        if len(points):
            longest = max(longest, float(pdist(points).max(initial=0.0)) + pixel)
    return longest


def _shifted(plane: np.ndarray, axis: int) -> np.ndarray:
    """Where both neighbors along an axis are inside."""
    padded = np.pad(plane, 1)
    inner = slice(1, -1)
    if axis == 0:
        return np.asarray(padded[:-2, inner] & padded[2:, inner])
    return np.asarray(padded[inner, :-2] & padded[inner, 2:])


def listed(path: str) -> list[Lesion]:
    """Lesions of a table that anomaly, describe or another program wrote.

    Raises:
        InputError: no table with places.
    """
    remedy = "Give a .csv file with the columns r_mm, a_mm, s_mm, and volume_mm3 or diameter_mm where they are known."
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        rows = list(csv.DictReader(text.splitlines()))
    except OSError as problem:
        raise InputError(f"'{path}' cannot be read: {reason_of(problem)}.", remedy) from None
    except (UnicodeDecodeError, csv.Error):
        raise InputError(f"'{path}' is no table.", remedy) from None
    if rows and not {"r_mm", "a_mm", "s_mm"} <= rows[0].keys():
        raise InputError(f"'{path}' has no places.", remedy)
    if rows and "evidence" in rows[0]:
        rows = [row for row in rows if str(row["evidence"]).startswith(_DESCRIBED)]
    if len(rows) > MOST:
        raise InputError(f"'{path}' has {len(rows)} findings, more than {MOST}.", "Leave out those that are none.")
    try:
        return [_from_row(number, row) for number, row in enumerate(rows, 1)]
    except ValueError:
        raise InputError(f"'{path}' has a place or size that is no number.", remedy) from None


def _from_row(number: int, row: dict[str, Any]) -> Lesion:
    point = tuple(_number(row[name]) for name in ("r_mm", "a_mm", "s_mm"))
    volume, diameter = row.get("volume_mm3"), row.get("diameter_mm")
    if not volume and row.get("unit") == "mm":  # of a description
        volume = str(math.pi / 6 * _number(row["value"]) ** 3)
    own = row.get("number")
    return Lesion(
        int(own) if own else number,
        (point[0], point[1], point[2]),
        _number(volume) if volume else None,
        _number(diameter) if diameter else None,
    )


def _number(text: Any) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def matched(
    earlier: Sequence[Lesion], later: Sequence[Lesion], registration: Registration
) -> list[tuple[Lesion | None, Lesion | None]]:
    """Pairs of one lesion in both scans, with the least sum of distances; then those that have no other."""
    from scipy.optimize import linear_sum_assignment

    moved = [registration.later_point(np.array(lesion.point)) for lesion in earlier]
    apart = np.array([[float(np.linalg.norm(p - other.point)) for other in later] for p in moved])
    apart = apart.reshape(len(earlier), len(later))
    reach = np.array([[max(NEAR_MM, (one.size + other.size) / 2) for other in later] for one in earlier])
    far = 1e6
    rows, columns = linear_sum_assignment(np.where(apart <= reach.reshape(apart.shape), apart, far))
    pairs = {int(c): int(r) for r, c in zip(rows, columns, strict=True) if apart[r, c] <= reach[r, c]}
    found: list[tuple[Lesion | None, Lesion | None]] = [
        (earlier[pairs[n]] if n in pairs else None, lesion) for n, lesion in enumerate(later)
    ]
    return found + [(lesion, None) for n, lesion in enumerate(earlier) if n not in pairs.values()]


@dataclass(frozen=True)
class Rule:
    """When a lesion has grown.

    Attributes:
        growth: percent of volume.
        days: between the scans, None where they are not known.
    """

    growth: float
    days: int | None

    def state(self, earlier: Lesion, later: Lesion) -> str:
        """Of a lesion that both scans have: by volume, else by diameter, which grows by the third root of that."""
        factor = 1 + self.growth / 100
        if earlier.volume and later.volume:
            ratio = later.volume / earlier.volume
        elif earlier.diameter and later.diameter:
            ratio = (later.diameter / earlier.diameter) ** 3
        else:
            return "in both"
        return "grown" if ratio >= factor else "shrunk" if ratio <= 1 / factor else "stable"

    def doubling(self, earlier: Lesion, later: Lesion) -> float | None:
        """Days in which the volume doubles, of one that grew."""
        if not (self.days and earlier.volume and later.volume and later.volume > earlier.volume):
            return None
        return self.days * math.log(2) / math.log(later.volume / earlier.volume)


def rows_of(
    pairs: Sequence[tuple[Lesion | None, Lesion | None]],
    registration: Registration,
    scans: tuple[Volume, Volume],
    rule: Rule,
    organ: Any = lambda point: "",
) -> list[dict[str, Any]]:
    """A row for each lesion, see LESIONS of ``spec``; places are the later scan's.

    Args:
        scans: earlier and later.
        organ: gives the words for the organ at a later place.
    """
    rows = []
    for number, (earlier, later) in enumerate(pairs, 1):
        point = np.array(later.point) if later else registration.later_point(np.array(earlier.point))  # type: ignore[union-attr]
        row: dict[str, Any] = {"number": number, "state": "", "where": ""}
        for name, lesion in (("earlier", earlier), ("later", later)):
            row[f"{name}_mm3"] = _rounded(lesion.volume if lesion else None)
            row[f"{name}_diameter_mm"] = _rounded(lesion.diameter if lesion else None)
            row[f"{name}_number"] = lesion.number if lesion else None
        row["growth_percent"] = row["doubling_days"] = None
        if earlier and later:
            row["state"] = rule.state(earlier, later)
            if earlier.volume and later.volume:
                row["growth_percent"] = _rounded(100 * (later.volume / earlier.volume - 1))
            row["doubling_days"] = _rounded(rule.doubling(earlier, later), 0)
        elif later:
            seen = holds(scans[0], registration.earlier_point(point))
            row["state"] = "new" if seen else "not in the earlier field of view"
        else:
            row["state"] = "gone" if holds(scans[1], point) else "not in the later field of view"
        row |= {name: round(float(x), 1) for name, x in zip(("r_mm", "a_mm", "s_mm"), point, strict=True)}
        row["where"] = place(row, organ(point))
        rows.append(row)
    return rows


def holds(volume: Volume, point: np.ndarray) -> bool:
    """Whether a RAS place lies in a scan."""
    i, j, k, _ = np.linalg.inv(volume.ijk_to_ras) @ [*point, 1.0]
    return all(-0.5 <= x <= n - 0.5 for x, n in zip((k, j, i), volume.voxels.shape, strict=True))


def _rounded(value: float | None, digits: int = 1) -> float | None:
    return None if value is None else round(value, digits)
