"""A ControlNet changes nothing before it is trained, only itself when it is trained, and fits one prior alone."""

from dataclasses import replace

import pytest
import torch

from MedDiffFMLib.conditioning.condition import Condition, stack
from MedDiffFMLib.core.errors import ModelError
from MedDiffFMLib.diffusion.controlled_denoiser import with_control
from MedDiffFMLib.inference.sliding_window import SlidingWindowDenoiser
from MedDiffFMLib.models.checkpoint import build_denoiser, load_model, save_model
from MedDiffFMLib.models.controlnet_file import load_control, save_control
from MedDiffFMLib.networks.controlnet import ControlConfig
from MedDiffFMLib.networks.unet import NetworkConfig

SIZE = (16, 16, 16)
SIGMA = torch.tensor([0.1, 3.0])


def prior(kind="edm", seed=0, blocks=1):
    """A denoiser with random weights everywhere, so that no path through it is silent."""
    network = NetworkConfig(channels=(8, 32), blocks=blocks, attention=(False, False))
    denoiser = build_denoiser({"network": network.as_dict(), "denoiser": kind})
    generator = torch.Generator().manual_seed(seed)
    for parameter in denoiser.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return denoiser.eval()


def trained(denoiser, scale=0.05):
    """Any weights but zero in the ControlNet."""
    generator = torch.Generator().manual_seed(1)
    for parameter in denoiser.control.parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=generator)
    return denoiser


def encoded(channels, hole=False, seed=2):
    generator = torch.Generator().manual_seed(seed)
    control = None if channels is None else torch.randn(channels, *SIZE, generator=generator)
    condition = Condition((1.5, 1.5, 1.5), region=1, control=control)
    if hole:
        inside = torch.zeros(SIZE)
        inside[4:12, 4:12, 4:12] = 1
        condition = condition.filling(torch.randn(SIZE, generator=generator), inside)
    return stack([condition.encode(SIZE)] * 2)


@pytest.mark.parametrize("kind", ["edm", "cosine-epsilon"])
@pytest.mark.parametrize("hole", [False, True])
@pytest.mark.parametrize("bfloat16", [False, True])
@torch.no_grad()
def test_zero_training_does_not_change_a_bit(kind, hole, bfloat16):
    alone = prior(kind)
    controlled = with_control(alone, ControlConfig(images=1, masks=2))
    x, condition = torch.randn(2, 1, *SIZE), encoded(3, hole)
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        for controlled.weight in (1.0, 2.0):
            assert torch.equal(controlled(x, SIGMA, condition), alone(x, SIGMA, condition))


@torch.no_grad()
def test_weight_zero_and_absent_control_are_the_prior_alone_whatever_was_trained():
    alone = prior()
    controlled = trained(with_control(alone, ControlConfig(images=1, guess=0.05)))
    x, condition = torch.randn(2, 1, *SIZE), encoded(1)
    expected = alone(x, SIGMA, condition)
    assert torch.equal(controlled(x, SIGMA, encoded(None)), expected)
    assert not torch.equal(controlled(x, SIGMA, condition), expected)
    controlled.weight = 0.0
    assert torch.equal(controlled(x, SIGMA, condition), expected)


@torch.no_grad()
def test_more_weight_changes_more():
    alone = prior()
    controlled = trained(with_control(alone, ControlConfig(masks=1)), 0.02)
    x, condition = torch.randn(2, 1, *SIZE), encoded(1)
    changes = []
    for controlled.weight in (0.25, 0.5, 1.0):
        changes.append((controlled(x, SIGMA, condition) - alone(x, SIGMA, condition)).square().mean())
    assert changes[0] < changes[1] < changes[2]


@torch.no_grad()
def test_a_guess_is_a_second_measurement_of_the_image():
    """Untrained: the mean weighted by inverse variances, of which the prior removes the part that is noise."""
    alone, error = prior(), 0.05
    controlled = with_control(alone, ControlConfig(images=1, guess=error))
    x, condition, sigma = torch.randn(2, 1, *SIZE), encoded(1), torch.tensor([0.02, 0.2])
    mine, theirs = 1 / sigma**2, torch.full((2,), 1 / error**2)
    a, b = (weights.reshape(2, 1, 1, 1, 1) for weights in (mine, theirs))
    mixed = (a * x + b * condition.control) / (a + b)
    cleaned = alone(mixed, (mine + theirs) ** -0.5, condition)
    expected = mixed + a / (a + b) * (cleaned - mixed)
    assert torch.allclose(controlled(x, sigma, condition), expected, atol=1e-5)
    noise_alone = controlled(80 * x, torch.tensor([80.0, 80.0]), condition)
    assert torch.allclose(noise_alone, condition.control, atol=1e-3)
    low = torch.tensor([0.002, 0.002])
    assert (controlled(x, low, condition) - alone(x, low, condition)).abs().max() < 0.05


@pytest.mark.parametrize("own", [1, None])
def test_a_thin_controlnet_steers_a_deeper_prior(own):
    """One block a level beside two and three: nothing changes untrained, and every level of it is used."""
    alone = prior(blocks=(2, 3))
    controlled = with_control(alone, ControlConfig(masks=1, blocks=own))
    x, condition = torch.randn(2, 1, *SIZE), encoded(1)
    with torch.no_grad():
        assert torch.equal(controlled(x, SIGMA, condition), alone(x, SIGMA, condition))
    trained(controlled).loss(x, SIGMA, torch.randn_like(x), condition).sum().backward()
    parameters = list(controlled.control.named_parameters())
    assert [n for n, p in parameters if p.grad is None or not p.grad.abs().sum() > 0] == []
    blocks = {
        name.split(".resnets.")[0] + name.split(".resnets.")[1][0]
        for name, _ in parameters
        if "down_blocks" in name and ".resnets." in name
    }
    assert len(blocks) == (2 if own else 5)


@pytest.mark.parametrize("guess", [None, 0.05])
def test_only_the_controlnet_learns_and_all_of_it_does(guess):
    controlled = trained(with_control(prior(), ControlConfig(images=1, masks=1, guess=guess)))
    x0 = torch.randn(2, 1, *SIZE)
    controlled.loss(x0, SIGMA, torch.randn_like(x0), encoded(2)).sum().backward()
    assert all(p.grad is None for p in controlled.network.prior.parameters())
    silent = [n for n, p in controlled.control.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


@pytest.mark.slow
def test_first_steps_lower_the_loss():
    torch.manual_seed(0)
    controlled = with_control(prior(), ControlConfig(images=1, guess=0.05))
    condition, noise = encoded(1), torch.randn(2, 1, *SIZE)
    x0 = condition.control + 0.03
    optimizer = torch.optim.Adam(controlled.control.parameters(), 2e-3)
    losses = []
    for _ in range(12):
        loss = controlled.loss(x0, torch.tensor([1.0, 80.0]), noise, condition).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_the_encoder_starts_as_the_priors_and_the_control_keeps_its_resolution():
    controlled = with_control(prior(), ControlConfig(images=1, masks=1))
    branch, unet = controlled.control, controlled.network.prior.unet
    for part in ("conv_in", "time_embed", "class_embedding", "down_blocks", "middle_block"):
        mine, theirs = (getattr(module, part).state_dict() for module in (branch.encoder, unet))
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    channels = branch.embed(torch.randn(2, 2, *SIZE))
    assert branch.encoder.controlnet_cond_embedding(channels).shape == (2, 8, 8, 8, 8)


@pytest.fixture(scope="module")
def model(tiny_model_file):
    return load_model(str(tiny_model_file), device="cpu", precision="float32")


def saved(model, path, **changes):
    controlled = trained(with_control(model.engine.denoiser, ControlConfig(images=1, guess=0.05)))
    facts = {"task": "super-resolution", "prior": {"name": model.name, "sha256": model.sha256}, **changes}
    save_control(path, controlled.control, settings={"factors": [2, 6]}, training={"steps": 3}, **facts)
    return controlled


def test_a_file_holds_the_controlnet_alone_and_gives_it_back(model, tmp_path):
    from safetensors import safe_open

    path = tmp_path / "control.safetensors"
    before = saved(model, path)
    with safe_open(str(path), "pt") as stream:
        assert set(stream.keys()) == set(before.control.state_dict())
    control = load_control(path, model, "super-resolution")
    assert (control.task, control.settings) == ("super-resolution", {"factors": [2, 6]})
    assert control.description["training"] == {"steps": 3}
    x, condition = torch.randn(2, 1, *SIZE), encoded(1)
    with torch.no_grad():
        assert torch.allclose(control.denoiser(x, SIGMA, condition), before(x, SIGMA, condition), atol=0.02)
    assert control.denoiser.network.prior is model.engine.denoiser.network


def test_another_prior_task_or_kind_of_file_is_refused(model, tiny_model_file, tmp_path):
    path, other = tmp_path / "control.safetensors", tmp_path / "other.safetensors"
    saved(model, path)
    save_model(other, prior(seed=5).state_dict(), model.config)
    with pytest.raises(ModelError, match="trained with the prior 'tiny'.*not with 'other'"):
        load_control(path, load_model(str(other), device="cpu"))
    with pytest.raises(ModelError, match="for super-resolution, not for lesion"):
        load_control(path, model, "lesion")
    with pytest.raises(ModelError, match="holds no MedDiff-FM ControlNet"):
        load_control(tiny_model_file, model)
    with pytest.raises(ModelError, match="holds no MedDiff-FM prior"):
        load_model(str(path))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ModelError, match="truncated"):
        load_control(path, model)


@pytest.mark.slow
@torch.no_grad()
def test_windows_guidance_and_memory_ladder_work_with_a_control(model, tmp_path):
    """Several windows a volume, the control cut as the image is; an untrained one leaves the prior's bits."""
    engine, own = model.engine, model.engine.denoiser
    condition = Condition((2.0, 2.0, 2.0), region=1, control=torch.randn(1, 20, 24, 16))
    x, roomy = torch.randn(1, 1, 20, 24, 16), engine.memory_level

    def blended(with_what, **options):
        with engine.running(with_what):
            return SlidingWindowDenoiser(engine, condition, (20, 24, 16), overlap=4, **options)(x, 0.3)

    try:
        engine.memory_level = replace(roomy, window=16)
        untrained = with_control(own, ControlConfig(images=1))
        for options in ({}, {"guidance": 2.0}):
            assert torch.equal(blended(untrained, **options), blended(own, **options))
        steered = trained(with_control(own, ControlConfig(images=1)))
        assert engine.denoiser is own
        whole = blended(steered)
        engine.reduce_memory(MemoryError())  # one window at a time
        assert torch.allclose(blended(steered), whole, atol=1e-5)
    finally:
        engine.memory_level = roomy
