"""Blocks and their transform against the fast Fourier transform and plain definitions."""

from __future__ import annotations

import math

import pytest
import torch

from MedDiffFMLib.tasks.denoise.blocks import (
    AIR,
    EMPTY,
    PlaneSums,
    bands,
    is_empty,
    layers,
    power,
    scaled,
    transformed,
    window,
)

DEPTHS = [8, 4, 2]


def fast_transform(blocks: torch.Tensor) -> torch.Tensor:
    depth = blocks.shape[1]
    return torch.fft.rfftn(blocks.double() * window(depth).double(), dim=(1, 2, 3), norm="ortho")


@pytest.mark.parametrize("depth", DEPTHS)
def test_coefficients_are_those_of_the_fast_transform(depth: int) -> None:
    blocks = torch.randn(30, depth, 8, 8, generator=torch.Generator().manual_seed(0))
    expected, found = fast_transform(blocks), transformed(blocks)
    assert found.shape == (30, depth, 2, 8, 5) and len(transformed(blocks[:0])) == 0
    assert torch.allclose(found[:, :, 0].double(), expected.real, atol=1e-5)
    assert torch.allclose(found[:, :, 1].double(), expected.imag, atol=1e-5)
    assert torch.allclose(power(found).double(), expected.abs().square(), atol=1e-4)


@pytest.mark.parametrize("depth", DEPTHS)
def test_blocks_are_placed_as_by_the_fast_transform(depth: int) -> None:
    """With coefficients weakened by factors that differ between a frequency and its mirror image, too."""
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(11, 21, 18, generator=generator)
    band = next(bands(image.shape, 2, depth))
    blocks = band.cut(image)
    kept = torch.rand(len(blocks), generator=generator) < 0.7
    factors = torch.rand(int(kept.sum()), depth, 8, 5, generator=generator)
    changed = fast_transform(blocks[kept]) * factors.double()
    back = torch.fft.irfftn(changed, (depth, 8, 8), dim=(1, 2, 3), norm="ortho") * window(depth).double()
    expected = torch.zeros(depth, *band.across, dtype=torch.float64)
    columns = band.blocks[1]
    for place, block in zip(torch.nonzero(kept)[:, 0].tolist(), back, strict=True):
        row, column = 4 * (place // columns), 4 * (place % columns)
        expected[:, row : row + 8, column : column + 8] += block
    assert torch.allclose(band.placed(scaled(transformed(blocks[kept]), factors), kept).double(), expected, atol=1e-5)


@pytest.mark.parametrize("depth", DEPTHS)
def test_unchanged_coefficients_give_the_image_back(depth: int) -> None:
    image = torch.randn(9, 70, 13, generator=torch.Generator().manual_seed(2))
    sums, planes = PlaneSums(image.shape, depth), []
    for first in layers(len(image), depth):
        for band in bands(image.shape, first, depth):
            coefficients = transformed(band.cut(image))
            sums.add(band, band.placed(coefficients, torch.ones(len(coefficients), dtype=torch.bool)))
        planes.append(sums.finished(first)[0])
    assert torch.allclose(torch.cat(planes), image, atol=1e-5)


def test_empty_is_air_whose_variance_is_that_of_noise() -> None:
    generator = torch.Generator().manual_seed(3)
    deviation, above = (torch.rand(200, 1, 1, 1, generator=generator) * most for most in (0.04, 0.1))
    blocks = above - 1 + deviation * torch.randn(200, 8, 8, 8, generator=generator)
    airy = blocks.flatten(1).mean(1) <= AIR
    for level in (0.01, 0.02, math.inf):
        quiet = blocks.double().flatten(1).var(1) <= EMPTY * level**2
        assert torch.equal(is_empty(blocks, level), airy & quiet)
    assert 0 < int(is_empty(blocks, 0.01).sum()) < int(airy.sum()) < 200
