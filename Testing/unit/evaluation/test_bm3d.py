"""BM3D against known ground: closed forms, a photograph, and noise with a spectrum."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from MedDiffFMLib.evaluation.quality.baselines import bm3d


def psnr(image, truth):
    return 10 * np.log10(255**2 / np.mean(np.square(image - truth)))


def test_constants_stay_at_every_level_even_at_0_hu():
    for level in (0.0, -1000.0, 3.0):
        image = np.full((20, 33), level, np.float32)
        np.testing.assert_allclose(bm3d.bm3d(image, 25.0), image, atol=1e-3)


def test_without_noise_nothing_changes():
    image = np.random.default_rng(0).normal(0, 50, (16, 19)).astype(np.float32)
    assert np.array_equal(bm3d.bm3d(image, 0.0), image)
    np.testing.assert_allclose(bm3d.bm3d(image, 1e-3), image, atol=0.01)


def test_an_offset_passes_through():
    image = np.random.default_rng(1).normal(0, 20, (32, 32)).astype(np.float32)
    shifted = bm3d.bm3d(image + 700, 20.0) - 700
    np.testing.assert_allclose(shifted, bm3d.bm3d(image, 20.0), atol=0.05)


def test_noise_on_a_flat_image_nearly_vanishes():
    noise = np.random.default_rng(2).normal(0, 25, (64, 64)).astype(np.float32)
    assert bm3d.bm3d(100 + noise, 25.0).std() < 0.2 * 25


def test_images_narrower_than_a_block():
    image = np.random.default_rng(3).normal(0, 1, (5, 12)).astype(np.float32)
    assert bm3d.bm3d(image, 1.0).shape == image.shape


def test_haar_along_a_stack_is_orthonormal_and_its_first_coefficient_the_mean():
    stacks = np.random.default_rng(4).normal(size=(3, 8, 64)).astype(np.float32)
    there = bm3d._along(stacks)
    np.testing.assert_allclose(np.square(there).sum(), np.square(stacks).sum(), rtol=1e-5)
    np.testing.assert_allclose(there[:, 0], stacks.sum(axis=1) / np.sqrt(8), atol=1e-5)
    np.testing.assert_allclose(bm3d._along(there, back=True), stacks, atol=1e-5)


def test_blocks_are_compared_as_brute_force_compares_them():
    image = np.random.default_rng(5).normal(0, 10, (30, 26)).astype(np.float32)
    rows, columns = np.array([0, 3, 22]), np.array([6, 18])
    unlike, offsets = bm3d._differences(image, rows, columns)
    for reference, (row, column) in enumerate((r, c) for r in rows for c in columns):
        own = image[row : row + 8, column : column + 8]
        for number in (0, 19 * 39 + 19, 800, 1000):
            j, i = row + offsets[number, 0], column + offsets[number, 1]
            if 0 <= j <= 22 and 0 <= i <= 18:
                expected = np.square(own - image[j : j + 8, i : i + 8]).mean()
                assert unlike[reference, number] == pytest.approx(expected, rel=1e-4, abs=1e-3)
            else:
                assert unlike[reference, number] > 1e9


@pytest.mark.slow
def test_a_photograph_gets_better_than_by_non_local_means():
    """The cameraman of the literature (29.45 dB at 256 x 256) is no longer shipped; this is its successor's middle."""
    from skimage.data import camera
    from skimage.restoration import denoise_nl_means

    truth = camera()[140:268, 180:308].astype(np.float32)
    noisy = truth + np.random.default_rng(0).normal(0, 25, truth.shape).astype(np.float32)
    ours = psnr(bm3d.bm3d(noisy, 25.0), truth)
    options = {"patch_size": 5, "patch_distance": 6, "sigma": 25, "fast_mode": True}
    theirs = max(psnr(denoise_nl_means(noisy, h=h * 25, **options), truth) for h in (0.6, 0.8, 1.0))
    assert psnr(noisy, truth) == pytest.approx(20.2, abs=0.2)
    assert ours > theirs + 0.5
    assert ours > psnr(noisy, truth) + 8


def test_the_spectrum_of_white_noise_is_flat_and_that_of_smooth_noise_falls():
    white = np.random.default_rng(6).normal(0, 7, (3, 64, 64))
    inside = np.ones(white.shape, bool)
    np.testing.assert_allclose(bm3d.spectrum(white, inside), 7, rtol=0.15)
    smooth = bm3d.spectrum(gaussian_filter(white, (0, 1.5, 1.5)), inside)
    assert smooth[0, 0] > 10 * smooth[7, 7]
    half = inside & (np.arange(64) < 32)
    np.testing.assert_allclose(bm3d.spectrum(np.where(half, white, 1e6), half), 7, rtol=0.2)


def test_knowing_the_spectrum_helps_against_correlated_noise():
    y, x = np.mgrid[:72, :72] - 35.5
    truth = np.where(np.hypot(x, y) < 20, 120.0, 40.0).astype(np.float32)
    noise = gaussian_filter(np.random.default_rng(7).normal(0, 1, (1, 72, 72)), (0, 1.2, 1.2)).astype(np.float32)
    noise *= 25 / noise.std()
    levels = bm3d.spectrum(noise, np.ones(noise.shape, bool))
    told = np.square(bm3d.bm3d(truth + noise[0], levels) - truth).mean()
    plain = np.square(bm3d.bm3d(truth + noise[0], 25.0) - truth).mean()
    assert told < 0.7 * plain
