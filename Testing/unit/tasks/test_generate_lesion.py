"""A generated lesion lies in its mask, is as dense as wished, and leaves everything else alone."""

import re

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion, distance_transform_edt

from MedDiffFMLib.cli import main
from MedDiffFMLib.core.errors import InputError, ModelError
from MedDiffFMLib.diffusion.controlled_denoiser import with_control
from MedDiffFMLib.imaging.io import read_volume
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.models.checkpoint import load_model
from MedDiffFMLib.models.controlnet_file import save_control
from MedDiffFMLib.tasks.base import Case, Run
from MedDiffFMLib.tasks.generate_lesion.lesion_extent import surroundings, working_spacing
from MedDiffFMLib.tasks.generate_lesion.lesion_shape import make_lesion_mask
from MedDiffFMLib.tasks.generate_lesion.outline import check_outline
from MedDiffFMLib.tasks.generate_lesion.recipe import place_lesion
from MedDiffFMLib.tasks.generate_lesion.spec import GenerateLesion
from MedDiffFMLib.training.finetune.registry import finetune_task

SETTINGS = {"lesions": [[-850.0, -20.0], [-800.0, -30.0], [40.0, 70.0], [45.0, 75.0], [50.0, 80.0]]}


@pytest.fixture(scope="module")
def model(tiny_model_file):
    return load_model(str(tiny_model_file), device="cpu", precision="float32")


@pytest.fixture(scope="module")
def control(model, tmp_path_factory):
    """File of a ControlNet that has learned a little nonsense."""
    controlled = with_control(model.engine.denoiser, finetune_task("lesion").task().network())
    generator = torch.Generator().manual_seed(1)
    for parameter in controlled.control.parameters():
        parameter.data = 0.03 * torch.randn(parameter.shape, generator=generator)
    path = tmp_path_factory.mktemp("control") / "lesion.safetensors"
    prior = {"name": model.name, "sha256": model.sha256}
    save_control(path, controlled.control, task="lesion", prior=prior, settings=SETTINGS)
    return str(path)


@pytest.fixture(scope="module")
def lesion(small_mask):
    return small_mask.voxels > 0


def wishes(control, **options):
    return GenerateLesion(**{"control": control, "steps": 2, **options})


def ball(shape, center, radius):
    k, j, i = (axis - c for axis, c in zip(np.indices(shape), center, strict=True))
    return k**2 + j**2 + i**2 <= radius**2


def oblique(volume):
    angle = np.deg2rad(15)
    rotation = np.eye(4)
    rotation[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return Volume(volume.voxels, rotation @ volume.ijk_to_ras)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"rim": 6.0}, {"rim": 0.0}, {"rim": 5.0, "spacing": 4.0}])
def test_beyond_lesion_and_rim_nothing_changes(model, control, small_ct, lesion, options):
    volume = oblique(small_ct)
    result = wishes(control, mean=60.0, **options).run(Case(volume, mask=lesion), Run(model))
    made = result.volumes["with_lesion"]
    assert made.dtype == volume.voxels.dtype and np.array_equal(result.volumes["lesion"], lesion)
    beyond = distance_transform_edt(~lesion, sampling=3.0) >= max(options["rim"], 1e-3)
    assert np.array_equal(made[beyond], volume.voxels[beyond])
    assert (made[lesion] != volume.voxels[lesion]).mean() > 0.8
    if options["rim"]:
        rim = ~beyond & ~lesion
        assert (made[rim] != volume.voxels[rim]).any()


@pytest.mark.slow
@pytest.mark.parametrize(
    "options, expected",
    [
        ({"mean": 120.0}, 120.0),
        ({"contrast": 90.0}, "around+90"),
        ({"kind": "solid"}, 30.0),
        ({"kind": "hypodense"}, "around-40"),
        ({"kind": "calcified", "mean": -300.0}, -300.0),
    ],
)
def test_wished_densities_are_met(model, control, small_ct, lesion, options, expected):
    result = wishes(control, **options).run(Case(small_ct, mask=lesion), Run(model))
    around = surroundings(small_ct.voxels, lesion, small_ct.spacing)
    if isinstance(expected, str):
        expected = around + float(expected.removeprefix("around"))
    assert result.facts["mean_hu_wished"] == pytest.approx(expected, abs=0.1)
    inside = result.volumes["with_lesion"][lesion]
    assert inside.mean() == pytest.approx(expected, abs=1) == pytest.approx(result.facts["mean_hu_after"], abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("spread", [20.0, 90.0])
def test_the_wished_spread_is_met_in_the_core(model, control, small_ct, spread):
    mask = ball(small_ct.voxels.shape, (20, 20, 20), 5)
    result = wishes(control, mean=60.0, spread=spread, tries=1).run(Case(small_ct, mask=mask), Run(model))
    core = binary_erosion(mask)
    made = result.volumes["with_lesion"]
    assert made[core].std() == pytest.approx(spread, rel=0.05, abs=0.5)
    assert made[mask].mean() == pytest.approx(60, abs=1)


@pytest.mark.slow
def test_lesions_are_drawn_until_one_is_good_and_the_best_is_kept(model, control, small_ct, lesion):
    case, run = Case(small_ct, mask=lesion), Run(model, seed=2)
    runs = [wishes(control, mean=60.0, agreement=0.99, tries=n).run(case, run) for n in (1, 3)]
    checks = [result.facts["check"] for result in runs]
    assert [check["drawn"] for check in checks] == [1, 3] and checks[1]["dice"] >= checks[0]["dice"]
    assert not checks[1]["good"] and any("None of 3 lesions" in words for words in runs[1].warnings)
    patient = wishes(control, mean=60.0, agreement=0.0, tries=3).run(case, run)
    assert patient.facts["check"]["drawn"] == 1 or not patient.facts["check"]["good"]


SPACING = (1.0, 1.0, 1.5)


def scene(radius, contrast, wall=False, noise=15.0):
    """Lung with a ball of a radius in mm, at a wall of muscle or not, and the same lung without it."""
    rng, shape = np.random.default_rng(0), (40, 48, 48)
    k, j, i = np.indices(shape)
    before = np.full(shape, -850.0)
    if wall:
        before[:, :, :18] = 40
    before += rng.normal(0, noise, shape)
    inside = ((k - 20) * 1.5) ** 2 + (j - 24) ** 2 + (i - 24) ** 2 <= radius**2
    after = before + 0
    after[inside & (before < -400)] = -850 + contrast
    return before, after + rng.normal(0, noise, shape) * inside, inside


@pytest.mark.parametrize("wall", [False, True])
def test_a_lesion_as_asked_for_passes_even_at_a_wall_as_dense_as_itself(wall):
    before, after, mask = scene(7, 890, wall)
    verdict = check_outline(before, after, mask, SPACING, 3.0, 0.8)
    assert verdict.good and verdict.dice > 0.9 and not verdict.reason
    assert verdict.diameter_mm == pytest.approx(14, rel=0.1)


@pytest.mark.parametrize(
    "radius, contrast, words",
    [
        (4, 890, "measures 8.* instead of 1[34]"),
        (9.5, 890, "measures 1[89].* instead of 1[34]"),
        (7, 10, "does not stand out"),
        (7, 0, "does not stand out"),
    ],
)
def test_a_lesion_of_another_size_or_none_does_not(radius, contrast, words):
    mask = scene(7, 0)[2]
    before, after, _ = scene(radius, contrast)
    verdict = check_outline(before, after, mask, SPACING, 3.0, 0.8)
    assert verdict.good is False and re.search(words, verdict.reason)


def test_a_lesion_in_another_place_does_not():
    before, after, mask = scene(7, 890)
    verdict = check_outline(before, np.roll(after, 5, axis=2), mask, SPACING, 3.0, 0.8)
    assert verdict.good is False and verdict.dice < 0.8


@pytest.mark.slow
def test_without_a_wish_a_training_lesion_in_such_surroundings_lends_its_density(model, control, small_ct):
    mask = np.zeros(small_ct.voxels.shape, dtype=bool)
    mask[18:21, 9:12, 20:23] = True  # muscle of 45 HU
    seen = {
        wishes(control, steps=1).run(Case(small_ct, mask=mask), Run(model, seed=s)).facts["mean_hu_wished"]
        for s in range(8)
    }
    assert len(seen) > 1 and seen <= {70.0, 75.0, 80.0, -20.0, -30.0}


def test_no_controlnet_is_refused_with_the_remedy(model, small_ct, lesion):
    with pytest.raises(ModelError, match="no lesion ControlNet.*meddifffm finetune --task lesion"):
        GenerateLesion().run(Case(small_ct, mask=lesion), Run(model))


@pytest.mark.parametrize(
    "options, given, words",
    [
        ({"mean": 10.0, "contrast": 10.0}, True, "Both"),
        ({}, False, "no mask"),
        ({"organ": 5}, True, "not used"),
        ({"organ": 5, "diameter": 10.0}, False, "no organ map"),
        ({"diameter": 90.0}, True, "no room"),
    ],
)
def test_contradictory_wishes_are_refused(model, control, small_ct, lesion, options, given, words):
    with pytest.raises(InputError, match=words):
        wishes(control, **options).run(Case(small_ct, mask=lesion if given else None), Run(model))


@pytest.mark.slow
def test_a_lesion_is_made_in_the_organ(model, control, small_ct):
    anatomy = np.zeros(small_ct.voxels.shape, dtype=np.uint8)
    anatomy[10:30, 12:34, 8:18] = 5
    parameters = wishes(control, diameter=15.0, organ=5, mean=50.0)
    result = parameters.run(Case(small_ct, anatomy=anatomy), Run(model, seed=3))
    mask = result.volumes["lesion"]
    assert mask.any() and (anatomy[mask] == 5).all()
    again = parameters.run(Case(small_ct, anatomy=anatomy), Run(model, seed=3))
    assert np.array_equal(again.volumes["with_lesion"], result.volumes["with_lesion"])
    other = parameters.run(Case(small_ct, anatomy=anatomy), Run(model, seed=4))
    assert not np.array_equal(other.volumes["lesion"], mask)


def test_without_room_given_the_lesion_lies_in_the_body(small_ct):
    parameters = GenerateLesion(diameter=12.0)
    mask = place_lesion(parameters, Case(small_ct), np.random.default_rng(0))
    assert (small_ct.voxels[mask] > -950).all()


@pytest.mark.slow
def test_the_file_is_marked_as_synthetic(tiny_model_file, control, small_ct_file, small_mask_file, small_ct, tmp_path):
    options = ["--mask", str(small_mask_file), "--mean", "60", "--steps", "1", "--control", control]
    common = ["--model", str(tiny_model_file), "--device", "cpu", "-o", str(tmp_path)]
    assert main(["generate_lesion", str(small_ct_file), *options, *common]) == 0
    made, lesion = (read_volume(tmp_path / f"chest_generate_lesion{end}.nrrd") for end in ("", "_lesion"))
    assert made.synthetic and made.same_geometry(small_ct) and lesion.voxels.sum() > 0


def test_made_lesions_have_the_wished_volume_and_differ():
    room = np.zeros((60, 60, 60), dtype=bool)
    room[5:55, 5:55, 5:55] = True
    spacing = (0.8, 0.8, 1.2)
    masks = [make_lesion_mask(room, spacing, 14.0, np.random.default_rng(seed)) for seed in range(6)]
    volumes = [mask.sum() * np.prod(spacing) for mask in masks]
    assert np.allclose(volumes, np.pi / 6 * 14**3, rtol=0.1)
    assert all((mask <= room).all() for mask in masks)
    assert len({mask.tobytes() for mask in masks}) == 6


def test_a_lesion_smaller_than_a_voxel_is_one_voxel():
    mask = make_lesion_mask(np.ones((9, 9, 9), dtype=bool), (5.0, 5.0, 5.0), 2.0, np.random.default_rng(0))
    assert mask.sum() == 1


def test_large_lesions_are_made_on_larger_voxels():
    mask = np.zeros((30, 80, 20), dtype=bool)
    mask[5:15, 10:70, 5:15] = True
    assert working_spacing(mask, (1.0, 1.0, 3.0)) == pytest.approx(1.5)
    assert working_spacing(mask[:, :40], (1.0, 1.0, 3.0)) is None
