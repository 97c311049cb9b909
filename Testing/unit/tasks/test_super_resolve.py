"""Super-resolution keeps what was measured and lies where the input lies, whatever the weights are."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from MedDiffFMLib.cli import main
from MedDiffFMLib.core.errors import InputError, ModelError
from MedDiffFMLib.diffusion.controlled_denoiser import with_control
from MedDiffFMLib.imaging.io import read_volume, write_volume
from MedDiffFMLib.imaging.slice_averaging import average_blocks
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.models.checkpoint import load_model
from MedDiffFMLib.models.controlnet_file import save_control
from MedDiffFMLib.tasks.base import Case, Run
from MedDiffFMLib.tasks.super_resolve import self_training
from MedDiffFMLib.tasks.super_resolve.recipe import fit_range
from MedDiffFMLib.tasks.super_resolve.spec import SuperResolve
from MedDiffFMLib.training.finetune.registry import finetune_task


@pytest.fixture(scope="module")
def model(tiny_model_file):
    return load_model(str(tiny_model_file), device="cpu", precision="float32")


@pytest.fixture(scope="module")
def control(model, tmp_path_factory):
    """File of a ControlNet that changes the image by some tens of HU."""
    controlled = with_control(model.engine.denoiser, finetune_task("super-resolution").task().network())
    generator = torch.Generator().manual_seed(1)
    for parameter in controlled.control.parameters():
        parameter.data = 0.05 * torch.randn(parameter.shape, generator=generator)
    path = tmp_path_factory.mktemp("control") / "sr.safetensors"
    prior = {"name": model.name, "sha256": model.sha256}
    save_control(path, controlled.control, task="super-resolution", prior=prior, settings={"factors": [2, 3]})
    return str(path)


@pytest.fixture(scope="module")
def thick(small_ct):
    """8 slices of 12 mm of the small chest, some metal in one of them."""
    voxels = small_ct.voxels[4:36].reshape(8, 4, 48, 44).mean(1)[:, 8:40, 6:38]
    voxels = np.rint(voxels).astype(np.int16)
    voxels[3, 10:14, 10:14] = 3000
    matrix = small_ct.ijk_to_ras.copy()
    matrix[2, 2] = 12.0
    return Volume(voxels, matrix)


def turned(volume, axis):
    """The slices along another axis of the array, and of the patient."""
    order = {"k": (0, 1, 2), "j": (1, 0, 2), "i": (2, 1, 0)}[axis]
    matrix = volume.ijk_to_ras.copy()
    columns = matrix[:, [2, 1, 0]][:, list(order)]  # of k, j, i
    matrix[:, :3] = columns[:, ::-1]
    return Volume(np.ascontiguousarray(volume.voxels.transpose(order)), matrix)


def oblique(volume):
    angle = np.deg2rad(20)
    rotation = np.eye(4)
    rotation[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return Volume(volume.voxels, rotation @ volume.ijk_to_ras)


def positions(volume, index_kji):
    k, j, i = (part.ravel() for part in index_kji)
    return (volume.ijk_to_ras @ np.stack([i, j, k, np.ones(len(k))]))[:3]


def check_result(result, volume, factors):
    """Same number type, blocks that lie on the input's voxels and average to them."""
    fine = Volume(result.volumes["fine"], result.ijk_to_ras["fine"])
    assert fine.voxels.dtype == volume.voxels.dtype
    assert fine.voxels.shape == tuple(n * f for n, f in zip(volume.voxels.shape, factors, strict=True))
    assert np.allclose(fine.spacing, np.array(volume.spacing) / factors[::-1], atol=1e-9)
    centers = positions(fine, np.meshgrid(*(np.arange(f) for f in factors), indexing="ij")).mean(1)
    assert np.allclose(centers, volume.ijk_to_ras[:3, 3], atol=1e-9)
    ends = [np.meshgrid(*([-0.5, n - 0.5] for n in v.voxels.shape), indexing="ij") for v in (fine, volume)]
    assert np.allclose(positions(fine, ends[0]), positions(volume, ends[1]), atol=1e-9)
    error = average_blocks(fine.voxels, factors) - volume.voxels
    assert np.abs(error).max() <= 0.5 + 1e-3
    assert result.facts["measured_slice_error_hu"] <= 0.5


@pytest.mark.parametrize("axis", ["k", "j", "i"])
def test_the_coarse_axis_is_found_and_averages_are_kept_by_the_prior_alone(model, thick, axis):
    volume = turned(thick, axis)
    result = SuperResolve(steps=2).run(Case(volume), Run(model))
    check_result(result, volume, tuple(4 if name == axis else 1 for name in "kji"))
    assert any("no super-resolution ControlNet" in warning for warning in result.warnings)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"factor": 3}, {"mode": "isotropic"}, {"factor": 2, "axis": "i", "steps": 3}])
def test_averages_are_kept_with_a_controlnet(model, control, thick, options):
    volume = oblique(thick)
    result = SuperResolve(control=control, **options).run(Case(volume), Run(model))
    expected = (2, 2, 2) if "mode" in options else (1, 1, 2) if "axis" in options else (3, 1, 1)
    check_result(result, volume, expected)
    assert result.warnings == [] and result.facts["control"]["name"] == "sr"
    alone = SuperResolve(control=control, control_weight=0.0, **options).run(Case(volume), Run(model))
    assert np.abs(alone.volumes["fine"].astype(float) - result.volumes["fine"]).mean() > 1


def test_real_numbers_are_kept_to_a_hundredth(model, control, thick):
    volume = thick.with_voxels(thick.voxels + np.float32(0.25))
    fine = SuperResolve(control=control, factor=3).run(Case(volume), Run(model)).volumes["fine"]
    assert fine.dtype == np.float32
    assert np.abs(average_blocks(fine, (3, 1, 1)) - volume.voxels).max() < 0.01


@pytest.fixture
def striped():
    """12 slices of 4 mm whose pixels of 1 mm hold stripes with sharp edges, which no smooth curve follows."""
    j, i = np.mgrid[:96, :96]
    plane = np.where(((i + j // 3) // 7 + j // 9) % 2, 120, -80)
    return Volume(np.stack([np.roll(plane, 2 * k, 0) for k in range(12)]).astype(np.int16), np.diag([-1, -1, 4, 1.0]))


@pytest.mark.slow
def test_tuning_learns_from_the_slices_and_keeps_averages(model, control, striped, monkeypatch):
    """The ControlNet is random, so that what is learned within slices must be better on those that are held out."""
    monkeypatch.setattr(self_training, "STEPS", 60)
    plain, tuned, again = (
        SuperResolve(control=control, tune=tune).run(Case(striped), Run(model)) for tune in (False, True, True)
    )
    check_result(tuned, striped, (4, 1, 1))
    assert tuned.facts["tuned"] and tuned.facts["tuning_gain_percent"] > 10
    assert np.array_equal(tuned.volumes["fine"], again.volumes["fine"])
    assert not np.array_equal(tuned.volumes["fine"], plain.volumes["fine"])


@pytest.mark.slow
def test_what_does_not_gain_is_not_taken(model, control, striped, monkeypatch):
    """Of a network that is worse than what is there nothing is taken."""

    def spoiled(*arguments):
        network = self_training._network()
        network[-1].bias.data.fill_(0.0)
        network[-1].weight.data = 5 * torch.randn(network[-1].weight.shape, generator=torch.Generator().manual_seed(0))
        return network.eval().requires_grad_(False)

    monkeypatch.setattr(self_training, "_train", spoiled)
    plain, tuned = (
        SuperResolve(control="none", tune=tune).run(Case(striped), Run(model)).volumes["fine"] for tune in (False, True)
    )
    assert np.array_equal(plain, tuned)


@pytest.mark.parametrize("options", [{"steps": 2}, {"mode": "isotropic"}])
def test_steps_and_halved_voxels_are_not_tuned(options):
    with pytest.raises(InputError, match="uning"):
        SuperResolve(tune=True, **options)


def test_too_few_slices_to_learn_from_are_named(model, thick):
    small = Volume(np.ascontiguousarray(thick.voxels[:, :20, :20]), thick.ijk_to_ras)
    with pytest.raises(InputError, match="too few"):
        SuperResolve(control="none", tune=True, factor=6).run(Case(small), Run(model))


@pytest.mark.slow
def test_noisy_slices_are_met_within_their_noise(model, control, thick):
    parameters = SuperResolve(control=control, factor=3, steps=4, noise=30)
    error = parameters.run(Case(thick), Run(model)).facts["measured_slice_error_hu"]
    assert 0.5 < error < 30


@pytest.mark.slow
def test_same_seed_same_bits_and_one_step_needs_no_seed(model, control, thick):
    part = Volume(thick.voxels[:4], thick.ijk_to_ras)

    def run(seed, steps):
        parameters = SuperResolve(control=control, factor=2, steps=steps)
        return parameters.run(Case(part), Run(model, seed=seed)).volumes["fine"]

    assert np.array_equal(run(1, 2), run(1, 2))
    assert not np.array_equal(run(1, 2), run(2, 2))
    assert np.array_equal(run(1, 1), run(2, 1))


def test_air_does_not_swing_below_air_and_keeps_its_averages():
    blocks = np.array([-1000.0, -1000, 200, -1024, -1100]).repeat(4)[:, None, None].astype(np.float32)
    swinging = blocks + np.tile([60, -60, -30, 30], 5).astype(np.float32)[:, None, None]
    limited = fit_range(swinging, (4, 1, 1), -1024.0)
    assert np.allclose(average_blocks(limited, (4, 1, 1)), average_blocks(swinging, (4, 1, 1)), atol=1e-3)
    assert limited[:16].min() >= -1024.001
    assert np.array_equal(limited[8:12], swinging[8:12])


def test_wishes_that_cannot_be_met_are_refused(model, control, thick):
    cubes = replace(thick, ijk_to_ras=np.diag([-3.0, -3.0, 4.0, 1.0]))
    with pytest.raises(InputError, match="isotropic mode"):
        SuperResolve().run(Case(cubes), Run(model))
    with pytest.raises(InputError, match="halves all voxel edges"):
        SuperResolve(mode="isotropic", factor=3).run(Case(thick), Run(model))
    with pytest.raises(InputError, match="factor is 7"):
        SuperResolve(factor=7).run(Case(thick), Run(model))
    with pytest.raises(ModelError, match="no weight file"):
        SuperResolve(control="missing.safetensors").run(Case(thick), Run(model))


def test_files_lie_on_the_finer_grid_and_repeat(model, tiny_model_file, thick, tmp_path, capsys):
    source = tmp_path / "thick.nrrd"
    write_volume(thick, source)
    options = ["--factor", "2", "--steps", "1", "--model", str(tiny_model_file), "--device", "cpu"]
    assert main(["super_resolve", str(source), "-o", str(tmp_path), *options]) == 0
    fine = read_volume(tmp_path / "thick_super_resolve.nrrd")
    expected = SuperResolve(factor=2, steps=1).run(Case(thick), Run(model))
    assert np.allclose(fine.ijk_to_ras, expected.ijk_to_ras["fine"], atol=1e-6)
    assert np.abs(average_blocks(fine.voxels, (2, 1, 1)) - thick.voxels).max() <= 0.5 + 1e-3
    report = tmp_path / "thick_super_resolve.json"
    assert json.loads(report.read_text())["facts"]["factors_ijk"] == [1, 1, 2]
    capsys.readouterr()
    assert main(["repeat", str(report), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["identical"] is True


def test_a_factor_beyond_the_training_is_told(model, control, thick):
    result = SuperResolve(control=control, factor=4).run(Case(thick), Run(model))
    assert any("trained for factors 2 to 3, not for 4" in warning for warning in result.warnings)
