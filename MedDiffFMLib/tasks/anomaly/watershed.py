"""Watershed of a map from markers, by hill climbing; with NumPy alone, since Slicer's Python has no scikit-image."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

OFFSETS = [offset for offset in product((-1, 0, 1), repeat=3) if offset > (0, 0, 0)]
"""One of each two opposite neighbors."""
Side = tuple[slice, slice, slice]


def basins(score: np.ndarray, inside: np.ndarray, markers: np.ndarray) -> np.ndarray:
    """(k, j, i) int32: number of the marker whose basin each voxel lies in, 0 outside and where no marker is reached.

    Each voxel climbs to its highest neighbor until there is none. Summits without a marker join the neighbor that the
    highest pass leads to, highest passes first.

    Args:
        score: (k, j, i); inside: bool.
        markers: int32, numbers from 1 at single voxels, 0 elsewhere.
    """
    summits, hill = np.unique(_summit_of_each(score, inside), return_inverse=True)
    hill = hill.reshape(score.shape).astype(np.int32)
    number = np.zeros(len(summits), np.int32)
    for place in np.argwhere((markers > 0) & inside):
        number[hill[tuple(place)]] = markers[tuple(place)]
    root = np.arange(len(summits))

    def top(n: int) -> int:
        while root[n] != n:
            root[n] = root[root[n]]
            n = int(root[n])
        return n

    for one, other in _passes(score, inside, hill):
        a, b = top(one), top(other)
        if a != b and not (number[a] and number[b]):
            root[a] = b
            number[b] = max(number[a], number[b])
    tops = np.array([top(n) for n in range(len(summits))])
    return np.where(inside, number[tops][hill], 0).astype(np.int32)


def _summit_of_each(score: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Flat index of the summit above each voxel; of voxels as high, that of the larger index is the higher."""
    own = np.where(inside, score, -np.inf).astype(np.float32, copy=False)
    index = np.arange(own.size, dtype=np.int32).reshape(own.shape)  # of a region's box, with voxels of some 3 mm
    height, highest = own.copy(), index.copy()
    for here, there in _neighbors(own.shape):
        for a, b in ((here, there), (there, here)):
            better = (own[b] > height[a]) | ((own[b] == height[a]) & (index[b] > highest[a]))
            better &= inside[a] & inside[b]
            height[a][better], highest[a][better] = own[b][better], index[b][better]
    above = highest.reshape(-1)
    while not np.array_equal(higher := above[above], above):
        above = higher
    return above


def _passes(score: np.ndarray, inside: np.ndarray, hill: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs of hills that touch, by the height of the highest pass between them, falling."""
    pairs, heights = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    for here, there in _neighbors(score.shape):
        touching = (hill[here] != hill[there]) & inside[here] & inside[there]
        one, other = hill[here][touching], hill[there][touching]
        pair = np.minimum(one, other).astype(np.int64) << 32 | np.maximum(one, other)
        pair, height = _highest(pair, np.minimum(score[here][touching], score[there][touching]))
        pairs.append(pair)
        heights.append(height)
    pair, _ = _highest(np.concatenate(pairs), np.concatenate(heights))
    yield from zip((pair >> 32).tolist(), (pair & 0xFFFFFFFF).tolist(), strict=True)


def _highest(pair: np.ndarray, height: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each pair once, with its greatest height, by falling height."""
    falling = np.argsort(-height, kind="stable")
    pair, height = pair[falling], height[falling]
    first = np.sort(np.unique(pair, return_index=True)[1])
    return pair[first], height[first]


def _neighbors(shape: tuple[int, ...]) -> Iterator[tuple[Side, Side]]:
    """Slices of all voxels that have a neighbor in each direction, and of that neighbor."""
    for offset in OFFSETS:
        here = [slice(max(0, -o), n - max(0, o)) for o, n in zip(offset, shape, strict=True)]
        there = [slice(max(0, o), n - max(0, -o)) for o, n in zip(offset, shape, strict=True)]
        yield (here[0], here[1], here[2]), (there[0], there[1], there[2])
