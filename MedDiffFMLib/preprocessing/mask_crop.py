"""Cropping of a CT to the neighborhood of a mask."""

from __future__ import annotations

import numpy as np

from ..imaging.volume import Box, Volume

WINDOW = 64
"""Voxels along each edge of the neighborhood of a small mask: as many as training windows had."""


def around_mask(mask: np.ndarray) -> Box:
    """The box of a mask (k, j, i) and a voxel around it, as far as there is one."""
    edges = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    k, j, i = (slice(max(int(e[0]) - 1, 0), int(e[-1]) + 2) for e in edges)
    return k, j, i


def neighborhood(
    mask: np.ndarray, volume: Volume, spacing: float | None, window: int, context: int | np.ndarray = 16
) -> tuple[np.ndarray, np.ndarray]:
    """Input index box (i, j, k) around the mask: one window if it fits with ``context`` voxels on each side."""
    first, last = _ends(mask)
    size = np.array(volume.spacing)
    extent = (last - first + 1) * size
    voxel = size if spacing is None else np.full(3, spacing)
    edges_mm = np.maximum(extent + 2 * context * voxel, (min(window, WINDOW) - 1) * voxel)
    grow = (edges_mm - extent) / 2 / size
    limit = np.array(volume.voxels.shape[::-1]) - 1
    # A box that the volume's edge cuts short is moved inwards, so that the model sees as much tissue as it can.
    low, high = first - grow, last + grow
    shift = np.maximum(-low, 0) - np.maximum(high - limit, 0)
    return np.clip(low + shift, 0, limit), np.clip(high + shift, 0, limit)


def room_beside(mask: np.ndarray, volume: Volume, spacing: float | None, beyond: int, most: int) -> np.ndarray:
    """Context (i, j, k) for :func:`neighborhood` in which the mask has room once more on each side.

    Args:
        beyond: voxels of context besides; ``most`` of it altogether.
    """
    first, last = _ends(mask)
    size = np.array(volume.spacing)
    voxels = (last - first + 1) * size / (size if spacing is None else spacing)
    return np.minimum(np.ceil(voxels).astype(int) + beyond, most)


def _ends(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last index (i, j, k) of a mask."""
    box = around_mask(mask)
    index = np.argwhere(mask[box])[:, ::-1] + [edge.start for edge in reversed(box)]
    return index.min(0), index.max(0)


def crop(volume: Volume, box: Box) -> Volume:
    """The piece of a volume in an index box (k, j, i), with a coarse copy of the whole."""
    from ..imaging.volume import Volume as Piece
    from ..imaging.volume import thinned

    shift = np.eye(4)
    shift[:3, 3] = [part.start for part in reversed(box)]
    whole = thinned(volume)
    return Piece(
        np.ascontiguousarray(volume.voxels[box]),
        volume.ijk_to_ras @ shift,
        volume.modality,
        volume.notes,
        volume.synthetic,
        whole=Piece(np.ascontiguousarray(whole.voxels), whole.ijk_to_ras, whole.modality),
    )


def piece_around(mask: np.ndarray, volume: Volume, context: int | np.ndarray) -> Box:
    """Index box (k, j, i) of the neighborhood of a mask with ``context`` voxels on each side."""
    low, high = neighborhood(mask, volume, None, WINDOW, context)
    first, last = np.floor(low).astype(int), np.ceil(high).astype(int)
    i, j, k = (slice(int(a), int(b) + 1) for a, b in zip(first, last, strict=True))
    return k, j, i
