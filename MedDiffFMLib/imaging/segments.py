"""Segments in a label map, and the choice of one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core.errors import InputError

_MOST_LAYERED = 62  # bits of an integer
_SHOWN = 8


@dataclass(frozen=True)
class Segment:
    """One structure of a segmentation.

    Attributes:
        name: as the user gave it.
        value: its number in the file; in several layers more than one segment may have the same.
        numbers: in the voxels; several where segments overlap, see :func:`flattened`.
    """

    name: str
    value: int
    numbers: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.value} ({self.name})" if self.name else str(self.value)


def flattened(layers: np.ndarray, found: Sequence[tuple[str, int, int]]) -> tuple[np.ndarray, tuple[Segment, ...]]:
    """Layers of a segmentation, as 3D Slicer stores segments that overlap, as one label map that loses nothing.

    Args:
        layers: (k, j, i, layer).
        found: name, value and layer of each segment.

    Returns:
        Labels (k, j, i), uint16: n for the n-th segment alone, further numbers where segments overlap; and the
        segments with all the numbers that are theirs.

    Raises:
        ValueError: too many segments, or a layer that is not there.
    """
    if len(found) > _MOST_LAYERED:
        raise ValueError(f"more than {_MOST_LAYERED} segments in several layers")
    codes = np.zeros(layers.shape[:3], np.int64)
    for place, (_, value, layer) in enumerate(found):
        if not 0 <= layer < layers.shape[3]:
            raise ValueError("a segment in a layer that is not there")
        codes |= (layers[..., layer] == value).astype(np.int64) << place
    different, index = np.unique(codes, return_inverse=True)
    alone = {1 << place: place + 1 for place in range(len(found))}
    further = iter(range(len(found) + 1, len(found) + 1 + len(different)))
    number_of = {int(code): 0 if code == 0 else alone.get(int(code)) or next(further) for code in different}
    voxels = np.array([number_of[int(code)] for code in different], np.uint16)[index].reshape(codes.shape)
    return voxels, tuple(
        Segment(name, value, tuple(number for code, number in number_of.items() if code >> place & 1))
        for place, (name, value, _) in enumerate(found)
    )


def chosen(voxels: np.ndarray, segments: Sequence[Segment], wanted: str) -> np.ndarray:
    """Mask of a segment, as a uint8 array.

    Args:
        segments: as far as the file names them.
        wanted: name or number of a segment.

    Raises:
        InputError: there is none, or more than one.
    """
    known = labels_in(voxels, segments)
    by_name = [segment for segment in known if segment.name and segment.name.casefold() == wanted.casefold()]
    fitting = by_name or [segment for segment in known if str(segment.value) == wanted.strip()]
    if len(fitting) != 1:
        words = "no label" if not fitting else f"{len(fitting)} labels"
        raise InputError(f"The mask has {words} {wanted!r:.80}.", f"It holds {listed(known)}.")
    return np.isin(voxels, fitting[0].numbers).astype(np.uint8)


def labels_in(voxels: np.ndarray, segments: Sequence[Segment]) -> list[Segment]:
    """The segments of a label map that have voxels, in order of their numbers; those that the file names and others.

    An image that is no label map, as one of probabilities, has none.
    """
    if voxels.dtype.kind == "b":
        return [Segment("", 1, (1,))]
    if voxels.dtype.kind == "f" and not np.array_equal(voxels, np.rint(voxels)):
        return []
    present = {int(number) for number in _distinct(voxels) if number > 0}
    named = [segment for segment in segments if present.intersection(segment.numbers)]
    others = present.difference(*(segment.numbers for segment in named))
    return [*named, *(Segment("", number, (number,)) for number in sorted(others))]


def listed(segments: Sequence[Segment]) -> str:
    """Numbers and names for a sentence."""
    if not segments:
        return "no labels"
    more = f" and {len(segments) - _SHOWN} more" if len(segments) > _SHOWN else ""
    return ", ".join(str(segment) for segment in segments[:_SHOWN]) + more


def _distinct(voxels: np.ndarray) -> np.ndarray:
    """Different values; without sorting all voxels where they are small numbers."""
    if voxels.dtype.kind == "u" and voxels.dtype.itemsize <= 2:
        return np.flatnonzero(np.bincount(voxels.ravel()))
    return np.unique(voxels)
