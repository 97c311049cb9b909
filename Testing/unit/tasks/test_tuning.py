"""Denoising that is tuned to the scan: better where weights are poor, the same by seed, cancelled in between."""

import numpy as np
import pytest
import torch

from MedDiffFMLib.core.errors import Cancelled, InputError
from MedDiffFMLib.core.progress import CancelToken
from MedDiffFMLib.models.checkpoint import load_model
from MedDiffFMLib.tasks.base import Case, Run
from MedDiffFMLib.tasks.denoise.spec import Denoise
from MedDiffFMLib.tasks.denoise.wiener import given_power, noise_power


@pytest.fixture(scope="module")
def model(tiny_model_file):
    return load_model(str(tiny_model_file), device="cpu", precision="float32")


@pytest.fixture(scope="module")
def noisy(small_ct):
    noise = np.random.default_rng(1).normal(0, 40, small_ct.voxels.shape)
    return small_ct.with_voxels((small_ct.voxels + noise).astype(np.int16))


@pytest.mark.slow
def test_weights_that_fit_badly_come_nearer_to_the_truth(model, small_ct, noisy):
    """The network's weights are random."""
    body = np.abs(small_ct.voxels) < 300
    weights = [parameter.clone() for parameter in model.engine.denoiser.parameters()]

    def error(result):
        return np.sqrt(np.square(result.volumes["denoised"] - small_ct.voxels.astype(float))[body].mean())

    plain, tuned, again = (
        Denoise(noise=40, non_local=0, detail=0, tune=tune).run(Case(noisy), Run(model)) for tune in (False, True, True)
    )
    assert tuned.facts["tuned"] and tuned.facts["tuning_gain_percent"] > 0
    assert error(tuned) < 0.95 * error(plain)
    assert np.array_equal(tuned.volumes["denoised"], again.volumes["denoised"])
    assert all(torch.equal(a, b) for a, b in zip(weights, model.engine.denoiser.parameters(), strict=True))


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
    noise = given_power(torch.randn(40, 64, 64, generator=generator), power)
    found = noise_power(noise, torch.zeros_like(noise))
    smooth = torch.ones(3, 3, 3) / 27
    blurred = [torch.nn.functional.conv3d(p[None, None], smooth[None, None])[0, 0] for p in (power, found)]
    assert torch.allclose(blurred[0], blurred[1], rtol=0.25)
