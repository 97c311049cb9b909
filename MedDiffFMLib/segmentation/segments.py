"""Separate segments, as Slicer keeps them, to the one label map that training reads."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..errors import InputError

SAME_SHARE = 0.9
"""Segments that share more of the smaller and of the larger one are taken for the same structure twice."""


def merge_segments(segments: Mapping[str, np.ndarray], names: Mapping[str, int]) -> tuple[np.ndarray, list[str]]:
    """Masks (k, j, i) by name -> label map, uint16, and what the user should know.

    Where segments overlap the smaller one wins, so that a tumour inside a liver stays a tumour.

    Args:
        names: label number of each segment; numbers are at least 1 and differ.

    Raises:
        InputError: no segment, an empty one, two of different size or of the same voxels, or a number that is taken.
    """
    if not segments:
        raise InputError("There is no segment to learn.", "Outline at least one structure.")
    masks = {name: np.asarray(mask) > 0 for name, mask in segments.items()}
    shapes = {mask.shape for mask in masks.values()}
    if len(shapes) > 1:
        raise InputError("The segments lie on different grids.", "Export them with the CT as reference volume.")
    numbers = [names[name] for name in masks]
    if min(numbers) < 1 or len(set(numbers)) < len(numbers):
        raise InputError(f"The segments' numbers {numbers} are not usable.", "Give each its own, from 1 on.")
    sizes = {name: int(mask.sum()) for name, mask in masks.items()}
    empty = [name for name, size in sizes.items() if size == 0]
    if empty:
        raise InputError(f"The segment {empty[0]!r} is empty.", "Outline it in this scan, or leave it out here.")
    merged, warnings = np.zeros(shapes.pop(), np.uint16), []
    for name in sorted(masks, key=lambda name: -sizes[name]):
        for other, below in masks.items():
            shared = int((masks[name] & below & (merged == names[other])).sum())
            if other == name or not shared:
                continue
            if shared > SAME_SHARE * max(sizes[name], sizes[other]):
                raise InputError(f"The segments {other!r} and {name!r} mark the same voxels.", "Leave one of them out.")
            both = f"{shared} voxels are in {other!r} and in {name!r}"
            warnings.append(f"{both}; they count as {name!r}, the smaller one.")
        merged[masks[name]] = names[name]
    return merged, warnings
