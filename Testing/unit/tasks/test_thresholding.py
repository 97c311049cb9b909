"""Block thresholding: noise of any spectrum goes, wherever it is strongest, and edges stay."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from MedDiffFMLib.tasks.denoise.blocks import block_depth, level
from MedDiffFMLib.tasks.denoise.thresholding import spectrum, thresholded_planes

RANDOM = np.random.default_rng(0)
WHITE = 0.03 * RANDOM.standard_normal((24, 72, 72))


def thresholded(image, threshold=2.5, limits=(0.0, np.inf), depth=8):
    return torch.stack(list(thresholded_planes(torch.from_numpy(image).float(), threshold, depth, limits))).numpy()


@pytest.mark.parametrize("depth", [8, 4, 2])
@pytest.mark.parametrize("blur", [0.0, 1.0])
def test_edges_stay_and_noise_of_any_spectrum_goes(blur, depth):
    noise = ndimage.gaussian_filter(WHITE, (0, blur, blur))
    noise *= 0.03 / noise.std()
    tissue = np.zeros_like(noise)
    tissue[:, 24:48, 24:48] = 0.2
    error = thresholded(tissue + noise, depth=depth) - tissue
    assert level(spectrum(torch.from_numpy(tissue + noise).float())) == pytest.approx(0.03, rel=0.15)
    most = {8: 0.2, 4: 0.3, 2: 0.4}[depth] * noise.std()  # fewer voxels of noise, a poorer mean
    assert error[:, :16].std() < most and error.std() < most


def test_noise_goes_where_it_is_stronger_than_elsewhere():
    strength = np.linspace(0.5, 1.5, 72)
    noise = WHITE * strength
    error = thresholded(noise)
    assert error[..., 60:].std() < 0.35 * noise[..., 60:].std()


def test_a_level_that_is_told_counts():
    tissue = np.zeros_like(WHITE)
    tissue[:, 24:48, 24:48] = 0.1 * np.sin(np.arange(24) * 2 * np.pi / 6)
    kept, lost = (thresholded(tissue + WHITE, limits=(told, told))[:, 28:44, 28:44] for told in (0.03, 1.0))
    assert kept.std() > 0.8 * tissue[:, 28:44, 28:44].std() and lost.std() < 0.3 * tissue[:, 28:44, 28:44].std()


@pytest.mark.parametrize("shape", [(1, 40, 17), (3, 9, 8)])
def test_small_images_and_air_are_no_obstacle(shape):
    air = np.full(shape, -0.99)
    assert np.allclose(thresholded(air), air, atol=1e-5)
    assert thresholded(air + 1).shape == shape


def test_a_thin_sheet_in_air_stays_and_empty_air_is_even():
    """Clothes, septa of an airy lung, walls of bowel: a block's mean is air, but it is not empty."""
    clean = np.full(WHITE.shape, -0.99)
    clean[..., :36] = 0.0
    clean[..., 60:62] = -0.9
    result = thresholded(clean + WHITE / 3, threshold=3.0)[4:-4, 8:-8]
    assert result[..., 60:62].mean() == pytest.approx(-0.9, abs=0.015)
    assert result[..., 45:52].std() < 0.3 * WHITE.std() / 3


def test_blocks_of_thick_slices_hold_fewer_and_follow_what_changes_between_them():
    """A tissue that is another in every second slice of 5 mm: eight slices smear it, two do not."""
    edges = (1, 1, 1), (3.3, 1, 1), (4.4, 4.4, 4.4), (5, 1.5, 1.5), (5, 0.8, 0.8)
    assert [block_depth(mm) for mm in edges] == [8, 8, 8, 4, 2]
    tissue = np.zeros(WHITE.shape)
    for k, shift in enumerate(RANDOM.integers(0, 24, len(tissue))):
        tissue[k, 20 + shift : 36 + shift, 20:52] = 0.1
    errors = [np.square(thresholded(tissue + WHITE, 3.0, depth=depth) - tissue).mean() for depth in (8, 2)]
    assert errors[1] < errors[0]
