"""Blocks and their transform against the fast Fourier transform and plain definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from MedDiffFMLib.tasks.denoise.blocks import AIR, EMPTY, Blocks, PlaneSums, layers, power, sampled_blocks

DEPTHS = [8, 4, 2]
SHAPES = [(11, 21, 18), (9, 70, 13), (3, 9, 8), (1, 40, 17)]


def window(depth: int) -> torch.Tensor:
    """(depth, 8, 8), float64."""
    lines = [torch.sin(math.pi / n * (torch.arange(n, dtype=torch.float64) + 0.5)) for n in (depth, 8, 8)]
    return lines[0][:, None, None] * lines[1][:, None] * lines[2]


def every_block(image: torch.Tensor, first: int, depth: int) -> torch.Tensor:
    """(N, depth, 8, 8) of the layer from plane ``first`` on, float64, of an image that goes on by reflection."""
    rows, columns = (4 * (-(-n // 4) + 1) + 4 for n in image.shape[1:])
    widths = [(depth, 2 * depth), (4, rows - image.shape[1] - 4), (4, columns - image.shape[2] - 4)]
    whole = torch.from_numpy(np.pad(image.double().numpy(), widths, mode="reflect"))
    slices = whole[first + depth : first + 2 * depth]
    return slices.unfold(1, 8, 4).unfold(2, 8, 4).permute(1, 2, 0, 3, 4).flatten(0, 1)


def fast_transform(blocks: torch.Tensor) -> torch.Tensor:
    """(n, depth, 8, 5) complex."""
    depth = blocks.shape[1]
    return torch.fft.rfftn(blocks * window(depth), dim=(1, 2, 3), norm="ortho")


def as_complex(coefficients: torch.Tensor) -> torch.Tensor:
    real, imaginary = coefficients.double().unflatten(3, (8, 5)).transpose(1, 2)
    return torch.complex(real, imaginary)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("shape", SHAPES)
def test_coefficients_are_those_of_the_fast_transform(shape: tuple[int, int, int], depth: int) -> None:
    """Of all blocks of each layer, with their means and without, beyond the ends of the image, too."""
    image = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    firsts = []
    for first, layer in layers(image, depth):
        blocks = every_block(image, first, depth)
        every = torch.arange(len(blocks))
        mean = blocks.mean((1, 2, 3))
        found = layer.coefficients(every)
        assert found.shape == (2, depth, len(blocks), 40) and layer.coefficients(every[:0]).shape[2] == 0
        assert torch.allclose(as_complex(found), fast_transform(blocks), atol=1e-5)
        assert torch.allclose(power(found).double(), fast_transform(blocks).abs().square().flatten(2).transpose(0, 1))
        beyond = fast_transform(blocks - mean[:, None, None, None])
        assert torch.allclose(as_complex(layer.less_mean(found, every)), beyond, atol=1e-5)
        assert torch.allclose(layer.mean.double(), mean, atol=1e-6)
        firsts.append(first)
    assert firsts == list(range(-(depth // 2), len(image), depth // 2))


@pytest.mark.parametrize("depth", DEPTHS)
def test_blocks_are_placed_as_by_the_fast_transform(depth: int) -> None:
    """With coefficients weakened by factors that differ between a frequency and its mirror image, and beside a number
    of each block."""
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(11, 21, 18, generator=generator)
    rows, columns = 7, 6
    sums, found = PlaneSums(image.shape, depth, 1), []
    expected = torch.zeros(2, 11 + 2 * depth, 4 * rows + 4, 4 * columns + 4, dtype=torch.float64)
    for first, layer in layers(image, depth):
        some = torch.nonzero(torch.rand(rows * columns, generator=generator) < 0.7)[:, 0]
        factors = torch.rand(depth, len(some), 40, generator=generator)
        numbers = torch.rand(rows * columns, generator=generator)
        sums.add(some, layer.coefficients(some) * factors)
        sums.spread(0, numbers)
        found.append(sums.finished(first))
        changed = fast_transform(every_block(image, first, depth)[some])
        changed = changed * factors.double().unflatten(2, (8, 5)).transpose(0, 1)
        back = torch.fft.irfftn(changed, (depth, 8, 8), dim=(1, 2, 3), norm="ortho") * window(depth)
        for kind, places, blocks in (
            (0, some, back),
            (1, torch.arange(rows * columns), numbers.double()[:, None, None, None] * window(depth).square()),
        ):
            for place, block in zip(places.tolist(), blocks, strict=True):
                row, column = 4 * (place // columns), 4 * (place % columns)
                expected[kind, first + depth : first + 2 * depth, row : row + 8, column : column + 8] += block
    inside = expected[:, depth : depth + 11, 4 : 4 + 21, 4 : 4 + 18]
    assert torch.allclose(torch.cat(found, 1).double(), inside, atol=1e-5)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("shape", SHAPES)
def test_unchanged_coefficients_give_the_image_back(shape: tuple[int, int, int], depth: int) -> None:
    image = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    sums, planes = PlaneSums(image.shape, depth), []
    for first, layer in layers(image, depth):
        for band in layer.bands:
            blocks = torch.arange(band.start, band.stop)
            sums.add(blocks, layer.coefficients(blocks))
        planes.append(sums.finished(first)[0])
    assert torch.allclose(torch.cat(planes), image, atol=1e-5)


@pytest.mark.parametrize("depth", DEPTHS)
def test_sampled_blocks_are_the_same_of_all_images_and_no_air(depth: int) -> None:
    generator = torch.Generator().manual_seed(4)
    image = torch.randn(70, 30, 30, generator=generator) * 0.01
    image[:, :, :14] -= 1
    one, two = sampled_blocks(depth, image, image * 2 + 1)
    every = torch.arange(one.within.shape[2])
    some = as_complex(one.coefficients(every))
    beyond = some - one.mean.double()[:, None, None, None] * fast_transform(torch.ones(1, depth, 8, 8).double())
    assert torch.allclose(as_complex(two.less_mean(two.coefficients(every), every)), 2 * beyond, atol=1e-5)
    assert len(one.mean) > 100 and float(one.mean.min()) > AIR
    known = torch.cat([fast_transform(every_block(image, first, depth)) for first in range(0, 71 - depth, depth // 2)])
    nearest = torch.cdist(torch.view_as_real(some).flatten(1)[:20], torch.view_as_real(known).flatten(1)).min(1).values
    assert float(nearest.max()) < 1e-5


def test_empty_is_air_whose_variance_is_that_of_noise() -> None:
    generator = torch.Generator().manual_seed(3)
    deviation, above = (torch.rand(200, 1, 1, 1, generator=generator) * most for most in (0.04, 0.1))
    blocks = above - 1 + deviation * torch.randn(200, 8, 8, 8, generator=generator)
    flat = blocks.flatten(1) + 1
    found = Blocks(torch.zeros(2, 8, 200, 40), torch.stack([flat.sum(1), flat.square().sum(1)]))
    airy = blocks.flatten(1).mean(1) <= AIR
    for level in (0.01, 0.02, math.inf):
        quiet = blocks.double().flatten(1).var(1) <= EMPTY * level**2
        assert torch.equal(found.is_empty(level), airy & quiet)
    assert 0 < int(found.is_empty(0.01).sum()) < int(airy.sum()) < 200
