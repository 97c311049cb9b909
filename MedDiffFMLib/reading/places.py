"""Places of pairs: balls in untouched tissue, or lesions that a mask marks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..imaging.volume import Volume, thinned

BORDER_MM = 8.0
"""Tissue around a ball, so that there is something to compare it with."""
LESION_MM = (4.0, 60.0)
"""Longest edge of the box of a lesion that can be asked about."""


def balls(volume: Volume, diameter: float, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Masks (k, j, i) of balls inside the body, in random order, none of which meets an earlier one.

    Args:
        diameter: mm.
    """
    from scipy.ndimage import distance_transform_edt

    from ..conditioning.region import body_mask

    coarse = thinned(volume)
    depth = distance_transform_edt(np.pad(body_mask(coarse.voxels), 1), sampling=coarse.spacing[::-1])[1:-1, 1:-1, 1:-1]
    rooms = np.argwhere(depth > diameter / 2 + BORDER_MM)
    centers: list[np.ndarray] = []
    for k, j, i in rng.permutation(rooms):
        center = (coarse.ijk_to_ras @ [i, j, k, 1.0])[:3]
        if all(np.linalg.norm(center - other) > 1.5 * diameter for other in centers):
            centers.append(center)
            yield ball(volume, center, diameter)


def ball(volume: Volume, center: np.ndarray, diameter: float) -> np.ndarray:
    """bool (k, j, i): voxels whose centers lie in a ball.

    Args:
        center: RAS, mm.
    """
    middle = (np.linalg.inv(volume.ijk_to_ras) @ [*center, 1.0])[:3]
    squares = [
        ((np.arange(size) - place) * step) ** 2
        for size, place, step in zip(volume.voxels.shape, middle[::-1], volume.spacing[::-1], strict=True)
    ]
    return squares[0][:, None, None] + squares[1][:, None] + squares[2] <= (diameter / 2) ** 2


def lesions(volume: Volume, marked: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Masks (k, j, i) of the marked lesions that are neither tiny nor huge, in random order."""
    from scipy.ndimage import find_objects, label

    numbered, _count = label(marked)
    boxes = find_objects(numbered)
    for number in rng.permutation(len(boxes)):
        edges = [
            (part.stop - part.start) * step for part, step in zip(boxes[number], volume.spacing[::-1], strict=True)
        ]
        if LESION_MM[0] <= max(edges) <= LESION_MM[1]:
            yield numbered == number + 1


def crop(volume: Volume, mask: np.ndarray, edge: float) -> tuple[slice, slice, slice]:
    """Box of about ``edge`` mm around the middle of a mask, inside the volume as far as that is large enough."""
    middle = np.argwhere(mask).mean(axis=0)
    parts = []
    for place, size, step in zip(middle, mask.shape, volume.spacing[::-1], strict=True):
        count = min(size, max(1, round(edge / step)))
        start = int(np.clip(round(place - count / 2), 0, size - count))
        parts.append(slice(start, start + count))
    return parts[0], parts[1], parts[2]
