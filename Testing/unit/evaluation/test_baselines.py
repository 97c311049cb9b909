"""The baselines do what they are known for."""

from __future__ import annotations

import numpy as np
import pytest

from MedDiffFMLib.evaluation.quality import low_dose_noise
from MedDiffFMLib.evaluation.quality.baselines import classical as baselines
from MedDiffFMLib.evaluation.quality.regions import distance_mm

SPACING = (1.0, 1.0, 3.0)


def smooth_field(shape, seed=0):
    from scipy.ndimage import gaussian_filter

    return 1000 * gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 4).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("method", [baselines.non_local_means, baselines.total_variation, baselines.block_matching])
def test_denoisers_reduce_ct_noise(method):
    y, x = np.mgrid[:96, :96] - 47.5
    truth = np.where(np.hypot(x, y) < 42, 40.0, -1000.0).astype(np.float32)
    truth[np.hypot(x - 12, y) < 10] = 140
    truth = np.repeat(truth[None], 3, axis=0)
    noise = low_dose_noise.low_dose_noise(truth, (2.0, 2.0, 3.0), 1e5, 0.25, seed=0)
    inside = np.hypot(x, y) < 40
    noise *= 30 / noise[:, inside].std()
    result = method(truth + noise, 30.0)
    assert np.square(result - truth)[:, inside].mean() < 0.5 * np.square(noise)[:, inside].mean()
    assert abs((result - truth)[:, np.hypot(x - 12, y) < 6].mean()) < 15


def test_mean_fill_is_the_shells_mean_for_each_part():
    volume = np.zeros((9, 30, 60), np.float32)
    volume[:, :, 30:] = 100
    mask = np.zeros(volume.shape, bool)
    mask[3:6, 10:16, 10:16] = mask[3:6, 10:16, 42:48] = True
    hidden = np.where(mask, 5000, volume)
    filled = baselines.mean_fill(hidden, mask, SPACING)
    assert np.array_equal(filled, volume)


def test_biharmonic_fill_continues_planes_exactly_whatever_the_voxels():
    k, j, i = np.mgrid[:12, :24, :24]
    plane = (3.0 * k * SPACING[2] - 2.0 * j + 1.5 * i).astype(np.float32)
    mask = distance_mm(plane.shape, (6, 12, 12), SPACING) <= 7
    filled = baselines.biharmonic_fill(np.where(mask, -999, plane), mask, SPACING)
    np.testing.assert_allclose(filled, plane, atol=1e-3)


def test_biharmonic_fill_is_that_of_scikit_image_on_cubes():
    from skimage.restoration import inpaint_biharmonic

    volume = smooth_field((22, 22, 22))
    mask = distance_mm(volume.shape, (11, 11, 11), (1, 1, 1)) <= 5
    ours = baselines.biharmonic_fill(volume, mask, (1.0, 1.0, 1.0))
    np.testing.assert_allclose(ours[mask], inpaint_biharmonic(volume, mask)[mask], atol=0.05)


@pytest.mark.parametrize("fill", [baselines.mean_fill, baselines.biharmonic_fill])
def test_fills_never_see_what_is_inside(fill):
    volume = smooth_field((12, 32, 32))
    mask = distance_mm(volume.shape, (6, 16, 16), SPACING) <= 8
    filled = fill(volume, mask, SPACING)
    assert np.array_equal(filled, fill(np.where(mask, 3000, volume), mask, SPACING))
    assert np.array_equal(filled[~mask], volume[~mask])
    assert np.isfinite(filled).all()


def test_local_residual_marks_a_lesion_and_not_the_skin():
    body = distance_mm((16, 64, 64), (8, 32, 32), (2.0, 2.0, 3.0)) < 55
    volume = np.where(body, 50.0, -1000.0)
    lesion = distance_mm(volume.shape, (8, 32, 44), (2.0, 2.0, 3.0)) < 6
    score = baselines.local_residual(np.where(lesion, 130, volume), body, (2.0, 2.0, 3.0))
    assert score[lesion].mean() > 5 * score[body & ~lesion].mean()
    assert score[~body].max() == 0
    assert baselines.local_residual(volume, body, (2.0, 2.0, 3.0)).max() < 1e-2
