"""Merging of separate segments, as in Slicer, into one label map."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..core.errors import InputError

SAME_SHARE = 0.9
"""Segments that share more of the smaller and of the larger one are taken for the same structure twice."""


def merge_segments(segments: Mapping[str, np.ndarray], names: Mapping[str, int]) -> tuple[np.ndarray, list[str]]:
    """Masks (k, j, i) by name -> label map, uint16, and what the user should know.

    Where segments overlap the smaller one wins, so that a tumor inside a liver stays a tumor.

    Args:
        segments: each is asked for twice and not kept, so a mapping may make them when asked: a hundred organs of a
            whole body do not fit into memory together.
        names: label number of each segment; numbers are at least 1 and differ.

    Raises:
        InputError: no segment, an empty one, two of different size or of the same voxels, or a number that is taken.
    """
    if not segments:
        raise InputError("There is no segment to learn.", "Outline at least one structure.")
    numbers = [names[name] for name in segments]
    if min(numbers) < 1 or len(set(numbers)) < len(numbers):
        raise InputError(f"The segments' numbers {numbers} are not usable.", "Give each its own, from 1 on.")
    sizes, shapes = {}, set()
    for name, segment in segments.items():
        sizes[name] = int(np.count_nonzero(np.asarray(segment) > 0))
        shapes.add(np.shape(segment))
    if len(shapes) > 1:
        raise InputError("The segments lie on different grids.", "Export them with the CT as reference volume.")
    empty = [name for name, size in sizes.items() if size == 0]
    if empty:
        raise InputError(f"The segment {empty[0]!r} is empty.", "Outline it in this scan, or leave it out here.")
    merged, warnings = np.zeros(shapes.pop(), np.uint16), []
    name_of = {names[name]: name for name in segments}
    for name in sorted(segments, key=lambda name: -sizes[name]):
        inside = np.asarray(segments[name]) > 0
        taken, counts = np.unique(merged[inside], return_counts=True)
        for number, shared in zip(taken.tolist(), counts.tolist(), strict=True):
            if number == 0:
                continue
            other = name_of[number]
            if shared > SAME_SHARE * max(sizes[name], sizes[other]):
                raise InputError(f"The segments {other!r} and {name!r} mark the same voxels.", "Leave one of them out.")
            both = f"{shared} voxels are in {other!r} and in {name!r}"
            warnings.append(f"{both}; they count as {name!r}, the smaller one.")
        merged[inside] = names[name]
    return merged, warnings
