"""Overlapping blocks of a volume and their Fourier coefficients, layer by layer.

A volume is cut into blocks of 8 x 8 voxels within slices and 8, 4 or 2 slices that begin every half block, and
continues by reflection. Blocks are windowed before the transform and after it; the squares of the windows of all blocks
of a voxel add up to 1.

The blocks that begin in one plane are a layer. Each slice is transformed once though two layers hold it, by a
convolution of cells of 4 x 4 pixels; the transform between slices is a product with a small matrix. Coefficients are
(2, depth, n, 40): real and imaginary parts, frequencies between slices, blocks, and one half of the frequencies within
them, for those tell the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property

import torch
import torch.nn.functional as functional

from ...inference.window_plan import reflected_range

EDGE, STEP = 8, 4
"""Voxels of a block within slices, and from block to block: the cosine transform gained 0.1 dB less."""
THICK_MM, LONGER, MUCH_LONGER = 4.0, 2.0, 4.0
"""Slices of so many mm and pixels, from which blocks hold half as many of them: tissue does not go on over eight of
5 mm. A quarter where they are so many pixels thick. In thinner slices fewer cost up to 0.7 dB."""
AIR, SOFT = -0.95, 0.25
"""Blocks whose mean is below are air, and the noise's spectrum is measured where it is within; network range."""
EMPTY = 2.0
"""Air is empty where the variance is no more than so many times that of the noise: clothes, thin septa of an airy lung
and walls of bowel are more."""
DARKEST = -1.0
"""Subtracted before squares are summed, so that the variance of air is no small difference of large numbers."""
SAMPLED_LAYERS = 8
"""Layers of blocks along the patient from which the spectrum is measured, about."""
MOST_BLOCKS, FEWEST_BLOCKS = 8192, 50
"""Blocks from which it is, and those of soft tissue without which all that is no air counts."""
LINE = EDGE // 2 + 1
HALF = EDGE * LINE
"""Coefficients of a slice, lines of 5: one half of the frequencies."""
BAND = 16
"""Rows of blocks that are transformed together, so that what is at work stays in cache."""


@dataclass(frozen=True)
class Blocks:
    """Blocks transformed within slices: those of a layer, row by row, or some.

    Attributes:
        within: (2, depth, N, 40) windowed coefficients of each slice.
        sums: (2, N): of voxels above :data:`DARKEST` and of their squares.
        columns: of a layer.
        turned: ``within`` holds the second half of the slices first.
    """

    within: torch.Tensor
    sums: torch.Tensor
    columns: int = 1
    turned: bool = False

    @property
    def depth(self) -> int:
        """Slices of a block."""
        return self.within.shape[1]

    @cached_property
    def mean(self) -> torch.Tensor:
        """(N,)"""
        return _mean(self.sums, self.depth)

    def is_empty(self, level: float) -> torch.Tensor:
        """(N,) bool: air with nothing in it; ``level`` of the noise, network range, infinite where all air counts."""
        size = self.depth * EDGE**2
        squares = self.sums[1] - self.sums[0].square() / size
        return (self.mean <= AIR) & (squares <= EMPTY * level**2 * (size - 1))

    @property
    def bands(self) -> Iterator[slice]:
        """Blocks of some rows each."""
        for first in range(0, len(self.mean), size := BAND * self.columns):
            yield slice(first, min(first + size, len(self.mean)))

    def coefficients(self, places: torch.Tensor) -> torch.Tensor:
        """(2, depth, n, 40) of some of the blocks (n,)."""
        within = self.within.index_select(2, places)
        return (_between(self.depth, self.turned)[0] @ within.reshape(2 * self.depth, -1)).reshape(within.shape)

    def less_mean(self, coefficients: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """The same of what the blocks hold beyond their means, in place."""
        return coefficients.addcmul_(_of_ones(self.depth), self.mean[places][:, None], value=-1)


def block_depth(spacing_kji: tuple[float, float, float]) -> int:
    """Slices of a block for voxels of some edges in mm: 8, or 4 or 2 of thick slices."""
    thickness, pixel = spacing_kji[0], max(spacing_kji[1:])
    if thickness < max(THICK_MM, LONGER * pixel):
        return EDGE
    return EDGE // 2 if thickness < MUCH_LONGER * pixel else EDGE // 4


def layer_starts(slices: int, depth: int) -> range:
    """First planes of the layers of blocks of ``depth`` slices that cover an image."""
    return range(-(depth // 2), slices, depth // 2)


def layers(image: torch.Tensor, depth: int) -> Iterator[tuple[int, Blocks]]:
    """First plane and blocks of each layer that covers an image (D, H, W); a layer is forgotten when the next comes."""
    rows, columns = _grid(image)
    step = depth // 2
    within = torch.empty(2, depth, rows * columns, HALF)
    sums = torch.empty(2, depth, rows * columns)
    # The slices that the next layer does not hold make room for those that it holds beside the others.
    for number, first in enumerate([-depth, *layer_starts(len(image), depth)]):
        cells = _cells_of(image, first + step, step)
        room = slice(0, step) if number % 2 else slice(step, depth)
        within[:, room], sums[:, room] = _transformed(cells), _sums(cells)
        if number:
            yield first, Blocks(within, sums.sum(1), columns, turned=number % 2 == 1)


def sampled_blocks(depth: int, *images: torch.Tensor) -> list[Blocks]:
    """The same blocks of each of some images (D, H, W), evenly chosen where the first is no air."""
    found: list[list[Blocks]] = [[] for _ in images]
    starts = range(0, max(len(images[0]) - depth, 0) + 1, depth // 2)
    starts = starts[:: max(1, len(starts) // SAMPLED_LAYERS)]
    for first in starts:
        chosen = None
        for image, parts in zip(images, found, strict=True):
            cells = _cells_of(image, first, depth)
            sums = _sums(cells).sum(1)
            if chosen is None:
                chosen = torch.nonzero(_mean(sums, depth) > AIR)[:, 0]
                chosen = chosen[:: max(1, math.ceil(len(chosen) * len(starts) / MOST_BLOCKS))]
            parts.append(Blocks(_transformed_at(cells, chosen), sums[:, chosen]))
    return [Blocks(torch.cat([p.within for p in parts], 2), torch.cat([p.sums for p in parts], 1)) for parts in found]


class PlaneSums:
    """Sums over blocks, layer by layer, of which those planes are given that no later layer reaches.

    Args:
        shape: (D, H, W) of the image.
        depth: slices of a block.
        even: sums that are held beside that of coefficients, of numbers that each block has in all its voxels.
    """

    def __init__(self, shape: torch.Size, depth: int, even: int = 0) -> None:
        self._slices, self._height, self._width = shape
        self._step, self._depth = depth // 2, depth
        self._grid = rows, columns = _block_count(self._height), _block_count(self._width)
        self._within = torch.zeros(2, depth, rows * columns, HALF)
        self._even = torch.zeros(even, depth, rows * columns)
        self._turned = False

    def add(self, places: torch.Tensor, coefficients: torch.Tensor) -> None:
        """Add coefficients (2, depth, n, 40) of some blocks (n,) of the layer."""
        back = _between(self._depth, self._turned)[1] @ coefficients.reshape(2 * self._depth, -1)
        self._within.index_add_(2, places, back.reshape(coefficients.shape))

    def spread(self, number: int, values: torch.Tensor) -> None:
        """Add a number of each block (N,), times the squared window."""
        window = _sine(self._depth).float().square()
        self._even[number] += (window.roll(self._step) if self._turned else window)[:, None] * values

    def finished(self, first: int) -> torch.Tensor:
        """(1 + even, n, H, W): planes that the layer from plane ``first`` on was the last to reach, those of
        coefficients first; they are forgotten."""
        at = self._step if self._turned else 0
        planes = slice(at + max(-first, 0), at + min(self._step, self._slices - first))
        done = torch.stack(
            [self._from_coefficients(planes), *(self._from_numbers(part[planes]) for part in self._even)]
        )
        for held in (self._within, self._even):
            held[:, at : at + self._step] = 0
        self._turned = not self._turned
        return done

    def _from_coefficients(self, planes: slice) -> torch.Tensor:
        """(n, H, W)"""
        parts = [part.unflatten(1, self._grid).permute(0, 3, 1, 2) for part in self._within[:, planes]]
        real, imaginary = (functional.conv2d(p, k, padding=1) for p, k in zip(parts, _within_slices()[1], strict=True))
        return self._pixels(real + imaginary)

    def _from_numbers(self, even: torch.Tensor) -> torch.Tensor:
        """(n, N) -> (n, H, W)"""
        return self._pixels(functional.conv2d(even.unflatten(1, self._grid)[:, None], _squared_window(), padding=1))

    def _pixels(self, cells: torch.Tensor) -> torch.Tensor:
        """Cells (n, 16, rows + 1, columns + 1) -> (n, H, W)."""
        inside = (slice(STEP, STEP + self._height), slice(STEP, STEP + self._width))
        return functional.pixel_shuffle(cells, STEP)[:, 0, inside[0], inside[1]]


def power(coefficients: torch.Tensor) -> torch.Tensor:
    """Squared absolute values (depth, n, 40)."""
    real, imaginary = coefficients
    return torch.addcmul(real.square(), imaginary, imaginary)


def level(noise: torch.Tensor) -> float:
    """Standard deviation of noise of these powers, (depth, 40)."""
    # Coefficients are there for one half of the frequencies; those in between stand for two.
    both = noise.sum() + noise.unflatten(1, (EDGE, LINE))[..., 1 : EDGE // 2].sum()
    return float((both / energy(len(noise))).sqrt())


def energy(depth: int) -> float:
    """Sum of the squared window over the voxels of a block."""
    return float(_sine(depth).square().sum() * _sine(EDGE).square().sum() ** 2)


def soft_limit(mean: torch.Tensor) -> float:
    """Largest absolute mean of a block that counts as soft tissue; infinite where there is hardly any."""
    return SOFT if (mean < SOFT).sum() >= FEWEST_BLOCKS else math.inf


def _mean(sums: torch.Tensor, depth: int) -> torch.Tensor:
    """(N,) means of blocks, from their sums (2, N)."""
    return sums[0] / (depth * EDGE**2) + DARKEST


def _grid(image: torch.Tensor) -> tuple[int, int]:
    return _block_count(image.shape[1]), _block_count(image.shape[2])


def _block_count(length: int) -> int:
    """Blocks along an axis: the first begins ``STEP`` before the image, the last covers its end."""
    return -(-length // STEP) + 1


def _cells_of(image: torch.Tensor, first: int, count: int) -> torch.Tensor:
    """(count, rows + 1, columns + 1, 16): slices from ``first`` on by cells, from one cell before the image on.

    Beyond its ends the image goes on by reflection.
    """
    planes, height, width = image.shape
    rows, columns = (n + 1 for n in _grid(image))
    wide = image.new_empty(count, STEP * rows, STEP * columns)
    for place, plane in zip(wide, reflected_range(first, count, planes), strict=True):
        place[STEP : STEP + height, STEP : STEP + width] = image[plane]
    for axis, length in ((2, width), (1, height)):
        line = STEP + torch.from_numpy(reflected_range(-STEP, wide.shape[axis], length))
        for start, end in ((0, STEP), (STEP + length, len(line))):
            wide.narrow(axis, start, end - start).copy_(wide.index_select(axis, line[start:end]))
    return wide.unflatten(2, (columns, STEP)).unflatten(1, (rows, STEP)).transpose(2, 3).flatten(3)


def _transformed(cells: torch.Tensor) -> torch.Tensor:
    """Coefficients (2, n, N, 40) of the blocks of some slices."""
    found = functional.conv2d(cells.permute(0, 3, 1, 2), _within_slices()[0]).permute(0, 2, 3, 1)
    return found.flatten(1, 2).unflatten(2, (2, HALF)).permute(2, 0, 1, 3)


def _transformed_at(cells: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Those of some blocks (n,) alone."""
    columns = cells.shape[2] - 1
    row, column = places // columns, places % columns
    blocks = torch.stack([cells[:, row + down, column + right] for down in (0, 1) for right in (0, 1)], 2)
    found = blocks.flatten(2) @ _within_slices()[0].permute(2, 3, 1, 0).flatten(0, 2)
    return found.unflatten(2, (2, HALF)).permute(2, 0, 1, 3)


def _sums(cells: torch.Tensor) -> torch.Tensor:
    """(2, n, N): of the voxels of blocks of some slices above :data:`DARKEST`, and of their squares."""
    voxels = cells - DARKEST
    sums = torch.stack([voxels.sum(3), voxels.square_().sum(3)])
    return functional.avg_pool2d(sums, 2, 1, divisor_override=1).flatten(2)


@cache
def _within_slices() -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """Kernels over two by two cells: (80, 16, 2, 2) from pixels to coefficients, and back, from real and imaginary
    parts, (16, 40, 2, 2)."""
    across, back = _pixel_matrices()
    forward = _cells(across.T.reshape(-1, EDGE, EDGE)).permute(0, 3, 1, 2)
    # A cell sees the blocks that begin one cell before it first, which end with it.
    inverse = _cells(back.reshape(-1, EDGE, EDGE)).flip(1, 2).permute(3, 0, 1, 2).float()
    channels_last = torch.channels_last
    real, imaginary = (part.contiguous(memory_format=channels_last) for part in inverse.split(HALF, 1))
    return forward.float().contiguous(memory_format=channels_last), (real, imaginary)


@cache
def _squared_window() -> torch.Tensor:
    """(16, 1, 2, 2): what a number of a block gives to each pixel of a cell."""
    plane = (_sine(EDGE)[:, None] * _sine(EDGE)).square()[None]
    return _cells(plane).flip(1, 2).permute(3, 0, 1, 2).float().contiguous()


def _cells(blocks: torch.Tensor) -> torch.Tensor:
    """(n, 8, 8) -> (n, 2, 2, 16): pixels by cells of 4 x 4."""
    return blocks.reshape(-1, 2, STEP, 2, STEP).transpose(2, 3).reshape(-1, 2, 2, STEP * STEP)


@cache
def _pixel_matrices() -> tuple[torch.Tensor, torch.Tensor]:
    """Windowed transform within slices, (64, 80), real parts first, and its inverse, (80, 64); float64."""
    plane = (_sine(EDGE)[:, None] * _sine(EDGE)).reshape(-1)
    pixels = torch.eye(EDGE * EDGE, dtype=torch.float64).reshape(-1, EDGE, EDGE)
    within = torch.view_as_real(torch.fft.rfftn(pixels, dim=(1, 2), norm="ortho")).reshape(-1, HALF, 2)
    parts = torch.eye(2 * HALF, dtype=torch.float64).reshape(2 * HALF, 2, EDGE, LINE)
    back = torch.fft.irfftn(torch.complex(parts[:, 0], parts[:, 1]), (EDGE, EDGE), dim=(1, 2), norm="ortho")
    return plane[:, None] * within.transpose(1, 2).reshape(-1, 2 * HALF), back.reshape(2 * HALF, -1) * plane


@cache
def _of_ones(depth: int) -> torch.Tensor:
    """(2, depth, 1, 40): coefficients of a block of ones."""
    within = _pixel_matrices()[0].sum(0).reshape(2, HALF).float().repeat_interleave(depth, 0)
    return (_between(depth)[0] @ within).reshape(2, depth, 1, HALF)


@cache
def _between(depth: int, turned: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Windowed transform between slices, (2 depth, 2 depth), real parts first, and its inverse.

    Args:
        turned: the second half of the slices comes first.
    """
    wave = _sine(depth)
    between = torch.fft.fft(torch.eye(depth, dtype=torch.complex128), norm="ortho", dim=0)
    forward, back = between * wave, wave[:, None] * between.conj()
    if turned:
        forward, back = forward.roll(depth // 2, 1), back.roll(depth // 2, 0)
    return _real(forward).float(), _real(back).float()


def _real(matrix: torch.Tensor) -> torch.Tensor:
    """Complex (n, n) -> the same of numbers whose imaginary parts follow all the real ones, (2 n, 2 n)."""
    upper, lower = torch.cat([matrix.real, -matrix.imag], 1), torch.cat([matrix.imag, matrix.real], 1)
    return torch.cat([upper, lower])


def _sine(length: int) -> torch.Tensor:
    """(length,): the window along an axis, float64; its square, summed over overlapping blocks, is 1."""
    return torch.sin(math.pi / length * (torch.arange(length, dtype=torch.float64) + 0.5))
