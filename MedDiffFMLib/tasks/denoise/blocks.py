"""Overlapping blocks of a volume and their Fourier coefficients, some rows at a time.

A volume is cut into blocks of 8 x 8 voxels within slices and 8, 4 or 2 slices that begin every half block, and
continues by reflection. Blocks are windowed before the transform and after it; the squares of the windows of all blocks
of a voxel add up to 1.

Blocks are so small that two products with matrices, which hold the windows, too, transform them in a third of the time
of the fast transform. Coefficients are (n, depth, 2, 8, 5): real and imaginary parts of one half of the frequencies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
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
SAMPLED_LAYERS = 8
"""Layers of blocks along the patient from which the spectrum is measured."""
FEWEST_BLOCKS = 50
HALF = EDGE * (EDGE // 2 + 1)
"""Coefficients of a slice: those of one half of the frequencies tell the others."""
BAND = 16
"""Rows of blocks that are transformed together; bounds the memory."""


@dataclass(frozen=True)
class Band:
    """Some rows of the blocks that begin in one plane.

    Attributes:
        top: first row of voxels that they cover, counted from ``STEP`` before the image.
        across: (height, width) in voxels that they cover.
        lines: places of their voxels along each axis of the image.
    """

    top: int
    across: tuple[int, int]
    lines: tuple[np.ndarray, np.ndarray, np.ndarray]

    @property
    def depth(self) -> int:
        """Slices of a block."""
        return len(self.lines[0])

    @property
    def blocks(self) -> tuple[int, int]:
        """Rows and columns of blocks."""
        rows, columns = ((n - EDGE) // STEP + 1 for n in self.across)
        return rows, columns

    def cut(self, image: torch.Tensor) -> torch.Tensor:
        """(N, depth, 8, 8) blocks of an image (D, H, W)."""
        for axis, line in enumerate(self.lines):
            # Neighbors differ by one: where the ends are so far apart nothing is reflected.
            if line[-1] - line[0] == len(line) - 1:
                image = image.narrow(axis, int(line[0]), len(line))
            else:
                image = image.index_select(axis, torch.from_numpy(line))
        blocks = image.unfold(1, EDGE, STEP).unfold(2, EDGE, STEP)  # (depth, rows, columns, 8, 8)
        return blocks.permute(1, 2, 0, 3, 4).reshape(-1, self.depth, EDGE, EDGE)

    def placed(self, coefficients: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """(depth, height, width): blocks transformed back and added up where they lie.

        Args:
            coefficients: (n, depth, 2, 8, 5) of those that are kept.
            kept: (N,) bool, which of the band's blocks these n are.
        """
        blocks = torch.zeros(len(kept), self.depth, EDGE * EDGE)
        blocks[kept] = _transformed_back(coefficients)
        columns = blocks.permute(1, 2, 0).reshape(1, self.depth * EDGE**2, -1)
        return functional.fold(columns, self.across, EDGE, stride=STEP)[0]

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """(depth, height, width): a number of each block (N,), times the squared window, added up where they lie."""
        grid = values.reshape(1, 1, *self.blocks)
        return functional.conv_transpose2d(grid, window(self.depth).square()[None], stride=STEP)[0]


def block_depth(spacing_kji: tuple[float, float, float]) -> int:
    """Slices of a block for voxels of some edges in mm: 8, or 4 or 2 of thick slices."""
    thickness, pixel = spacing_kji[0], max(spacing_kji[1:])
    if thickness < max(THICK_MM, LONGER * pixel):
        return EDGE
    return EDGE // 2 if thickness < MUCH_LONGER * pixel else EDGE // 4


def bands(shape: torch.Size, first: int, depth: int) -> Iterator[Band]:
    """The blocks of ``depth`` slices from plane ``first`` on of an image of a shape (D, H, W)."""
    slices, height, width = shape
    planes, columns = reflected_range(first, depth, slices), STEP * block_count(width) + EDGE - STEP
    for top in range(0, block_count(height), BAND):
        rows = STEP * min(BAND, block_count(height) - top) + EDGE - STEP
        lines = (planes, reflected_range(STEP * (top - 1), rows, height), reflected_range(-STEP, columns, width))
        yield Band(STEP * top, (rows, columns), lines)


def block_count(length: int) -> int:
    """Blocks along an axis: the first begins ``STEP`` before the image, the last covers its end."""
    return -(-length // STEP) + 1


def layers(slices: int, depth: int) -> range:
    """First planes of the layers of blocks of ``depth`` slices that cover an image."""
    return range(-(depth // 2), slices, depth // 2)


def sampled_layers(slices: int, depth: int) -> range:
    """First planes of some layers that lie within the image."""
    starts = range(0, max(slices - depth, 0) + 1, depth // 2)
    return starts[:: max(1, len(starts) // SAMPLED_LAYERS)]


class PlaneSums:
    """Sums over blocks, layer by layer, of which those planes are given that no later layer reaches.

    Args:
        shape: (D, H, W) of the image.
        depth: slices of a block.
        count: sums that are held side by side.
    """

    def __init__(self, shape: torch.Size, depth: int, count: int = 1) -> None:
        self._slices, self._height, self._width = shape
        self._step = depth // 2
        rows, columns = (STEP * block_count(n) + EDGE - STEP for n in (self._height, self._width))
        self._sums = torch.zeros(count, depth, rows, columns)

    def add(self, band: Band, part: torch.Tensor, number: int = 0) -> None:
        """Add (depth, height, width) where the band lies."""
        self._sums[number, :, band.top : band.top + band.across[0]] += part

    def finished(self, first: int) -> torch.Tensor:
        """(count, n, H, W): planes that the layer from plane ``first`` on was the last to reach; they are forgotten."""
        planes = slice(max(-first, 0), min(self._step, self._slices - first))
        done = self._sums[:, planes, STEP : STEP + self._height, STEP : STEP + self._width].clone()
        self._sums[:, : self._step] = self._sums[:, self._step :].clone()
        self._sums[:, self._step :] = 0
        return done


def transformed(blocks: torch.Tensor) -> torch.Tensor:
    """(n, depth, 8, 8) -> windowed Fourier coefficients (n, depth, 2, 8, 5)."""
    count, depth = blocks.shape[:2]
    across, along = _matrices(depth)[:2]
    planes = blocks.reshape(-1, EDGE * EDGE) @ across
    return (along @ planes.reshape(count, 2 * depth, HALF)).reshape(count, depth, 2, EDGE, HALF // EDGE)


def _transformed_back(coefficients: torch.Tensor) -> torch.Tensor:
    """(n, depth, 2, 8, 5) -> windowed blocks (n, depth, 64)."""
    count, depth = coefficients.shape[:2]
    across, along = _matrices(depth)[2:]
    planes = along @ coefficients.reshape(count, 2 * depth, HALF)
    return (planes.reshape(-1, 2 * HALF) @ across).reshape(count, depth, EDGE * EDGE)


@cache
def _matrices(depth: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of the transform within slices (64, 80) and between them (2 depth, 2 depth), and of their inverses."""
    wave, plane = _sine(depth), (_sine(EDGE)[:, None] * _sine(EDGE)).reshape(-1)
    pixels = torch.eye(EDGE * EDGE, dtype=torch.float64).reshape(-1, EDGE, EDGE)
    within = torch.view_as_real(torch.fft.rfftn(pixels, dim=(1, 2), norm="ortho")).reshape(-1, HALF, 2)
    parts = torch.eye(2 * HALF, dtype=torch.float64).reshape(2 * HALF, 2, EDGE, HALF // EDGE)
    back = torch.fft.irfftn(torch.complex(parts[:, 0], parts[:, 1]), (EDGE, EDGE), dim=(1, 2), norm="ortho")
    between = torch.fft.fft(torch.eye(depth, dtype=torch.complex128), norm="ortho", dim=0)
    matrices = (
        plane[:, None] * within.transpose(1, 2).reshape(-1, 2 * HALF),
        _real(between * wave),
        back.reshape(2 * HALF, -1) * plane,
        _real(wave[:, None] * between.conj()),
    )
    return matrices[0].float(), matrices[1].float(), matrices[2].float(), matrices[3].float()


def _real(matrix: torch.Tensor) -> torch.Tensor:
    """Complex (n, n) -> the same of numbers whose real and imaginary parts follow one another, (2 n, 2 n)."""
    rows = torch.stack([matrix.real, -matrix.imag], 2), torch.stack([matrix.imag, matrix.real], 2)
    return torch.stack(rows, 1).reshape(2 * len(matrix), -1)


def without_mean(blocks: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Blocks (n, depth, 8, 8) less a number of each (n,)."""
    return blocks - mean[:, None, None, None]


def power(coefficients: torch.Tensor) -> torch.Tensor:
    """Squared absolute values (n, depth, 8, 5)."""
    real, imaginary = coefficients.unbind(2)
    return torch.addcmul(real.square(), imaginary, imaginary)


def scaled(coefficients: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Coefficients times a real factor for each, (n, depth, 8, 5) or, for all blocks, (depth, 8, 5)."""
    return coefficients * factors.unsqueeze(-3)


def level(noise: torch.Tensor) -> float:
    """Standard deviation of noise of these powers, (depth, 8, 5)."""
    # Coefficients are there for one half of the frequencies; those in between stand for two.
    both = noise.sum() + noise[..., 1 : EDGE // 2].sum()
    return float((both / window(len(noise)).square().sum()).sqrt())


def is_empty(blocks: torch.Tensor, level: float) -> torch.Tensor:
    """(n,) bool: blocks (n, depth, 8, 8) of air with nothing in it.

    Args:
        level: of the noise, network range.
    """
    flat = blocks.flatten(1)
    empty = (mean := flat.mean(1)) <= AIR
    if math.isfinite(level) and empty.any():
        airy = flat[empty] - mean[empty][:, None]
        empty[empty.clone()] = airy.square_().sum(1) <= EMPTY * level**2 * (flat.shape[1] - 1)
    return empty


def soft_limit(mean: torch.Tensor) -> float:
    """Largest absolute mean of a block that counts as soft tissue; infinite where there is hardly any."""
    return SOFT if (mean < SOFT).sum() >= FEWEST_BLOCKS else math.inf


@cache
def window(depth: int) -> torch.Tensor:
    """(depth, 8, 8): its square, summed over overlapping blocks, is 1."""
    across, line = _sine(depth).float(), _sine(EDGE).float()
    return across[:, None, None] * line[:, None] * line


def _sine(length: int) -> torch.Tensor:
    return torch.sin(math.pi / length * (torch.arange(length, dtype=torch.float64) + 0.5))
