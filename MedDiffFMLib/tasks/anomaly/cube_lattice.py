"""Lattices of hidden cubes, and biharmonic interpolation in all cubes of one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

MARGIN = 3
"""Known voxels around a cube that the surface of least bending runs through."""

Triple = tuple[int, int, int]
Spacing = tuple[float, float, float]


def lattice_lines(shape: Sequence[int], edge: Triple, first: Sequence[int]) -> list[np.ndarray]:
    """Depth of voxels in the cubes of a lattice: a float32 line for each axis, 0 outside, near 1 in the middle.

    The depth of a voxel is the product of the three: the deeper it lies, the less its surroundings betray of it.

    Args:
        edge: of the cubes, in voxels; the gaps are as wide.
        first: first voxel of a cube.
    """
    lines = []
    for n, e, f in zip(shape, edge, first, strict=True):
        position = np.mod(np.arange(n) - f, 2 * e)
        tent = np.minimum(position + 0.5, e - position - 0.5) / (e / 2)
        lines.append(np.where(position < e, tent, 0).astype(np.float32))
    return lines


def biharmonic_lattice(image: np.ndarray, edge: Triple, first: Sequence[int], spacing: Spacing) -> np.ndarray:
    """``image`` (k, j, i) with the surface of least bending in every cube of a lattice.

    All cubes are alike, so what leads from a cube's surroundings to its content serves them all. Beyond its borders
    the image is continued by reflection.

    Args:
        edge: of the cubes, even numbers of voxels.
        spacing: (k, j, i) in mm.
    """
    starts = [_cubes(n, e, f) for n, e, f in zip(image.shape, edge, first, strict=True)]
    around = [s[:, None] + np.arange(-MARGIN, e + MARGIN) for s, e in zip(starts, edge, strict=True)]
    blocks = image[np.ix_(*(_reflected(index, n).ravel() for index, n in zip(around, image.shape, strict=True)))]
    (d, k), (h, j), (w, i) = (index.shape for index in around)
    blocks = blocks.reshape(d, k, h, j, w, i).transpose(0, 2, 4, 1, 3, 5).reshape(-1, k, j, i)
    bent = _bend_blocks(blocks, edge, spacing).reshape(d, h, w, *edge).transpose(0, 3, 1, 4, 2, 5)
    place = [(s[:, None] + np.arange(e)).ravel() for s, e in zip(starts, edge, strict=True)]
    inside = [(line >= 0) & (line < n) for line, n in zip(place, image.shape, strict=True)]
    filled = image.copy()
    filled[np.ix_(*(line[part] for line, part in zip(place, inside, strict=True)))] = bent.reshape(
        [len(line) for line in place]
    )[np.ix_(*inside)]
    return filled


def _cubes(length: int, edge: int, first: int) -> np.ndarray:
    """Starts of the cubes along an axis that lie in ``length`` voxels, or partly do."""
    starts = np.arange(first % (2 * edge) - 2 * edge, length, 2 * edge)
    return starts[starts + edge > 0]


def _reflected(index: np.ndarray, length: int) -> np.ndarray:
    """Indices beyond a line folded back into it; its ends are repeated."""
    folded = np.mod(index, 2 * length)
    return np.where(folded < length, folded, 2 * length - 1 - folded)


def _bend_blocks(blocks: np.ndarray, edge: Triple, spacing: Spacing) -> np.ndarray:
    """Blocks (n, edge + 2 MARGIN along each axis) -> content of least bending (n, *edge); what it was is not seen.

    A block is its own mirror image along each axis. Split into its parts that are even and odd along them, each of
    the eight parts bends by itself and is given by one octant: an eighth of the products, in matrices of a 64th.
    """
    import torch

    response, known = _bending_response(edge, spacing)
    for axis in range(3):  # to (2, 2, 2, n, octant)
        low, high = np.split(blocks, 2, axis=axis - 3)
        high = np.flip(high, axis - 3)
        blocks = np.stack([low + high, low - high], axis=axis)
    parts = blocks.reshape(8, -1, *known.shape)[:, :, known]
    # Not NumPy's product: the threads of its BLAS spin between calls, on the cores that the network needs.
    bent = torch.bmm(torch.from_numpy(parts), response).numpy().reshape(2, 2, 2, -1, *(e // 2 for e in edge))
    for axis in (2, 1, 0):
        even, odd = np.moveaxis(bent, axis, 0)
        bent = np.concatenate([even + odd, np.flip(even - odd, axis - 3)], axis=axis - 3)
    return bent


@lru_cache(maxsize=8)
def _bending_response(edge: Triple, spacing: Spacing) -> tuple[torch.Tensor, np.ndarray]:
    """(8, surroundings, content) float32 of an octant, for parts even or odd along each axis, and where in an octant
    the surroundings are."""
    import torch

    from ...imaging.biharmonic import biharmonic_response

    block = tuple(e + 2 * MARGIN for e in edge)
    inside = np.zeros(block, dtype=bool)
    inside[MARGIN:-MARGIN, MARGIN:-MARGIN, MARGIN:-MARGIN] = True
    k, j, i = spacing
    matrix, right = biharmonic_response(inside, (i, j, k))
    octant = tuple(slice(n // 2) for n in block)
    content, around = _mirrored(inside, octant), _mirrored(~inside, octant)
    left, right = _parts(matrix, content[0], content), _parts(right, content[0], around)
    # Part by part: with two threads oneMKL fails on the batch ("Pivots given to lu_solve must be ...").
    solved = torch.stack([torch.linalg.solve(*part) for part in zip(left, right, strict=True)])
    return (solved / 8).mT.float().contiguous(), ~inside[octant]  # a part is half of a sum, along each axis


def _mirrored(wanted: np.ndarray, octant: tuple[slice, ...]) -> np.ndarray:
    """(8, n): number, among all wanted voxels of a block, of those in an octant and of their mirror images."""
    number = np.full(wanted.shape, -1)
    number[wanted] = np.arange(np.count_nonzero(wanted))
    turns = [tuple(slice(None, None, step) for step in steps) for steps in product((1, -1), repeat=3)]
    return np.stack([number[turn][octant][wanted[octant]] for turn in turns])


def _parts(matrix: Any, rows: np.ndarray, columns: np.ndarray) -> torch.Tensor:
    """(8, rows, n): what a sparse matrix does to the parts of a block that are even or odd along each axis."""
    import torch

    some = matrix.tocsr()[rows]
    mirrored = torch.from_numpy(np.stack([some[:, part].toarray() for part in columns]))
    mirrored = mirrored.reshape(2, 2, 2, *mirrored.shape[1:])
    for axis in range(3):
        same, other = mirrored.unbind(axis)
        mirrored = torch.stack([same + other, same - other], dim=axis)
    return mirrored.reshape(8, *mirrored.shape[3:])
