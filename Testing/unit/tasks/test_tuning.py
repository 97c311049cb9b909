"""Denoising that is tuned to the scan: better where weights are poor, the same by seed, cancelled in between."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from MedDiffFMLib.core.errors import Cancelled, InputError
from MedDiffFMLib.core.progress import CancelToken
from MedDiffFMLib.imaging.io import read_volume
from MedDiffFMLib.models.checkpoint import load_model
from MedDiffFMLib.preprocessing.mask_crop import crop
from MedDiffFMLib.tasks.base import Case, Run
from MedDiffFMLib.tasks.denoise import supervised
from MedDiffFMLib.tasks.denoise.coarse_to_fine import PriorPasses
from MedDiffFMLib.tasks.denoise.spec import Denoise
from MedDiffFMLib.tasks.denoise.wiener import given_power, noise_power


@pytest.fixture(scope="module")
def model(tiny_model_file):
    return load_model(str(tiny_model_file), device="cpu", precision="float32")


def crop_of_sample():
    """48 x 64 x 64 voxels of the bundled chest, heart and muscle among them."""
    sample = read_volume(Path(__file__).parents[3] / "Resources" / "SampleData" / "thorax_lidc0001.nrrd")
    k, j, i = (n // 2 for n in sample.voxels.shape)
    return crop(sample, (slice(k - 24, k + 24), slice(j - 32, j + 32), slice(i - 32, i + 32)))


@pytest.fixture(scope="module")
def noisy(small_ct):
    noise = np.random.default_rng(1).normal(0, 40, small_ct.voxels.shape)
    return small_ct.with_voxels((small_ct.voxels + noise).astype(np.int16))


@pytest.mark.slow
@pytest.mark.parametrize("prior", [False, True])
def test_a_spoiled_layer_is_mended_and_the_model_stays_as_it_is(prior, monkeypatch):
    """The shipped network's last layer is weakened; a crop of the sample CT is denoised with and without tuning."""
    model, clean = load_model(device="cpu"), crop_of_sample()
    small = copy.deepcopy(supervised.shipped_denoiser())
    monkeypatch.setattr(supervised, "shipped_denoiser", lambda: small)
    layer = (PriorPasses(model.engine) if prior else supervised.Supervised(model.engine, small)).last_layer
    with torch.no_grad():
        layer.weight *= 0.35
    network = model.engine.denoiser if prior else small
    weights = [parameter.clone() for parameter in network.parameters()]
    noise = np.random.default_rng(1).normal(0, 40, clean.voxels.shape)
    noisy, body = clean.with_voxels((clean.voxels + noise).astype(np.int16)), np.abs(clean.voxels) < 300

    def error(result):
        return np.sqrt(np.square(result.volumes["denoised"] - clean.voxels.astype(float))[body].mean())

    ways = [Denoise(noise=40, prior=prior, tune=tune) for tune in (False, True, True)]
    plain, tuned, again = (way.run(Case(noisy), Run(model)) for way in ways)
    assert tuned.facts["tuned"] and tuned.facts["tuning_gain_percent"] > 0
    assert error(tuned) < 0.97 * error(plain)
    assert np.array_equal(tuned.volumes["denoised"], again.volumes["denoised"])
    assert all(torch.equal(a, b) for a, b in zip(weights, network.parameters(), strict=True))


@pytest.mark.slow
def test_tuning_can_be_cancelled(model, noisy):
    token = CancelToken()

    def cancel(event):
        if event.fraction > 0.1:
            token.cancel()

    with pytest.raises(Cancelled):
        Denoise(noise=40, tune=True).run(Case(noisy), Run(model, progress=cancel, cancel=token))


def test_steps_are_not_tuned():
    with pytest.raises(InputError, match="steps"):
        Denoise(tune=True, steps=5)


def test_noise_is_drawn_with_the_power_that_was_seen():
    generator = torch.Generator().manual_seed(0)
    power = 1e-4 * torch.linspace(1, 9, 8 * 8 * 5).reshape(8, 8, 5)
    power = power + power.flip(0).roll(1, 0).flip(1).roll(1, 1)  # of a real image: equal at opposite frequencies
    noise = given_power(torch.randn(40, 64, 64, generator=generator), power.flatten(1))
    found = noise_power(noise, torch.zeros_like(noise)).unflatten(1, (8, 5))
    smooth = torch.ones(3, 3, 3) / 27
    blurred = [torch.nn.functional.conv3d(p[None, None], smooth[None, None])[0, 0] for p in (power, found)]
    assert torch.allclose(blurred[0], blurred[1], rtol=0.25)
