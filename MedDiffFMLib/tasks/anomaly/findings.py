"""Regions of an anomaly map as rows of a table, those with several peaks taken apart."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...imaging.volume import Box, Volume
from .taken_apart import Voxels, take_apart

MAXIMUM_ROWS = 100
OUTLINE = 0.6
"""Share of a finding's peak above which it is outlined: at a low threshold a conspicuous lesion reaches far into what
surrounds it (Dice with 21 outlines in chests, abdomens and a head: 0.40 at half of the peak, 0.43 at 0.6)."""
SLAB_VOXELS = 2_000_000
"""Searched at a time: a panel stays usable in between."""
LISTED_VOXELS = 200_000
"""Of those above the threshold, looked at together: in between each takes dozens of bytes."""


@dataclass(frozen=True)
class Regions:
    """Regions that were found.

    Attributes:
        rows: one dict a region, highest peak first, see COLUMNS of ``spec``.
        numbered: (k, j, i) uint8 with the number of the region in each voxel, 0 in none.
        boxes: number of a region -> its index box (k, j, i).
        count: all regions that are large enough, listed or not.
    """

    rows: list[dict[str, Any]]
    numbered: np.ndarray
    boxes: dict[int, Box] = field(default_factory=dict)
    count: int = 0


def list_findings(
    score: np.ndarray,
    volume: Volume,
    threshold: float,
    minimum_volume: float,
    anatomy: np.ndarray | None = None,
    at_most: int = MAXIMUM_ROWS,
    apart: bool = True,
) -> list[dict[str, Any]]:
    """Regions above ``threshold``, 26-connected, highest peak first; of each what is above 0.6 of its peak.

    Args:
        score: (k, j, i) z-score on the volume's grid.
        minimum_volume: in mm3, above the threshold; smaller regions are left out.
        anatomy: (k, j, i) TotalSegmentator's label numbers, where they are known.
        at_most: regions that are listed, up to 100.
        apart: whether a region with several peaks is several (:mod:`.taken_apart`).

    Returns:
        One dict a region: ``number``, ``where`` (most frequent organ where it is known, and the centroid),
        ``volume_mm3``, ``peak_z``, ``mean_z``, ``r_mm``, ``a_mm``, ``s_mm`` (centroid in RAS), ``mean_hu``, and
        an empty ``reason``, which the task fills in.
    """
    return find_regions(score, volume, threshold, minimum_volume, anatomy, at_most, apart).rows


def find_regions(
    score: np.ndarray,
    volume: Volume,
    threshold: float,
    minimum_volume: float,
    anatomy: np.ndarray | None = None,
    at_most: int = MAXIMUM_ROWS,
    apart: bool = True,
) -> Regions:
    """As :func:`list_findings`, with the voxels of each region."""
    steps = search_regions(score, volume, threshold, minimum_volume, anatomy, at_most, apart)
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            return finished.value


def search_regions(
    score: np.ndarray,
    volume: Volume,
    threshold: float,
    minimum_volume: float,
    anatomy: np.ndarray | None = None,
    at_most: int = MAXIMUM_ROWS,
    apart: bool = True,
) -> Generator[None, None, Regions]:
    """As :func:`list_findings`, in steps of some hundredths of a second; the generator's value says all."""
    thickness = max(1, SLAB_VOXELS // max(score[0].size, 1))
    pieces = _Pieces(score.shape)
    for first in range(0, len(score), thickness):
        pieces.add(first, score[first : first + thickness], threshold)
        yield
    regions = pieces.regions()
    if apart:
        yield from take_apart(regions, score, volume.spacing[::-1])
    size, peak = _sizes_and_peaks(regions, score)
    large = [n for n in np.argsort(-peak, kind="stable") if size[n] * volume.voxel_volume >= minimum_volume]
    kept = large[: min(at_most, MAXIMUM_ROWS)]
    number = np.zeros(len(peak), dtype=np.uint8)
    number[kept] = np.arange(1, len(kept) + 1)
    numbered = np.zeros(score.shape, dtype=np.uint8)
    found = _Sums(len(kept))
    for index, region in regions:
        listed = number[region] > 0
        index, region = index[listed], region[listed]
        voxels = np.unravel_index(index, score.shape)
        inside = score[voxels] > OUTLINE * peak[region]
        own = number[region[inside]]
        numbered.reshape(-1)[index[inside]] = own
        found.add(tuple(axis[inside] for axis in voxels), own, score, volume.voxels, anatomy)
        yield
    rows = [found.row(row, float(peak[n]), volume) for row, n in enumerate(kept, start=1)]
    return Regions(rows, numbered, found.boxes(), len(large))


def _sizes_and_peaks(regions: list[Voxels], score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Voxels and highest score of each region."""
    count = max((int(region.max(initial=-1)) + 1 for _, region in regions), default=0)
    sizes, peaks = np.zeros(count, dtype=int), np.full(count, -np.inf)
    for index, region in regions:
        sizes += np.bincount(region, minlength=count)
        np.maximum.at(peaks, region, score.reshape(-1)[index].astype(float))
    return sizes, peaks


class _Sums:
    """Sums over the voxels of each listed region."""

    def __init__(self, count: int) -> None:
        self._sums = {name: np.zeros(count + 1) for name in ("size", "i", "j", "k", "score", "hu")}
        self._organs = np.zeros((count + 1, 256), dtype=int)
        self._corners = np.full((count + 1, 3), np.iinfo(int).max), np.zeros((count + 1, 3), dtype=int)

    def add(
        self,
        voxels: tuple[np.ndarray, ...],
        number: np.ndarray,
        score: np.ndarray,
        hounsfield: np.ndarray,
        anatomy: np.ndarray | None,
    ) -> None:
        """Voxels (k, j, i), and the number of the region that each lies in."""
        k, j, i = voxels
        found = {"size": None, "k": k, "j": j, "i": i, "score": score[voxels], "hu": hounsfield[voxels]}
        for name, values in found.items():
            self._sums[name] += np.bincount(number, values, minlength=len(self._organs))
        first, last = self._corners
        np.minimum.at(first, number, np.stack(voxels, axis=1))
        np.maximum.at(last, number, np.stack(voxels, axis=1) + 1)
        if anatomy is not None:
            np.add.at(self._organs, (number, anatomy[voxels].astype(np.uint8)), 1)

    def boxes(self) -> dict[int, Box]:
        """Index box of what is outlined of each region."""
        corners = zip(*(corner.tolist() for corner in self._corners), strict=True)
        found = {n: tuple(map(slice, first, last)) for n, (first, last) in enumerate(corners)}
        return {n: (k, j, i) for n, (k, j, i) in found.items() if k.start < k.stop}

    def row(self, number: int, peak: float, volume: Volume) -> dict[str, Any]:
        """What the table says of a region."""
        size = self._sums["size"][number]
        mean = {name: self._sums[name][number] / max(size, 1) for name in ("i", "j", "k", "score", "hu")}
        r, a, s = (volume.ijk_to_ras @ [mean["i"], mean["j"], mean["k"], 1.0])[:3]
        row = {
            "number": number,
            "where": "",
            "volume_mm3": round(float(size * volume.voxel_volume), 1),
            "peak_z": round(peak, 2),
            "mean_z": round(float(mean["score"]), 2),
            "r_mm": round(float(r), 1),
            "a_mm": round(float(a), 1),
            "s_mm": round(float(s), 1),
            "mean_hu": round(float(mean["hu"]), 1),
            "reason": "",
        }
        return row | {"where": place(row, most_frequent(self._organs[number]))}


class _Pieces:
    """Parts of regions, slab by slab, and which of them touch."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._voxels: list[Voxels] = []  # a slab's flat indices in the volume, and the piece that each lies in
        self._shape = shape
        self._count = 0
        self._touching: list[np.ndarray] = []
        self._above: np.ndarray | None = None  # pieces in the last plane before this slab, -1 where there is none

    def add(self, first: int, score: np.ndarray, threshold: float) -> None:
        """The next slab, which begins with plane ``first``."""
        from scipy import ndimage

        above = score > threshold
        planes = np.full((2, *self._shape[1:]), -1)
        if above.any():
            rows, columns = _range(above.any(axis=(0, 2))), _range(above.any(axis=(0, 1)))
            labels, count = ndimage.label(above[:, rows, columns], structure=np.ones((3, 3, 3)))
            planes[:, rows, columns] = labels[[0, -1]] - 1 + np.where(labels[[0, -1]] > 0, self._count, 0)
            self._keep(labels, count, (first, rows.start, columns.start))
        if self._above is not None:
            self._touching.append(_touching(self._above, planes[0]))
        self._above = planes[1]

    def _keep(self, labels: np.ndarray, count: int, corner: tuple[int, int, int]) -> None:
        inside = np.nonzero(labels)
        voxels = tuple(axis + begin for axis, begin in zip(inside, corner, strict=True))
        small = np.int32 if np.prod(self._shape) < 2**31 else np.int64
        index = np.ravel_multi_index(voxels, self._shape).astype(small)
        self._voxels.append((index, labels[inside] - np.int32(1 - self._count)))
        self._count += count

    def regions(self) -> list[Voxels]:
        """The voxels with numbers of regions, some at a time; the pieces are forgotten."""
        joined = self._joined()
        found: list[Voxels] = []
        while self._voxels:
            index, piece = self._voxels.pop(0)
            starts = range(0, len(index), LISTED_VOXELS)
            found += [(index[n : n + LISTED_VOXELS], joined[piece[n : n + LISTED_VOXELS]]) for n in starts]
        return found

    def _joined(self) -> np.ndarray:
        """Number from 0 of the region that each piece belongs to."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        if not self._count:
            return np.zeros(0, dtype=np.int32)
        pairs = np.concatenate([np.zeros((0, 2), dtype=int), *self._touching])
        links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(self._count, self._count))
        return connected_components(links, directed=False)[1].astype(np.int32)


def _range(hits: Any) -> slice:
    where = np.flatnonzero(hits)
    return slice(int(where[0]), int(where[-1]) + 1)


def _touching(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Pairs (n, 2) of pieces in neighboring planes that touch by face, edge or corner."""
    hits = upper >= 0
    if not hits.any():
        return np.zeros((0, 2), dtype=int)
    rows, columns = _range(hits.any(axis=1)), _range(hits.any(axis=0))
    padded = np.pad(lower, 1, constant_values=-1)[rows.start : rows.stop + 2, columns.start : columns.stop + 2]
    upper = upper[rows, columns]
    height, width = upper.shape
    pairs = []
    for dj in range(3):
        for di in range(3):
            below = padded[dj : dj + height, di : di + width]
            both = (below >= 0) & (upper >= 0)
            pairs.append(np.stack([below[both], upper[both]], axis=1))
    return np.unique(np.concatenate(pairs), axis=0)


def most_frequent(counts: np.ndarray) -> str:
    """The organ that most of a region's voxels lie in, in words; empty where that is none or the body's rest.

    Args:
        counts: voxels for each of TotalSegmentator's label numbers.
    """
    from ...conditioning.totalsegmentator_labels import ORGANS, organ_words

    named = int(counts[1 : len(ORGANS)].sum())  # without what lies in no organ, and without the body's rest
    if 2 * named <= counts.sum():
        return ""
    return organ_words(ORGANS[int(counts[1 : len(ORGANS)].argmax())])


def place(row: dict[str, Any], organ: str = "") -> str:
    """Place of a finding, as a radiologist reads it: right lung upper lobe, R 43 P 12 S 133 (mm)."""
    letters = (("R", "L", "r_mm"), ("A", "P", "a_mm"), ("S", "I", "s_mm"))
    point = " ".join(f"{plus if row[name] >= 0 else minus} {abs(row[name]):.0f}" for plus, minus, name in letters)
    return f"{organ}, {point}" if organ else point
