"""Bending through a hole, and denoising from coarse to fine: what holds for any model."""

import numpy as np
import pytest
import torch

from MedDiffFMLib.conditioning.condition import Condition
from MedDiffFMLib.imaging.biharmonic import biharmonic_interpolation
from MedDiffFMLib.models.checkpoint import load_model
from MedDiffFMLib.tasks.denoise.coarse_to_fine import SCALES, coarser, denoise_coarse_to_fine

SPACING = (0.8, 0.8, 2.5)


@pytest.fixture
def hole():
    inside = np.zeros((14, 24, 24), bool)
    inside[5:9, 8:16, 9:15] = True
    return inside


def test_a_plane_is_continued_whatever_lies_in_the_hole(hole):
    k, j, i = np.indices(hole.shape)
    plane = 2.0 * k - j + 0.5 * i
    filled = biharmonic_interpolation(np.where(hole, 999.0, plane), hole, np.zeros(hole.shape), SPACING)
    assert np.abs(filled - plane).max() < 0.05


def test_known_voxels_stay_and_the_filling_keeps_their_range(hole):
    image = np.random.default_rng(0).normal(0, 30, hole.shape)
    image[:, :, :9] = -850
    filled = biharmonic_interpolation(image, hole, image, SPACING)
    assert np.array_equal(filled[~hole], image[~hole])
    assert filled[hole].min() >= image.min() and filled[hole].max() <= image.max()


def test_a_large_hole_takes_bounded_time(hole):
    large = np.zeros((48, 60, 60), bool)
    large[4:44, 5:55, 5:55] = True
    start = np.zeros(large.shape)
    filled = biharmonic_interpolation(np.full(large.shape, 40.0), large, start, SPACING, iterations=20)
    assert np.isfinite(filled).all()


def test_coarser_condition_is_that_of_the_same_place():
    line = torch.linspace(-1, 1, 9)
    condition = Condition((3.0, 1.0, 1.0), (line, line, line), 1, torch.arange(729, dtype=torch.uint8).reshape(9, 9, 9))
    half = coarser(condition, 2)
    assert half.spacing == (3.0, 2.0, 2.0)
    k, j, i = half.coordinates
    assert torch.equal(k, line) and torch.allclose(j[:4], line[:8].reshape(4, 2).mean(1))
    assert half.anatomy.shape == (9, 5, 5) and len(i) == 5


def test_passes_keep_size_and_are_deterministic(tiny_model_file):
    engine = load_model(str(tiny_model_file), device="cpu", precision="float32").engine
    noisy = 0.1 * torch.randn(1, 1, 11, 21, 17)
    results = [denoise_coarse_to_fine(engine, noisy, 0.05, Condition((2.0, 1.0, 1.0))) for _ in range(2)]
    assert results[0].shape == noisy.shape
    assert torch.equal(*results) and not torch.equal(results[0], noisy)
    assert engine.calls >= 2 * len(SCALES)
