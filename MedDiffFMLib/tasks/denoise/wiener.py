"""Empirical Wiener filter: the detail that the network took for noise is given back where it stands out.

In blocks of 8 x 8 x 8 voxels the network's result tells how strong each frequency of the tissue is, and what it removed
tells the noise's spectrum, which no network needs to be told. Each frequency of what was removed is given back by the
share that tissue has in it: the second stage of BM3D (Dabov et al. 2007, IEEE Transactions on Image Processing 16:2080,
equation 9) without the matching, since the network's result is a better pilot than a thresholded one.
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
"""Voxels of a block and from block to block: 4 x 8 x 8 voxels gained 0.1 dB less, as did the cosine
transform and a level that varies in space."""
AIR, SOFT = -0.95, 0.25
"""Blocks whose mean is below are left as they are, and the noise's spectrum is measured where it is within; network
range."""
SAMPLED_LAYERS = 8
"""Layers of blocks along the patient from which the spectrum is measured."""
FEWEST_BLOCKS = 50
BAND = 16
"""Rows of blocks that are transformed together; bounds the memory."""


@dataclass(frozen=True)
class Band:
    """Some rows of the blocks that begin in one plane.

    Attributes:
        top: first row of voxels that they cover, counted from ``STEP`` before the image.
        across: (height, width) in voxels that they cover.
        pilot, removed: (n, 8, 8, 5) Fourier coefficients of the clean tissue without its mean and of what was removed.
        kept: (N,) bool, which of the N blocks these n are; the others are air.
        mean: (n,) of the clean tissue.
    """

    top: int
    across: tuple[int, int]
    pilot: torch.Tensor
    removed: torch.Tensor
    kept: torch.Tensor
    mean: torch.Tensor


def returned_detail(noisy: torch.Tensor, clean: torch.Tensor, strength: float = 1.0) -> Iterator[torch.Tensor]:
    """What is to be added to each plane of ``clean``, first to last, (H, W).

    A plane of either image is not looked at any more once its detail has come.

    Args:
        noisy, clean: (D, H, W) on the CPU, network range.
        strength: of the noise, over what was removed; more gives back less.
    """
    power = noise_power(noisy, clean) * strength**2
    depth, height, width = clean.shape
    sums = torch.zeros(EDGE, *(STEP * _blocks(n) + EDGE - STEP for n in (height, width)))
    for first in range(STEP - EDGE, depth, STEP):
        for band in _bands(noisy, clean, first):
            if len(band.mean):
                tissue = _power(band.pilot)
                sums[:, band.top : band.top + band.across[0]] += _placed(
                    band.removed * (tissue / (tissue + power)), band
                )
        done = sums[max(-first, 0) : min(STEP, depth - first), STEP : STEP + height, STEP : STEP + width]
        yield from done.clone()
        sums[:STEP] = sums[STEP:]
        sums[STEP:] = 0


def noise_power(noisy: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """(8, 8, 5): mean power of what was removed in each frequency, in the flatter half of the soft tissue.

    Where hardly any block is soft tissue, in the flatter half of all that is not air.
    """
    starts = range(0, max(len(clean) - EDGE, 0) + 1, STEP)
    starts = starts[:: max(1, len(starts) // SAMPLED_LAYERS)]
    known = [(band.mean.abs(), _power(band.pilot).sum((1, 2, 3))) for n in starts for band in _bands(noisy, clean, n)]
    mean, detail = (torch.cat(part) for part in zip(*known, strict=True))
    if not len(mean):
        return torch.full((EDGE, EDGE, EDGE // 2 + 1), torch.inf)
    limit = SOFT if (mean < SOFT).sum() >= FEWEST_BLOCKS else torch.inf
    flat = detail[mean < limit].median()
    total, count = torch.zeros(EDGE, EDGE, EDGE // 2 + 1), 0
    for first in starts:
        for band in _bands(noisy, clean, first):
            chosen = (band.mean.abs() < limit) & (_power(band.pilot).sum((1, 2, 3)) <= flat)
            total, count = total + _power(band.removed[chosen]).sum(0), count + int(chosen.sum())
    return (total / count).clamp_min(1e-12)


def given_power(white: torch.Tensor, power: torch.Tensor) -> torch.Tensor:
    """White noise (D, H, W) of variance 1 -> noise with about these powers, (8, 8, 5), in blocks."""
    before = tuple(-(-n // STEP) * STEP + EDGE for n in white.shape)
    sums = torch.zeros(before)
    lines = [reflected_range(-STEP, n, size) for n, size in zip(before, white.shape, strict=True)]
    for first in range(0, before[0] - EDGE + 1, STEP):
        blocks = _cut(white, (lines[0][first : first + EDGE], lines[1], lines[2]))
        colored = _transformed(blocks) * (power * EDGE**3 / _window().square().sum()).sqrt()
        whole = Band(
            0, (before[1], before[2]), colored, colored, torch.ones(len(blocks), dtype=torch.bool), blocks[:, 0, 0, 0]
        )
        sums[first : first + EDGE] += _placed(colored, whole)
    return sums[tuple(slice(STEP, STEP + n) for n in white.shape)]


def _bands(noisy: torch.Tensor, clean: torch.Tensor, first: int) -> Iterator[Band]:
    """The blocks from plane ``first`` on; the image continues by reflection."""
    depth, height, width = clean.shape
    planes, columns = reflected_range(first, EDGE, depth), STEP * _blocks(width) + EDGE - STEP
    for top in range(0, _blocks(height), BAND):
        rows = STEP * min(BAND, _blocks(height) - top) + EDGE - STEP
        lines = (planes, reflected_range(STEP * (top - 1), rows, height), reflected_range(-STEP, columns, width))
        before, after = (_cut(image, lines) for image in (noisy, clean))
        mean = after.mean((1, 2, 3))
        kept = mean > AIR
        before, after, mean = before[kept], after[kept], mean[kept]
        pilot = _transformed(after - mean[:, None, None, None])
        yield Band(STEP * top, (rows, columns), pilot, _transformed(before - after), kept, mean)


def _blocks(length: int) -> int:
    """Blocks along an axis: the first begins ``STEP`` before the image, the last covers its end."""
    return -(-length // STEP) + 1


def _cut(image: torch.Tensor, lines: tuple[np.ndarray, np.ndarray, np.ndarray]) -> torch.Tensor:
    """(N, 8, 8, 8) blocks of the voxels at these places along each axis."""
    for axis, line in enumerate(lines):
        image = image.index_select(axis, torch.from_numpy(line))
    blocks = image.unfold(1, EDGE, STEP).unfold(2, EDGE, STEP)  # (8, rows, columns, 8, 8)
    return blocks.permute(1, 2, 0, 3, 4).reshape(-1, EDGE, EDGE, EDGE)


def _placed(coefficients: torch.Tensor, band: Band) -> torch.Tensor:
    """(8, height, width): blocks transformed back and added up where they lie."""
    blocks = torch.zeros(len(band.kept), EDGE, EDGE * EDGE)
    shares = torch.fft.irfftn(coefficients, (EDGE, EDGE, EDGE), dim=(1, 2, 3), norm="ortho") * _window()
    blocks[band.kept] = shares.reshape(-1, EDGE, EDGE * EDGE)
    columns = blocks.permute(1, 2, 0).reshape(1, EDGE**3, -1)
    return functional.fold(columns, band.across, EDGE, stride=STEP)[0]


def _power(coefficients: torch.Tensor) -> torch.Tensor:
    return coefficients.real.square() + coefficients.imag.square()


def _transformed(blocks: torch.Tensor) -> torch.Tensor:
    """(n, 8, 8, 8) -> windowed Fourier coefficients (n, 8, 8, 5)."""
    if not len(blocks):  # the library behind it refuses to transform nothing
        return torch.zeros(0, EDGE, EDGE, EDGE // 2 + 1, dtype=torch.complex64)
    return torch.fft.rfftn(blocks * _window(), dim=(1, 2, 3), norm="ortho")


@cache
def _window() -> torch.Tensor:
    """(8, 8, 8): its square, summed over overlapping blocks, is 1."""
    line = torch.sin(math.pi / EDGE * (torch.arange(EDGE) + 0.5))
    return line[:, None, None] * line[:, None] * line
