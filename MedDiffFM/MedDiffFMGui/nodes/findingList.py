"""Findings as a radiologist reads them: order, slice, place in words, and what was decided about each."""

import json
import math
from types import SimpleNamespace

from .volumeNodes import slabs, volumeFromNode

KEPT, DISMISSED = "kept", "dismissed"
DECISIONS_ATTRIBUTE = "MedDiffFM.Decisions"
SAME_MM = (2.0, 10.0)
"""A finding whose center lies within its own radius of an earlier one's, but in these limits, is that one, at another
threshold."""
DEPTHS = ("posterior", "central", "anterior")
MIDLINE = 1 / 16
"""Share of the body's width within which a place is in the middle, about 2 cm to each side in an adult's chest."""
TISSUE_HU, TISSUE_VOXELS = -200, 100_000
"""What counts as body, and about how many voxels are looked at to see where it lies."""


def readingOrder(regions, image):
    """The regions with those that touch the scan's border last, numbered anew; a generator of short steps.

    Artifacts lie there: the model sees half of what surrounds such a place.

    :param regions: ``MedDiffFMLib.tasks.anomaly.findings.Regions``.
    :param image: volume node on whose grid the regions lie.
    :return: rows with ``border``, ``slice`` and ``place`` besides the library's columns; numbered and boxes to match.
    """
    import numpy as np

    shape = regions.numbered.shape
    touching = {
        number: any(part.start <= 0 or part.stop >= size for part, size in zip(box, shape, strict=True))
        for number, box in regions.boxes.items()
    }
    rows = sorted(regions.rows, key=lambda row: touching[row["number"]])
    table = np.zeros(256, np.uint8)
    for place, row in enumerate(rows, start=1):
        table[row["number"]] = place
    numbered = np.empty_like(regions.numbered)
    for slab in slabs(numbered):
        numbered[slab] = table[regions.numbered[slab]]
        yield
    find = SlicePlace(image)
    rows = [
        {
            **row,
            "number": int(table[row["number"]]),
            "border": touching[row["number"]],
            "slice": find.slice(row),
            "place": find.words(row),
        }
        for row in rows
    ]
    boxes = {int(table[number]): box for number, box in regions.boxes.items()}
    return SimpleNamespace(rows=rows, numbered=numbered, boxes=boxes)


class SlicePlace:
    """Where points of a volume lie, in the words of who scrolls through it.

    :param image: volume node.
    """

    def __init__(self, image):
        import numpy as np

        volume = volumeFromNode(image)
        self._toIJK = np.linalg.inv(volume.ijk_to_ras)
        self._size = np.array(volume.voxels.shape[::-1])
        directions = volume.ijk_to_ras[:3, :3] / np.linalg.norm(volume.ijk_to_ras[:3, :3], axis=0)
        self._axis = int(np.argmax(np.abs(directions[2])))  # the one along the body
        self._volume, self._extent = volume, None

    @property
    def count(self):
        """Number of slices along the body."""
        return int(self._size[self._axis])

    def slice(self, row):
        """Number of the slice through a finding's center, from 1."""
        index = self._toIJK @ [row["r_mm"], row["a_mm"], row["s_mm"], 1.0]
        return int(min(max(round(float(index[self._axis])), 0), self.count - 1)) + 1

    def words(self, row):
        """The organ where it is known, else the part of the body, such as "left posterior"."""
        organ, comma, _point = row["where"].rpartition(", ")
        if comma:
            return organ
        low, high = self._body()
        across, depth = ((row[name] - low[n]) / max(high[n] - low[n], 1e-6) for n, name in enumerate(("r_mm", "a_mm")))
        side = "middle" if abs(across - 0.5) <= MIDLINE else "right" if across > 0.5 else "left"
        return f"{side} {DEPTHS[min(max(int(3 * depth), 0), 2)]}"

    def _body(self):
        """(low, high) ends of the body, RAS mm: of its tissue but for the outermost 2 %, where a table may lie."""
        import numpy as np

        if self._extent is None:
            voxels, toRAS = self._volume.voxels, self._volume.ijk_to_ras
            step = max(1, round((voxels.size / TISSUE_VOXELS) ** (1 / 3)))
            coarse = voxels[::step, ::step, ::step]
            found = np.argwhere(coarse > TISSUE_HU)
            found = found if len(found) else np.argwhere(np.ones(coarse.shape, bool))
            places = step * found[:, ::-1] @ toRAS[:3, :3].T + toRAS[:3, 3]
            self._extent = np.percentile(places, (2, 98), axis=0)
        return self._extent


def nearest(entries, row):
    """The entry of the same finding, perhaps found at another threshold; None where there is none.

    :param entries: dicts with ``r_mm``, ``a_mm``, ``s_mm``.
    :param row: dict of the finding.
    """

    def away(entry):
        return sum((entry[name] - row[name]) ** 2 for name in ("r_mm", "a_mm", "s_mm")) ** 0.5

    near = min(entries, key=away, default=None)
    radius = (0.75 * row["volume_mm3"] / math.pi) ** (1 / 3)
    return near if near is not None and away(near) <= min(max(radius, SAME_MM[0]), SAME_MM[1]) else None


class Decisions:
    """What the user decided about findings, and wrote; kept with the table by place, so that it outlives thresholds.

    :param table: vtkMRMLTableNode.
    """

    def __init__(self, table):
        self._table = table

    def of(self, row):
        """(state, comment) of a finding; empty texts where nothing was decided."""
        entry = nearest(self._entries(), row)
        return (entry["state"], entry["comment"]) if entry else ("", "")

    def put(self, row, state=None, comment=None):
        """Decide; None leaves that part as it is.

        :param row: dict of the finding.
        """
        entries = self._entries()
        entry = nearest(entries, row)
        if entry is None:
            entry = {name: row[name] for name in ("r_mm", "a_mm", "s_mm")} | {"state": "", "comment": ""}
            entries.append(entry)
        entry["state"] = entry["state"] if state is None else state
        entry["comment"] = entry["comment"] if comment is None else comment
        self.text = json.dumps([one for one in entries if one["state"] or one["comment"]])

    @property
    def text(self):
        """All decisions as text, for undo."""
        return self._table.GetAttribute(DECISIONS_ATTRIBUTE) or "[]"

    @text.setter
    def text(self, value):
        self._table.SetAttribute(DECISIONS_ATTRIBUTE, value)

    def _entries(self):
        try:
            return list(json.loads(self.text))
        except ValueError:  # a scene that was edited by hand
            return []
