"""What makes the engine fast must not change what it finds."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from MedDiffFMLib.conditioning.condition import Condition, stack
from MedDiffFMLib.inference import sliding_window as blending
from MedDiffFMLib.inference.direct_convolution import convolve_directly
from MedDiffFMLib.inference.engine import WINDOW, Engine
from MedDiffFMLib.inference.memory_plan import LARGEST_BATCH, SHARE, batch_for, plan_memory, whole_volume_bytes
from MedDiffFMLib.inference.sliding_window import AIR, SlidingWindowDenoiser
from MedDiffFMLib.inference.upsample_fusion import TransposedUpsample, fold_upsampling
from MedDiffFMLib.inference.window_plan import cut, extend, fewest_voxels, inside, plan_windows
from MedDiffFMLib.models.checkpoint import load_model
from MedDiffFMLib.networks.unet import NetworkConfig, PriorUNet
from MedDiffFMLib.preprocessing.working_image import working_image
from MedDiffFMLib.tasks.anomaly.masked_prediction import predict_masked
from MedDiffFMLib.tasks.denoise.coarse_to_fine import denoise_coarse_to_fine, not_air


@pytest.fixture(scope="module")
def tiny_model(tiny_model_file):
    return load_model(str(tiny_model_file), device="cpu", precision="float32")


class Counting(nn.Module):
    """x0 = x / (1 + sigma^2), and the windows that were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Identity()
        self.network.config = type("Config", (), {"divisor": 8})()
        self.windows = 0

    def forward(self, x: torch.Tensor, sigma: torch.Tensor, condition: object) -> torch.Tensor:
        self.windows += len(x)
        return x / (1 + sigma.reshape(-1, 1, 1, 1, 1) ** 2)


def counting_engine() -> tuple[Engine, Counting]:
    denoiser = Counting()
    return Engine(denoiser, device="cpu", precision="float32", window=32), denoiser


@pytest.mark.parametrize("doublings", [1, 2])
def test_a_folded_doubling_is_the_same_network(doublings: int) -> None:
    torch.manual_seed(0)
    config = NetworkConfig(channels=(8,) * doublings + (32,), attention=(False,) * (doublings + 1))
    network = PriorUNet(config).eval()
    for parameter in network.parameters():  # MONAI starts the output convolution at zero
        nn.init.normal_(parameter, std=0.2)
    x, noise, when = torch.randn(1, 1, 16, 16, 16), torch.tensor([0.1]), torch.tensor([300.0])
    condition = Condition((1.0, 1.0, 1.0)).encode((16, 16, 16))
    with torch.inference_mode():
        before = network(x, noise, when, condition)
        assert fold_upsampling(network) == doublings and fold_upsampling(network) == 0
        after = network(x, noise, when, condition)
    assert before.std() > 0.1
    assert torch.allclose(before, after, atol=1e-5 * float(before.abs().max()))
    assert sum(isinstance(part, TransposedUpsample) for part in network.modules()) == doublings


@pytest.mark.parametrize("batch", [1, 2])
def test_direct_convolutions_are_the_same_network(batch: int) -> None:
    torch.manual_seed(0)
    network = PriorUNet(NetworkConfig(channels=(16, 32), attention=(False, False))).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    inputs = torch.randn(batch, 1, 12, 16, 20), torch.full((batch,), 0.1), torch.full((batch,), 300.0)
    condition = stack([Condition((1.0, 1.0, 1.0)).encode((12, 16, 20))] * batch)
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    with torch.inference_mode():
        before = network(*inputs, condition)
        places = {name: id(module) for name, module in network.named_modules()}
        plain = sum(type(module) is nn.Conv3d for module in network.modules())
        assert convolve_directly(network) == (plain if torch.backends.mkldnn.is_available() else 0)
        assert plain > 0 and convolve_directly(network) == 0
        after = network(*inputs, condition)
    assert {name: id(module) for name, module in network.named_modules()} == places
    assert before.std() > 0.1 and torch.allclose(before, after, atol=1e-5 * float(before.abs().max()))


def test_direct_convolutions_can_be_trained() -> None:
    torch.manual_seed(0)
    plain = nn.Conv3d(3, 5, 3, padding=1)
    direct = copy.deepcopy(plain)
    convolve_directly(direct)
    gradients = []
    for layer in (plain, direct):
        x = torch.linspace(-1, 1, 3 * 6**3).reshape(1, 3, 6, 6, 6).requires_grad_()
        layer(x).square().sum().backward()
        assert layer.weight.grad is not None and x.grad is not None
        gradients.append((layer.weight.grad, x.grad))
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("length", [7, 64, 81, 128, 300, 512])
@pytest.mark.parametrize(("window", "overlap", "divisor"), [(80, 8, 8), (64, 16, 8), (30, 4, 8), (48, 8, 16)])
def test_no_other_tiling_computes_fewer_voxels(length: int, window: int, overlap: int, divisor: int) -> None:
    count, edge = fewest_voxels(length, window, overlap, divisor)
    assert edge % divisor == 0 and edge <= max(window, divisor)
    assert count * edge - (count - 1) * min(overlap, edge // 2) >= length
    largest = window // divisor * divisor
    if count > 1:
        for other in range(-(-2 * largest // 3 // divisor) * divisor, largest + 1, divisor):
            step = other - min(overlap, other // 2)
            needed = 1 + max(0, -(-(length - other) // step))
            assert count * edge <= needed * other
    else:
        assert length <= largest or edge == divisor


def test_the_usual_volumes_need_far_fewer_voxels_than_windows_of_the_training_size() -> None:
    for n, limit in ((128, 1.43), (256, 1.5), (384, 1.43), (512, 1.5)):
        plan = plan_windows((n, n, n), WINDOW, 8, 8)
        assert len(plan.boxes) * np.prod(plan.window) / n**3 < limit


@pytest.mark.parametrize("shifted", [False, True])
def test_shares_of_all_windows_sum_to_one_and_cuts_are_the_extended_image(shifted: bool) -> None:
    shape = (19, 70, 41)
    plan = plan_windows(shape, 32, 8, 8, shifted)
    x = torch.randn(shape)
    whole, total = extend(x, plan.shape, plan.offset), torch.zeros(shape)
    for box in plan.boxes:
        assert torch.equal(cut(x, box, plan.offset), whole[box])
        place, part = inside(box, plan.offset, shape)
        total[place] += plan.importance_map(box)[part]
    assert torch.allclose(total, torch.ones(shape), atol=1e-5)


@pytest.mark.parametrize("turn", [0, 1])
def test_skipping_windows_changes_no_wanted_voxel(turn: int) -> None:
    torch.manual_seed(1)
    x, shape = torch.randn(2, 1, 40, 70, 70), (40, 70, 70)
    wanted = torch.zeros(shape, dtype=torch.bool)
    wanted[3:20, 60:, 5:20] = True
    engine, counted = counting_engine()
    everything = SlidingWindowDenoiser(engine, Condition((1.0, 1.0, 1.0)), shape, overlap=8, turn=turn)(x, 0.5)
    all_windows, counted.windows = counted.windows, 0
    part = SlidingWindowDenoiser(engine, Condition((1.0, 1.0, 1.0)), shape, overlap=8, turn=turn, wanted=wanted)(x, 0.5)
    assert 0 < counted.windows < all_windows
    assert torch.equal(part[..., wanted], everything[..., wanted])
    assert (part == AIR).any()


def test_air_is_found_under_noise_and_nothing_else_is_taken_for_air() -> None:
    rng = np.random.default_rng(0)
    image = np.full((40, 40, 40), -1.0) + rng.normal(0, 0.04, (40, 40, 40))
    image[25:] = -0.86 + rng.normal(0, 0.04, (15, 40, 40))  # lung
    image[5, 5, 5] = 0.1  # a wire
    dense = not_air(torch.from_numpy(np.clip(image, -1, 1).astype(np.float32))[None, None])
    assert dense[24:].all() and dense[5, 5, 5]
    assert dense[8:24].sum() == 0


@pytest.mark.slow
def test_denoising_is_the_same_on_all_that_is_not_air(tiny_model) -> None:
    rng = np.random.default_rng(0)
    image = np.full((24, 64, 96), -1.0)
    image[2:22, 20:44, 10:30] = 0.04
    noisy = torch.from_numpy(np.clip(image + rng.normal(0, 0.02, image.shape), -1, 1).astype(np.float32))[None, None]
    engine, before = tiny_model.engine, tiny_model.engine.memory_level
    engine.memory_level = replace(before, window=24)
    results, calls = [], []
    for whole in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            if whole:
                patch.setattr(
                    "MedDiffFMLib.tasks.denoise.coarse_to_fine.not_air",
                    lambda x: torch.ones(x.shape[2:], dtype=torch.bool),
                )
            start = engine.calls
            results.append(denoise_coarse_to_fine(engine, noisy, 0.02, Condition((1.0, 1.0, 1.0))))
            calls.append(engine.calls - start)
    engine.memory_level = before
    # The passes see each other's air only within the windows that hold tissue, and those are computed.
    body = torch.zeros(noisy.shape[2:], dtype=torch.bool)
    body[2:22, 20:44, 10:30] = True
    assert calls[0] < 0.8 * calls[1]
    assert (results[0] - results[1])[0, 0][body].abs().max() < 0.001
    assert results[0][0, 0, :, :, -8:].max() < -0.99


@pytest.mark.slow
def test_the_search_area_has_the_same_expectation_as_without_one(tiny_model, small_ct) -> None:
    image, engine, before = working_image(small_ct, 6.0), tiny_model.engine, tiny_model.engine.memory_level
    wanted = np.zeros(image.shape, dtype=bool)
    wanted[:3, :4, :4] = True
    engine.memory_level = replace(before, window=16)
    everything, near = (
        predict_masked(image, engine, 24.0, smoothing=1.0, sets=1, wanted=area) for area in (None, wanted)
    )
    engine.memory_level = before
    assert np.array_equal(everything.expected[wanted], near.expected[wanted])
    assert np.allclose(everything.residual[wanted], near.residual[wanted], atol=1e-3)
    assert not np.allclose(everything.expected, near.expected)


def test_conditions_are_encoded_once_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps meet all there is: windows of either turn."""
    engine, _ = counting_engine()
    encoded = []
    encode = Condition.encode
    monkeypatch.setattr(Condition, "encode", lambda *given: encoded.append(1) or encode(*given))
    for room, times in ((blending.KEPT_CONDITIONS, 2), (0, 4)):
        monkeypatch.setattr(blending, "KEPT_CONDITIONS", room)
        denoise = SlidingWindowDenoiser(engine, Condition((1.0, 1.0, 1.0)), (8, 8, 100))
        for _ in range(4):
            denoise(torch.zeros(1, 1, 8, 8, 100), 1.0)
        assert len(encoded) == times * denoise.windows > 4
        encoded.clear()


def test_batches_grow_with_memory_and_fit_into_it() -> None:
    for gigabytes, window in itertools.product((0.1, 1, 4, 8, 80), (32, 64, 80)):
        batch = batch_for(int(gigabytes * 1e9), window)
        assert 1 <= batch <= LARGEST_BATCH
        assert batch_for(int(2 * gigabytes * 1e9), window) >= batch
    assert batch_for(int(8e9), WINDOW) > 4 and batch_for(int(80e9), WINDOW) == LARGEST_BATCH


@pytest.mark.parametrize("gigabytes", [2, 4, 8, 80])
@pytest.mark.parametrize("shape", [(64, 64, 64), (400, 512, 512), (1000, 512, 512), (3000, 512, 512)])
def test_no_plan_exceeds_the_device_and_windows_do_not_grow_with_the_volume(gigabytes: int, shape: tuple) -> None:
    free = int(gigabytes * 1e9)
    plan, small = plan_memory(int(np.prod(shape)), free, WINDOW), plan_memory(1, free, WINDOW)
    assert plan.device_bytes <= free and plan.batch == small.batch
    assert plan.host == (whole_volume_bytes(int(np.prod(shape))) > free / 2)
    assert plan.device_bytes + plan.host_bytes == small.device_bytes - 8 + whole_volume_bytes(int(np.prod(shape)))


def test_a_volume_that_fills_the_device_is_held_in_host_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, _ = counting_engine()
    voxels = 512 * 512 * 1000
    monkeypatch.setattr(engine, "memory_level", replace(engine.memory_level, device=torch.device("meta")))
    for free, device in ((whole_volume_bytes(voxels) / SHARE + 1, "meta"), (2e9, "cpu"), (None, "meta")):
        monkeypatch.setattr(engine, "free_memory", lambda free=free: free)
        assert engine.home(voxels).type == device
