"""MedSegDiff's parts against their definitions, and mask diffusion as a segmentation method."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from MedDiffFMLib.conditioning.condition import Condition
from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.core.progress import CancelToken, ProgressMeter
from MedDiffFMLib.datasets.dataset_folder import Dataset
from MedDiffFMLib.diffusion.denoiser import EDMDenoiser
from MedDiffFMLib.diffusion.mask_denoiser import LogitMaskDenoiser, NoiseMaskDenoiser, condition_loss
from MedDiffFMLib.diffusion.samplers import dpm_solver_pp_2m, karras_sigmas
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.inference.window_plan import OVERLAP, plan_windows
from MedDiffFMLib.models.catalogue import list_models
from MedDiffFMLib.models.checkpoint import load_model
from MedDiffFMLib.networks.conditional_encoding import AnchorAttention, enhance
from MedDiffFMLib.networks.ff_parser import FFParser
from MedDiffFMLib.networks.medsegdiff import Guide, MedSegDiff, MedSegDiffConfig
from MedDiffFMLib.networks.unet import NetworkConfig, PriorUNet
from MedDiffFMLib.preprocessing.body_coordinates import MODEL, BodyField
from MedDiffFMLib.segmentation.inputs import LabeledInput, SegmentationInput
from MedDiffFMLib.segmentation.medsegdiff import MedSegDiffMethod, MedSegDiffSegmenter, fuse
from MedDiffFMLib.segmentation.method import InferenceBudget, make_method, options_of
from MedDiffFMLib.tasks.base import Case, Run
from MedDiffFMLib.tasks.segment.spec import Segment
from MedDiffFMLib.training.finetune.run import finetune
from Testing.unit.phantoms import body

BUDGET = InferenceBudget(torch.device("cpu"), torch.float32, window=16)
SMALL: dict[str, Any] = {"channels": (8, 8, 8), "window": 16, "steps": 2, "draws": 2, "features": False}


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def shaken(module: torch.nn.Module, size: float = 0.1) -> Any:
    """The module with all its weights moved, so that nothing is zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in module.parameters():
            weight += size * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
    return module.eval()


def inputs(shape: tuple[int, int, int] = (14, 18, 20), level: float = 40.0) -> SegmentationInput:
    """A bright ball in soft tissue."""
    axes = np.meshgrid(*(np.arange(n) - n / 2 for n in shape), indexing="ij")
    ball = sum(axis**2 for axis in axes) < 16
    voxels = (-50 + (level + 50) * ball + np.random.default_rng(0).normal(0, 10, shape)).astype(np.float32)
    body = BodyField((0.3, -0.1, -0.1), (0.003, 0.01, 0.01))
    return SegmentationInput(voxels, Condition((3.0, 3.0, 3.0)), body)


def example(classes: int = 1) -> LabeledInput:
    seen = inputs()
    return LabeledInput(
        "ball", seen, (np.asarray(seen.voxels) > 0).astype(np.uint8), (True,) + (False,) * (classes - 1)
    )


# --------------------------------------------------------------------------------------------------------- FF-Parser


@pytest.mark.parametrize("shape", [(16, 16, 16), (7, 12, 9)])
def test_ff_parser_changes_nothing_before_training(shape: tuple[int, int, int]) -> None:
    features = normal(2, 3, *shape, dtype=torch.float64)
    torch.testing.assert_close(FFParser(3).double()(features), features, rtol=0, atol=1e-12)


def test_ff_parser_filters_a_wave_alike_in_patches_of_any_size() -> None:
    """A wave that fits into both patches comes out with the same factor and phase from either."""
    parser = shaken(FFParser(2, knots=6).double(), 0.5)

    def filtered(shape: tuple[int, int, int]) -> torch.Tensor:
        k, j, i = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in shape), indexing="ij")
        wave = torch.cos(2 * torch.pi * (k * 3 / 16 - j / 8 + i * 5 / 16) + 0.4) + 0.3 * torch.sin(torch.pi / 4 * i)
        return parser(wave.expand(1, 2, *shape))

    small, large = filtered((16, 16, 16)), filtered((32, 16, 48))
    assert (small - filtered((16, 16, 16)).mean()).abs().max() > 0.1
    torch.testing.assert_close(large[..., :16, :16, :16], small, rtol=0, atol=1e-10)


def test_ff_parser_on_a_patch_of_its_knots_is_the_papers_complex_map() -> None:
    parser = shaken(FFParser(3, knots=8).double(), 0.5)
    features = normal(1, 3, 8, 8, 8, dtype=torch.float64)
    half = 1 + torch.complex(parser.knot[0], parser.knot[1])
    opposite = half.flip((-3, -2, -1)).roll((1, 1, 1), (-3, -2, -1)).conj()
    full = torch.fft.ifftn(torch.fft.fftn(features, dim=(-3, -2, -1)) * (half + opposite) / 2, dim=(-3, -2, -1))
    assert full.imag.abs().max() < 1e-12
    torch.testing.assert_close(parser(features), full.real, rtol=0, atol=1e-12)


def test_ff_parser_does_not_care_where_something_lies() -> None:
    parser = shaken(FFParser(2).double(), 0.5)
    features = normal(1, 2, 10, 12, 16, dtype=torch.float64)
    moved = parser(features.roll((3, -2, 5), (-3, -2, -1)))
    torch.testing.assert_close(moved, parser(features).roll((3, -2, 5), (-3, -2, -1)), rtol=0, atol=1e-10)


# ---------------------------------------------------------------------------------------- dynamic encoding and anchor


def test_dynamic_encoding_is_equation_3() -> None:
    image, mask = (normal(2, 3, 4, 5, 6, seed=n, dtype=torch.float64) * (n + 2) + n for n in range(2))

    def layer_norm(features: np.ndarray) -> np.ndarray:
        return np.stack([(f - f.mean()) / np.sqrt(f.var() + 1e-5) for f in features])

    expected = layer_norm(image.numpy()) * layer_norm(mask.numpy()) * image.numpy()
    np.testing.assert_allclose(enhance(image, mask).numpy(), expected, rtol=1e-10, atol=1e-12)


def test_anchor_blur_is_a_normalized_gaussian() -> None:
    attention = AnchorAttention(1, 1, width=1.2).double()
    point = torch.zeros(1, 1, 17, 17, 17, dtype=torch.float64)
    point[..., 8, 8, 8] = 1
    blurred = attention.blur(point).detach()
    distance = np.sqrt(sum((axis - 8) ** 2 for axis in np.indices((17, 17, 17))))
    expected = np.exp(-0.5 * (distance / 1.2) ** 2)
    np.testing.assert_allclose(blurred[0, 0].numpy(), expected / expected.sum(), atol=2e-4)
    flat = torch.full((1, 1, 5, 6, 7), 3.0, dtype=torch.float64)
    torch.testing.assert_close(attention.blur(flat).detach(), flat)


def test_anchor_never_takes_from_the_masks_features() -> None:
    attention = shaken(AnchorAttention(4, 6))
    mask = normal(1, 6, 6, 6, 6)
    factor = (attention(normal(1, 4, 6, 6, 6, seed=3), mask) / mask).detach()
    assert factor.min() >= 1 and factor.max() <= 2


# ----------------------------------------------------------------------------------------------------------- network


@pytest.mark.slow
@pytest.mark.parametrize("change", [{}, {"dynamic": False}, {"parser": False}, {"anchor": True}, {"prior": (6, 4)}])
def test_every_weight_of_the_network_is_used(change: dict[str, Any]) -> None:
    config = MedSegDiffConfig(classes=2, channels=(8, 8, 8), **change)
    denoiser = LogitMaskDenoiser(shaken(MedSegDiff(config)))
    prior = [normal(2, c, 8 >> n, 8 >> n, 8 >> n) for n, c in enumerate(config.prior)]
    guide = denoiser.network.guide(normal(2, 1, 16, 16, 16), normal(2, 3, 16, 16, 16), prior)
    mask = normal(2, 2, 16, 16, 16, seed=2).sign()
    denoiser.loss(mask, torch.tensor([1.0, 9.0]), normal(2, 2, 16, 16, 16), guide, torch.ones(2, 2)).sum().backward()
    unused = [name for name, weight in denoiser.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert not unused


def test_untrained_network_denoises_as_if_it_knew_nothing() -> None:
    """Its last convolution is zero: then the mask is judged voxel by voxel, from its own noisy value."""
    network = MedSegDiff(MedSegDiffConfig(channels=(8, 8)))
    guide = network.guide(normal(1, 1, 8, 8, 8), normal(1, 3, 8, 8, 8))
    x, sigma = normal(1, 1, 8, 8, 8), torch.tensor([0.7])
    torch.testing.assert_close(LogitMaskDenoiser(network)(x, sigma, guide), torch.tanh(x / 0.49))
    torch.testing.assert_close(NoiseMaskDenoiser(network)(x, sigma, guide), x / 1.49)


def test_untrained_ff_parser_leaves_the_dynamic_network_as_it_is() -> None:
    config = MedSegDiffConfig(channels=(8, 8, 8))
    with_parser, without = MedSegDiff(config), MedSegDiff(replace(config, parser=False))
    without.load_state_dict(
        {name: weight for name, weight in shaken(with_parser).state_dict().items() if "parsers" not in name}
    )
    for parser in with_parser.parsers.values():
        torch.nn.init.zeros_(parser.knot)
    image, body, x = normal(1, 1, 16, 16, 16), normal(1, 3, 16, 16, 16), normal(1, 1, 16, 16, 16, seed=5)
    time = torch.tensor([500.0])
    torch.testing.assert_close(
        with_parser(x, time, with_parser.guide(image, body)), without(x, time, without.guide(image, body))
    )


def test_guide_of_repeated_windows_is_the_guide_repeated() -> None:
    network = shaken(MedSegDiff(MedSegDiffConfig(channels=(8, 8), anchor=True)))
    image, body = normal(2, 1, 8, 8, 8), normal(2, 3, 8, 8, 8)
    guide, x, time = network.guide(image, body).repeated(3), normal(6, 1, 8, 8, 8), torch.full((6,), 400.0)
    one_by_one = [network(x[n : n + 1], time[:1], network.guide(image[[n // 3]], body[[n // 3]])) for n in range(6)]
    torch.testing.assert_close(network(x, time, guide), torch.cat(one_by_one))


def test_gradients_are_right_in_bfloat16() -> None:
    """The deepest features of a 16^3 window have 2^3 voxels, where torch's bfloat16 convolutions must not be used."""
    network = shaken(MedSegDiff(MedSegDiffConfig(channels=(8, 8, 8), dynamic=False)), 0.05)
    image, body, x = normal(2, 1, 16, 16, 16), normal(2, 3, 16, 16, 16), normal(2, 1, 16, 16, 16, seed=5)

    def gradient(bfloat16: bool) -> torch.Tensor:
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            network(x, torch.tensor([100.0, 700.0]), network.guide(image, body)).square().mean().backward()
        return torch.cat([weight.grad.flatten() for weight in network.parameters() if weight.grad is not None])

    exact, fast = gradient(False), gradient(True)
    assert (fast - exact).norm() < 0.1 * exact.norm()


# -------------------------------------------------------------------------------------------------------- diffusion


class _KnownChance(torch.nn.Module):
    """A network that knows the probability of each voxel, and that voxels are independent."""

    def __init__(self, chance: torch.Tensor) -> None:
        super().__init__()
        self.half_logit = 0.5 * torch.logit(chance)

    def forward(self, x: torch.Tensor, time: torch.Tensor, guide: Any) -> torch.Tensor:
        return self.half_logit.expand_as(x)


def test_logit_denoiser_is_the_posterior_mean_and_samples_follow_the_chance() -> None:
    chance = torch.tensor([0.1, 0.5, 0.8]).reshape(3, 1, 1).expand(3, 40, 40)
    denoiser = LogitMaskDenoiser(_KnownChance(chance))  # type: ignore[arg-type]
    none = Guide((), ())
    x, sigma = normal(1, 1, 3, 40, 40, dtype=torch.float64), 1.3
    inside, outside = (
        chance * torch.exp(-((x - 1) ** 2) / (2 * sigma**2)),
        (1 - chance) * torch.exp(-((x + 1) ** 2) / (2 * sigma**2)),
    )
    expected = (inside - outside) / (inside + outside)
    torch.testing.assert_close(denoiser(x, torch.tensor([sigma]), none).double(), expected, rtol=0, atol=1e-5)
    sigmas = karras_sigmas(30, 20.0, 0.1)
    start = sigmas[0] * normal(4, 1, 3, 40, 40)
    drawn = dpm_solver_pp_2m(lambda x, s: denoiser(x, torch.full((len(x),), s), none), start, sigmas)
    share = (drawn > 0).float().mean(dim=(0, 1, 3, 4))
    assert (share - chance[:, 0, 0]).abs().max() < 0.03


def test_loss_leaves_out_what_nobody_outlined() -> None:
    network = shaken(MedSegDiff(MedSegDiffConfig(classes=2, channels=(8, 8), anchor=True)))
    guide = network.guide(normal(1, 1, 8, 8, 8), normal(1, 3, 8, 8, 8))
    mask, sigma, noise = normal(1, 2, 8, 8, 8).sign(), torch.tensor([2.0]), normal(1, 2, 8, 8, 8, seed=9)
    mask[:, 1] = 0
    other = mask.clone()
    known = torch.tensor([[1.0, 0.0]])
    for kind in (LogitMaskDenoiser, NoiseMaskDenoiser):
        both = kind(network).loss(mask, sigma, noise, guide, torch.ones(1, 2))
        assert kind(network).loss(mask, sigma, noise, guide, known) != both
    other[:, 1] = 1
    assert condition_loss(guide, mask, known) == condition_loss(guide, other, known)
    assert condition_loss(guide, mask, known) != condition_loss(guide, other, torch.ones(1, 2))


# ----------------------------------------------------------------------------------------------------------- method


def segmenter(**change: Any) -> MedSegDiffSegmenter:
    torch.manual_seed(0)
    method = make_method("medsegdiff", {**SMALL, **change})
    return shaken(method.build(1, torch.nn.Identity()))


@pytest.mark.slow
def test_draws_depend_on_the_seed_alone() -> None:
    built = segmenter()
    first, again = (built.draw(inputs(), BUDGET, 2) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, built.draw(inputs(), replace(BUDGET, seed=1), 2))
    assert not torch.equal(first[0], first[1])
    torch.testing.assert_close(built.draw(inputs(), replace(BUDGET, batch=1), 3)[:2], first, rtol=0, atol=1e-3)


def test_windows_are_no_larger_than_in_training() -> None:
    built = segmenter()
    assert torch.equal(built.draw(inputs(), BUDGET, 1), built.draw(inputs(), replace(BUDGET, window=64), 1))


def test_prediction_fits_the_image_and_tells_progress() -> None:
    told: list[float] = []
    meter = ProgressMeter(1, lambda event: told.append(event.fraction))
    found = segmenter().predict(inputs(), BUDGET, meter)
    assert found.probabilities.shape == found.uncertainty.shape == (1, 14, 18, 20)
    assert found.probabilities.min() >= 0 and found.probabilities.max() <= 1
    assert found.uncertainty.min() >= 0 and found.uncertainty.max() <= 0.5
    assert told == sorted(told) and told[-1] == pytest.approx(1)


def test_prediction_can_be_cancelled() -> None:
    from MedDiffFMLib.core.errors import Cancelled

    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        segmenter().predict(inputs(), BUDGET, ProgressMeter(1, None, token))


def test_network_without_doubt_has_no_variance() -> None:
    """A network that is certain whatever the noise draws the same mask each time."""
    built = segmenter()
    last = built.network.out[2]
    torch.nn.init.zeros_(last.weight)
    with torch.no_grad():
        last.bias[:] = 0
        last.bias[0] = 2e3  # the mean band: inside everywhere
    found = built.predict(inputs(), BUDGET)
    assert found.uncertainty.max() < 1e-6 and found.probabilities.min() > 1 - 1e-5


def test_windows_without_structure_are_looked_at_once() -> None:
    built = segmenter(steps=4)
    last = built.network.out[2]
    torch.nn.init.zeros_(last.weight)
    with torch.no_grad():
        last.bias[:] = 0
        last.bias[0] = -2e3
    calls: list[int] = []
    built.part.register_forward_hook(lambda *_: calls.append(1))
    found = built.predict(inputs((10, 10, 30)), BUDGET)
    assert found.probabilities.max() < 1e-6
    assert len(calls) == len(plan_windows((10, 10, 30), 16, OVERLAP, built.network.config.divisor).boxes)


def test_fusion_of_one_draw_is_the_draw() -> None:
    drawn = torch.rand(1, 2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    found = fuse(drawn, "staple")
    assert torch.equal(found.probabilities, drawn[0])
    torch.testing.assert_close(found.uncertainty, (drawn[0] * (1 - drawn[0])).sqrt())


@pytest.mark.slow
def test_training_finds_the_ball() -> None:
    """Fresh weights know nothing; a few steps later the draws are the bright ball, on an image of another noise."""
    torch.manual_seed(0)
    method = make_method("medsegdiff", {**SMALL, "steps": 4})
    built, examples = method.build(1, torch.nn.Identity()), [example()]
    optimizer = torch.optim.AdamW(built.part.parameters(), lr=4e-3)
    samples = method.samples(examples, 0, 0, 120)
    for step in range(30):
        batch = method.collate([samples[n] for n in range(4 * step, 4 * step + 4)])
        loss = built.loss(batch).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(built.part.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    found = built.eval().predict(inputs(), BUDGET).probabilities[0] > 0.5
    truth = examples[0].truth()[0] > 0.5
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.7


def test_training_sample_has_noise_of_its_own_seed() -> None:
    """The loss is the same in a run that is resumed, whatever the state of torch's own generator."""
    built, method = segmenter(), make_method("medsegdiff", SMALL)
    samples = method.samples([example()], 0, 0, 4)
    batch = method.collate([samples[n] for n in range(4)])
    first = built.loss(batch)
    torch.manual_seed(123)
    assert torch.equal(built.loss(batch), first)
    torch.testing.assert_close(built.loss(method.collate([samples[2]])), first[2:3])


@pytest.mark.parametrize(
    "options",
    [{"estimate": "mask"}, {"fusion": "vote"}, {"steps": 0}, {"draws": 0}, {"channels": (6,)}, {"window": 20}],
)
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        make_method("medsegdiff", options)


def test_frozen_prior_is_looked_at_and_left_alone() -> None:
    """What the prior sees changes the masks; it is neither trained nor saved with them."""
    prior = shaken(EDMDenoiser(PriorUNet(NetworkConfig(channels=(8, 32), attention=(False, False)))))
    prior.requires_grad_(False)
    method = make_method("medsegdiff", {**SMALL, "features": True})
    built = method.build(1, prior)
    shaken(built.part)
    samples = method.samples([example()], 0, 0, 2)
    batch = method.collate([samples[0], samples[1]])
    loss = built.loss(batch)
    loss.sum().backward()
    assert all(weight.grad is None for weight in prior.parameters())
    assert all(weight.grad is not None and weight.grad.any() for weight in built.part.parameters())
    assert sum(w.numel() for w in built.part.parameters()) < sum(w.numel() for w in built.parameters())
    with torch.no_grad():
        shaken(prior)
        assert not torch.allclose(built.loss(batch), loss)


@pytest.mark.slow
@pytest.mark.skipif(MODEL not in {entry.name for entry in list_models()}, reason="no weights for body coordinates")
def test_from_outlined_scans_to_masks_of_another(tiny_model_file: Path, tmp_path: Path) -> None:
    """The way of a user: fine-tune on two scans, segment a third; with a seed the result is the same again."""
    dataset = Dataset.create(tmp_path / "ours")
    for number in range(3):
        dataset.add(f"c{number}", *scan(number))
    dataset.set_validation(["c2"])
    result = finetune(
        dataset.folder,
        tmp_path / "run",
        "segmentation",
        prior=str(tiny_model_file),
        steps=40,
        batch=4,
        window=16,
        learning_rate=4e-3,
        validate_every=40,
        accelerator="cpu",
        register=False,
        options={"method": "medsegdiff", "spacing": 2.5, "channels": [8, 8, 8], "steps": 3, "draws": 3},
    )
    assert result.state == "done" and result.value is not None and result.value > 0.4
    model, (image, truth) = load_model(str(tiny_model_file), device="cpu", precision="float32"), scan(9)
    parameters = Segment(head=str(result.weights))
    found = parameters.run(Case(image), Run(model, seed=3))
    ours = found.volumes["segmentation"] == 1
    assert 2 * (ours & (truth > 0)).sum() / (ours.sum() + truth.sum()) > 0.4
    assert 0.01 < found.volumes["uncertainty"].max() <= 0.5
    again = parameters.run(Case(image), Run(model, seed=3))
    assert all(np.array_equal(found.volumes[name], again.volumes[name]) for name in found.volumes)


def scan(number: int) -> tuple[Volume, np.ndarray]:
    """A body with a bright ball that its mask marks."""
    image = body((20, 28, 28), 2.5)
    middle = np.random.default_rng(number).uniform(9, 12, 3)
    ball = sum((a - c) ** 2 for a, c in zip(np.indices(image.voxels.shape), middle, strict=True)) <= 12
    voxels = image.voxels + np.where(ball, 200, 0) + np.random.default_rng(number).integers(-15, 16, image.voxels.shape)
    return image.with_voxels(voxels.astype(np.int16)), ball.astype(np.uint8)


def test_options_survive_json() -> None:
    import json

    method = MedSegDiffMethod(dynamic=False, features=False, channels=(8, 16))
    again = make_method("medsegdiff", json.loads(json.dumps(options_of(method))))
    assert options_of(again) == options_of(method)
    before, after = (m.build(2, torch.nn.Identity()).state_dict() for m in (method, again))
    assert {name: w.shape for name, w in before.items()} == {name: w.shape for name, w in after.items()}
