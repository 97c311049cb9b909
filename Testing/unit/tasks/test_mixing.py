"""Non-local means in the result: by a share that is near the best one, and never at much cost."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from MedDiffFMLib.core.errors import Cancelled
from MedDiffFMLib.core.progress import CancelToken, ProgressMeter
from MedDiffFMLib.imaging.io import read_volume
from MedDiffFMLib.imaging.non_local_means import non_local_means
from MedDiffFMLib.tasks.denoise import mixing
from MedDiffFMLib.tasks.denoise.mixing import mixed_planes, share_of_means

SIGMA = 0.03


def scan():
    """24 slices of the bundled chest, network range."""
    voxels = read_volume(Path(__file__).parents[3] / "Resources" / "SampleData" / "thorax_lidc0001.nrrd").voxels
    part = ndimage.gaussian_filter(voxels[50:74, 60:156, 60:188].astype(np.float32), 1)
    return torch.from_numpy(part.clip(-1000, 1000) / 1000)


def noise_of(shape, blur):
    noise = ndimage.gaussian_filter(np.random.default_rng(3).standard_normal(shape).astype(np.float32), (0, blur, blur))
    return torch.from_numpy(SIGMA * noise / noise.std())


def blurred(kept):
    """A denoiser that keeps a part of the noise and blurs the rest."""

    def denoised(window, box, level):
        smooth = torch.from_numpy(ndimage.gaussian_filter(window.numpy(), 0.7))
        return smooth.lerp(window, kept)

    return denoised


@pytest.mark.parametrize("blur", [0.0, 0.6])
@pytest.mark.parametrize("kept", [0.0, 0.4, 0.8])
def test_the_share_is_that_of_the_least_error(kept, blur, monkeypatch):
    """Against the truth, which the risk has not seen, for white noise and for noise that neighbors share."""
    clean = scan()
    noisy = clean + noise_of(clean.shape, blur)
    monkeypatch.setattr(mixing, "LEAST", 0.0)
    monkeypatch.setattr(mixing, "SHARED", (2.0, 3.0))
    told = share_of_means(noisy, SIGMA, blurred(kept)) ** 0.5
    result = blurred(kept)(noisy, None, SIGMA)
    change = torch.from_numpy(non_local_means(noisy.numpy(), SIGMA)) - result
    change[result.abs() > mixing.SOFT] = 0
    best = float((change * (clean - result)).sum() / change.square().sum())
    assert told == pytest.approx(np.clip(best, 0, 1), abs=0.2)

    def error(share):
        return float((result + share * change - clean)[result.abs() <= mixing.SOFT].square().mean())

    assert error(told**2) < 1.02 * error(0)


def test_texture_that_goes_on_through_slices_is_no_noise(monkeypatch):
    """As strong as the noise, and alike to it in every slice; only the next slice tells them apart."""
    shape = (24, 96, 128)
    noise, texture = noise_of(shape, 0.6), noise_of(shape, 0.6)[:1].expand(shape)
    told = SIGMA * 2**0.5
    assert share_of_means(noise * 2**0.5, told, blurred(0.4)) > 0.5
    assert share_of_means(noise + texture, told, blurred(0.4)) == 0
    monkeypatch.setattr(mixing, "SHARED", (2.0, 3.0))
    assert share_of_means(noise + texture, told, blurred(0.4)) > 0.3


def test_what_cannot_be_bettered_stays():
    """A denoiser that knows the truth gets no non-local means; without tissue to look at there are none either."""
    clean = scan()
    noisy = clean + noise_of(clean.shape, 0.0)
    assert share_of_means(noisy, SIGMA, lambda window, box, level: clean[box]) == 0
    meter = ProgressMeter(1)
    assert share_of_means(torch.full((4, 20, 20), -1.0), SIGMA, blurred(0), meter=meter) == 0
    assert meter.done == 1


def test_planes_are_mixed_where_there_is_tissue():
    noisy = torch.full((19, 48, 40), -1.0)
    noisy[:, 12:30, 10:25] = 0.05 * torch.randn(19, 18, 15, generator=torch.Generator().manual_seed(0))
    result = noisy.clone() + 0.01
    found = torch.stack(list(mixed_planes(noisy, iter(result), 0.25, 0.05)))
    whole = torch.from_numpy(non_local_means(noisy.numpy(), 0.05))
    assert torch.allclose(found[:, 14:28, 12:23], (0.75 * result + 0.25 * whole)[:, 14:28, 12:23], atol=1e-3)
    assert torch.equal(found[:, :4], result[:, :4]) and torch.equal(found[:, :, 34:], result[:, :, 34:])


def test_mixing_can_be_cancelled():
    token = CancelToken()
    token.cancel()
    planes = mixed_planes(
        torch.zeros(4, 20, 20), iter(torch.zeros(4, 20, 20)), 0.5, 0.05, ProgressMeter(1, None, token)
    )
    with pytest.raises(Cancelled):
        next(planes)
