"""The Wiener filter beside the network gives back tissue and nothing else."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from MedDiffFMLib.tasks.denoise.wiener import returned_detail


def detail(noisy, clean, strength=1.0):
    return torch.stack(list(returned_detail(noisy, clean, strength)))


@pytest.mark.parametrize("shape", [(13, 30, 21), (3, 9, 8), (1, 40, 17)])
def test_without_noise_everything_comes_back(shape):
    """Blocks add up to the image they were cut from, whatever its size."""
    clean, removed = 0.01 * torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(detail(clean + removed, clean, strength=1e-6), removed, atol=1e-5)


def test_noise_stays_away_and_lost_contrast_returns():
    random = np.random.default_rng(0)
    tissue = np.zeros((16, 64, 64))
    tissue[:, 20:44, 20:44] = 0.1
    noise = 0.02 * random.standard_normal(tissue.shape)
    blurred = ndimage.gaussian_filter(tissue, (0, 1, 1))
    noisy, clean = (torch.from_numpy(image).float() for image in (tissue + noise, blurred))
    result = (clean + detail(noisy, clean)).numpy()
    edge = np.abs(blurred - tissue) > 0.01
    assert np.abs(result - tissue)[edge].mean() < 0.6 * np.abs(blurred - tissue)[edge].mean()
    assert (result - tissue)[:, :12].std() < 0.3 * noise.std()


def test_air_is_left_alone():
    noisy = torch.full((8, 24, 24), -0.99) + 0.01 * torch.randn(8, 24, 24, generator=torch.Generator().manual_seed(0))
    assert not detail(noisy, torch.full((8, 24, 24), -1.0)).any()
