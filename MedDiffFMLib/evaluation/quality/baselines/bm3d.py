"""BM3D: block matching and collaborative filtering.

Two stages, as in Dabov et al. 2007, IEEE Transactions on Image Processing 16:2080. Blocks are matched and their stacks
hard-thresholded, which gives a pilot; blocks are matched again on the pilot, and the stacks of the noisy image are
shrunk by Wiener weights that the pilot's stacks give. Each stage averages the overlapping blocks, sparser stacks
counting more. Parameters are those of the paper's normal profile, with two differences: the first stage uses the cosine
transform too, and the mean of a stack is never shrunk, since 0 HU is no special value.

Noise may be correlated within a block; the blocks of a stack are taken as independent (Makinen et al. 2020, IEEE
Transactions on Image Processing 29:8339, go further).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

BLOCK = 8
STEP = 3
REACH = 19
"""Blocks are matched up to so many pixels away along each axis: 39 x 39 candidates."""
THRESHOLD = 2.7
KAISER_BETA = 2.0
BAND = 16
"""Rows of reference blocks that are matched at a time; bounds the memory."""
_BEYOND = 1e9  # pixels outside the image; no block that holds one is like any other


@dataclass(frozen=True)
class Stage:
    """Settings by which blocks are matched.

    Attributes:
        stack: most blocks in a stack, a power of two.
        likeness: largest mean squared difference of two matched blocks over the noise variance (the paper's 2500 and
            400 at a noise of 25).
    """

    stack: int
    likeness: float


FIRST = Stage(16, 4.0)
SECOND = Stage(32, 0.64)

Shrink = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""(coefficients of stacks (S, n, 64), numbers of their blocks (S, n)) -> (shrunk coefficients, weights (S,))."""


def bm3d(image: np.ndarray, sigma: float | np.ndarray) -> np.ndarray:
    """Remove noise from a 2-D image; float32 of the same shape.

    Args:
        sigma: standard deviation of white noise; for correlated noise that in each cosine coefficient of a block,
            (8, 8), see :func:`spectrum`.

    An image narrower than a block is extended by reflection.
    """
    image = np.asarray(image, dtype=np.float32)
    levels = np.broadcast_to(np.asarray(sigma, dtype=np.float32), (BLOCK, BLOCK)).ravel()
    if levels.max() <= 0:
        return image.copy()
    levels = np.maximum(levels, 1e-3 * levels.max())  # so that no weight is infinite
    noisy = np.pad(image, [(0, max(BLOCK - n, 0)) for n in image.shape], mode="symmetric")
    blocks = _blocks(noisy)
    pilot = _filtered(blocks, noisy, levels, FIRST, lambda stacks, _: hard_threshold(stacks, levels))
    guides = _blocks(pilot)
    clean = _filtered(blocks, pilot, levels, SECOND, lambda stacks, at: wiener(stacks, _along(guides[at]), levels))
    return clean[: image.shape[0], : image.shape[1]]


def hard_threshold(stacks: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients below the threshold become 0; a stack's weight is one over the noise variance that is left in it."""
    kept = np.abs(stacks) > THRESHOLD * sigma
    kept[:, 0, 0] = True
    return stacks * kept, 1 / (kept * sigma**2).sum(axis=(1, 2), dtype=np.float32)


def wiener(stacks: np.ndarray, guides: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Empirical Wiener filter by the pilot's power; weights as in :func:`hard_threshold`."""
    power = guides**2
    factor = power / (power + sigma**2)
    factor[:, 0, 0] = 1
    return stacks * factor, 1 / np.square(factor * sigma).sum(axis=(1, 2))


def spectrum(noise: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Standard deviation of correlated noise in each cosine coefficient of a block, (8, 8), for :func:`bm3d`.

    Args:
        noise: (k, j, i), slice by slice.
        inside: bool (k, j, i); blocks that lie in it are counted, all blocks where it holds none.
    """
    power, count = np.zeros(BLOCK * BLOCK), 0
    for image, mask in zip(np.asarray(noise, dtype=np.float32), inside, strict=True):
        views = np.lib.stride_tricks.sliding_window_view(mask, (BLOCK, BLOCK))
        counted = np.square(_blocks(image)[views.all(axis=(2, 3)).ravel()])
        power += counted.sum(axis=0, dtype=np.float64)
        count += len(counted)
    if count == 0:
        return spectrum(noise, np.ones_like(inside))
    return np.sqrt(power / count).reshape(BLOCK, BLOCK)


def _filtered(blocks: np.ndarray, guide: np.ndarray, sigma: np.ndarray, stage: Stage, shrink: Shrink) -> np.ndarray:
    """One stage: match on ``guide``, shrink the stacks of ``blocks`` (number, 64), average what overlaps."""
    from scipy.sparse import csr_array

    sums, weights = np.zeros_like(blocks), np.zeros(len(blocks), np.float32)
    for numbers in _stacks(guide, sigma, stage):
        shrunk, weight = shrink(_along(blocks[numbers]), numbers)
        each = np.repeat(weight, numbers.shape[1])
        # The transform is linear: blocks of one place are added up first and transformed back once, at the end.
        place = csr_array((each, (numbers.ravel(), np.arange(each.size))), shape=(len(blocks), each.size))
        sums += place @ _along(shrunk, back=True).reshape(each.size, -1)
        weights += place.sum(axis=1)
    return _averaged(sums, weights, guide.shape)


def _stacks(guide: np.ndarray, sigma: np.ndarray, stage: Stage) -> Iterator[np.ndarray]:
    """Numbers (S, n) of the blocks of each stack, the reference first; n is a power of two, the same within a batch."""
    rows, columns = (_references(n) for n in guide.shape)
    for first in range(0, len(rows), BAND):
        part = rows[first : first + BAND]
        unlike, offsets = _differences(guide, part, columns)
        unlike[:, len(offsets) // 2] = -1.0  # the reference itself: first in its stack, whatever equals it
        nearest = np.argpartition(unlike, stage.stack - 1, axis=1)[:, : stage.stack]
        distances = np.take_along_axis(unlike, nearest, axis=1)
        order = np.argsort(distances, axis=1, kind="stable")
        nearest, distances = np.take_along_axis(nearest, order, axis=1), np.take_along_axis(distances, order, axis=1)
        width = guide.shape[1] - BLOCK + 1
        references = (part[:, None] * width + columns).reshape(-1, 1)
        numbers = references + (offsets @ [width, 1])[nearest]
        sizes = 2 ** np.log2((distances <= stage.likeness * np.mean(sigma**2)).sum(axis=1)).astype(int)
        for size in np.unique(sizes):
            yield numbers[sizes == size, :size]


def _references(length: int) -> np.ndarray:
    """Starts of reference blocks along an axis: every third pixel, and the last possible one."""
    last = length - BLOCK
    return np.unique(np.append(np.arange(0, last + 1, STEP), last))


def _differences(guide: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean squared difference between each reference block and each candidate, and the candidates' offsets.

    Returns:
        float32 (references, candidates) and int (candidates, 2).
    """
    offsets = np.stack(np.meshgrid(*[np.arange(-REACH, REACH + 1)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    around = np.pad(guide, REACH, constant_values=np.float32(_BEYOND))
    top, bottom = int(rows[0]), int(rows[-1]) + BLOCK
    own = guide[top:bottom]
    tall, wide = _sums(rows - top, bottom - top), _sums(columns, guide.shape[1]).T.copy()
    unlike = np.empty((rows.size * columns.size, len(offsets)), np.float32)
    for number, (down, right) in enumerate(offsets + REACH):
        other = around[top + down : bottom + down, right : right + guide.shape[1]]
        unlike[:, number] = (tall @ np.square(own - other) @ wide).ravel()
    return unlike, offsets


def _sums(starts: np.ndarray, length: int) -> np.ndarray:
    """Matrix (starts, length) that averages ``BLOCK`` values from each start on."""
    place = np.arange(length) - starts[:, None]
    return ((place >= 0) & (place < BLOCK)).astype(np.float32) / BLOCK


def _blocks(image: np.ndarray) -> np.ndarray:
    """Cosine transform of the block at every pixel, row by row; float32 (number, 64)."""
    from scipy.fft import dctn

    views = np.lib.stride_tricks.sliding_window_view(image, (BLOCK, BLOCK))
    return dctn(views, axes=(2, 3), norm="ortho").reshape(-1, BLOCK * BLOCK)


def _along(stacks: np.ndarray, back: bool = False) -> np.ndarray:
    """Orthonormal Haar transform along the stack, axis 1, or its inverse."""
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < stacks.shape[1]:
        matrix = np.vstack([np.kron(matrix, [1, 1]), np.kron(np.eye(len(matrix)), [1, -1])]) / np.sqrt(2)
    matrix = matrix.astype(np.float32)
    return (matrix.T if back else matrix) @ stacks


def _averaged(sums: np.ndarray, weights: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Weighted blocks at their places -> image; a Kaiser window lets a block's rim count less."""
    from scipy.fft import idctn

    rows, columns = shape[0] - BLOCK + 1, shape[1] - BLOCK + 1
    blocks = idctn(sums.reshape(rows, columns, BLOCK, BLOCK), axes=(2, 3), norm="ortho")
    window = np.kaiser(BLOCK, KAISER_BETA).astype(np.float32)
    above, below = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for j in range(BLOCK):
        for i in range(BLOCK):
            share = window[j] * window[i]
            above[j : j + rows, i : i + columns] += share * blocks[:, :, j, i]
            below[j : j + rows, i : i + columns] += share * weights.reshape(rows, columns)
    return above / below
