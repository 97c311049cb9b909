"""What fine-tuning learns from: samples that are reproducible and true to what the tasks will ask."""

import numpy as np
import pytest
import torch

from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.core.precision import choose_precision
from MedDiffFMLib.datasets.prepared_cases import Case, Level
from MedDiffFMLib.diffusion.controlled_denoiser import with_control
from MedDiffFMLib.imaging.resampling import resample_box
from MedDiffFMLib.imaging.slice_averaging import average_blocks
from MedDiffFMLib.models.checkpoint import load_model
from MedDiffFMLib.training.finetune.interface import ControlCase
from MedDiffFMLib.training.finetune.lesion import density, draw_lesion, inside_weight, lesions_of
from MedDiffFMLib.training.finetune.registry import finetune_task
from MedDiffFMLib.training.finetune.super_resolution import draw_pair

SIZE = 16


def case(name="a", spacing=(2.0, 2.0, 2.0), seed=0):
    """Soft tissue with smooth structure in air, and two denser balls marked 1 and 3 in its mask."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    shape = (48, 40, 44)
    voxels = 40 + 2000 * gaussian_filter(rng.standard_normal(shape), 2)
    voxels[:, :4] = -1000
    mask = np.zeros(shape, dtype=np.uint8)
    index = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    for label, center, radius in ((1, (12, 20, 20), 3), (3, (34, 24, 30), 5)):
        ball = sum((axis - c) ** 2 for axis, c in zip(index, center, strict=True)) <= radius**2
        mask[ball], voxels[ball] = label, 250
    level = Level(np.rint(voxels).astype(np.int16), None, np.array(spacing), np.zeros(3))
    box = (np.zeros(3), np.array(shape) * np.array(spacing))
    return ControlCase(Case(name, name, "abdomen", (level,), box), mask)


@pytest.fixture(scope="module")
def cases():
    return [case("a"), case("b", (1.5, 1.0, 1.0), 1)]


@pytest.fixture(scope="module")
def model(tiny_model_file):
    return load_model(str(tiny_model_file), device="cpu", precision="float32")


@pytest.fixture(params=["super-resolution", "lesion"])
def task(request):
    return finetune_task(request.param).task(window=SIZE)


def equal(one, other):
    same = [torch.equal(one[name], other[name]) for name in ("x0", "noise")]
    return all(same) and torch.equal(one["condition"].control, other["condition"].control)


def test_a_sample_depends_on_seed_and_number_alone(task, cases):
    early, late = task.samples(cases, 7, 0, 6), task.samples(cases, 7, 4, 2)
    assert len(early) == 6
    assert equal(early[5], late[1]) and early[5]["sigma"] == late[1]["sigma"]
    assert not equal(early[5], early[4]) and not equal(early[5], task.samples(cases, 8, 5, 1)[0])


@pytest.mark.slow
def test_batches_train_the_controlnet(task, cases, model):
    samples = task.samples(cases, 1, 0, 4)
    batch = task.collate([samples[n] for n in range(4)])
    assert batch.x0.shape == batch.noise.shape == (4, 1, SIZE, SIZE, SIZE)
    assert batch.condition.control.shape[1] == task.network().channels
    denoiser = with_control(model.engine.denoiser, task.network())
    loss = task.loss(denoiser, batch)
    assert loss.shape == (4,) and torch.isfinite(loss).all()
    loss.sum().backward()
    assert sum(float(p.grad.abs().sum()) for p in denoiser.control.parameters() if p.grad is not None) > 0


@pytest.mark.slow
def test_validation_has_its_metric_and_repeats_itself(task, cases, model):
    denoiser = with_control(model.engine.denoiser, task.network())
    torch.manual_seed(3)
    before = torch.get_rng_state()
    figures = task.validate(denoiser, cases)
    assert task.metric in figures and all(np.isfinite(value) for value in figures.values())
    assert task.validate(denoiser, cases) == figures
    assert torch.equal(torch.get_rng_state(), before)
    if task.name == "lesion":
        assert figures["outside_hu"] == 0


def test_most_of_the_loss_is_about_the_lesion_however_small(cases):
    task = finetune_task("lesion").task(window=SIZE)
    samples = task.samples(cases, 1, 0, 6)
    condition = task.collate([samples[n] for n in range(6)]).condition
    share, counts = condition.control[:, :1], inside_weight(condition, 0.7) * condition.hole
    natural = (share * condition.hole).sum((1, 2, 3, 4)) / condition.hole.sum((1, 2, 3, 4))
    held = (share * counts).sum((1, 2, 3, 4)) / counts.sum((1, 2, 3, 4))
    assert natural.min() < 0.5 and (held > natural - 1e-4).all() and held.min() > 0.5
    assert torch.equal(inside_weight(condition, 0.0), torch.ones_like(share))


@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_validation_computes_in_the_precision_of_the_training(task, cases, model, precision):
    denoiser, types = with_control(model.engine.denoiser, task.network()), set()
    for part in denoiser.control.modules():
        if isinstance(part, torch.nn.Conv3d):
            part.register_forward_hook(lambda part, given, result: types.add(result.dtype))
    task.validate(denoiser, cases[:1], precision=precision)
    assert types == {choose_precision(precision, torch.device("cpu"))}


def test_settings_are_what_inference_reads(cases):
    assert finetune_task("super-resolution").task().settings(cases) == {"factors": [2, 6]}
    lesions = finetune_task("lesion").task().settings(cases)["lesions"]
    assert len(lesions) == 4 and all(pair[1] == pytest.approx(250, abs=1) for pair in lesions)


@pytest.mark.parametrize("factors", [(5, 1, 1), (1, 3, 1), (2, 2, 2)])
def test_a_pair_is_what_the_task_will_see(cases, factors):
    """Guess and truth have the same averages over whole measured voxels, and the position tells which those are."""
    pair = draw_pair(cases[0].case, SIZE, factors, np.random.default_rng(4))
    assert pair.fine.shape == pair.guess.shape == (SIZE,) * 3
    whole, _ = pair.whole_blocks()
    averages = [average_blocks(image[whole], factors) for image in (pair.fine, pair.guess)]
    assert np.abs(averages[0] - averages[1]).max() < 1e-2
    assert np.abs(pair.fine - pair.guess).max() > 1
    position = pair.condition(0, 0, np.random.default_rng(0)).control[1].numpy()
    start = [part.start for part in whole]
    assert position[tuple(start)] == pytest.approx(sum(1 / f - 1 for f in factors if f > 1))
    assert np.abs(average_blocks(position[whole], factors)).max() < 1e-6


def test_interpolated_baselines_fit_the_window(cases):
    pair = draw_pair(cases[0].case, SIZE, (2, 1, 1), np.random.default_rng(5))
    errors = [np.abs(image - pair.fine).mean() for image in (pair.interpolated(3), pair.interpolated(1))]
    assert pair.interpolated(3).shape == pair.fine.shape
    assert errors[0] < errors[1] < 50


def test_lesions_are_told_apart_and_lie_whole_in_their_windows(cases):
    found = lesions_of(cases[0])
    assert [lesion.label for lesion in found] == [1, 3]
    assert density(found[1])[1] == pytest.approx(250, abs=1)
    for seed in range(4):
        drawn = draw_lesion(found[1], 32, 1.0, np.random.default_rng(seed))
        assert drawn.spacing == (2.0, 2.0, 2.0)
        assert drawn.share.sum() == (cases[0].mask == 3).sum()
        assert drawn.hole[drawn.share > 0].all() and not drawn.hole.all()
        assert drawn.mean == pytest.approx(0.25, abs=0.01)
        assert drawn.voxels[drawn.share > 0.99].mean() == pytest.approx(250, abs=1)


@pytest.mark.parametrize("step", [0.7, 1.0, 2.3])
def test_reading_the_lesion_alone_gives_what_the_whole_mask_gives(cases, step):
    lesion, count = lesions_of(cases[1])[1], (20, 18, 16)
    start, steps = lesion.low - 6.3, np.full(3, step)
    whole = resample_box(lesion.inside(), start, steps, count)
    assert whole.max() > 0.9
    assert np.allclose(lesion.share(start, steps, count), whole, atol=1e-6)


def test_a_large_lesion_is_seen_whole_on_larger_voxels(cases):
    lesion = lesions_of(cases[0])[1]
    drawn = draw_lesion(lesion, SIZE, 1.0, np.random.default_rng(0))
    assert drawn.spacing[0] > 2.0
    volume = drawn.share.sum() * np.prod(drawn.spacing)
    assert volume == pytest.approx((cases[0].mask == 3).sum() * 8.0, rel=0.1)


def test_useless_cases_are_named_and_none_at_all_refused():
    thick, empty = case("thick", (5.0, 1.0, 1.0)), ControlCase(case("empty").case, np.zeros((48, 40, 44), np.uint8))
    resolution, lesion = finetune_task("super-resolution").task(), finetune_task("lesion").task()
    assert "thick is left out" in resolution.check([thick, case()])[0]
    assert "empty is left out" in lesion.check([empty, case()])[0]
    with pytest.raises(InputError, match="thin enough"):
        resolution.check([thick])
    with pytest.raises(InputError, match="No case has a lesion"):
        lesion.check([empty])


def test_unknown_tasks_and_options_are_refused():
    with pytest.raises(InputError, match="no fine-tuning task"):
        finetune_task("denoise").task()
    with pytest.raises(InputError, match="does not know"):
        finetune_task("lesion").task(factors=(2, 3))
