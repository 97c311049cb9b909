"""Windows and blending: any size, no seams, a memory shortage costs nothing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from MedDiffFMLib.conditioning.condition import Condition
from MedDiffFMLib.core.errors import Cancelled, DeviceError
from MedDiffFMLib.core.progress import CancelToken, ProgressMeter
from MedDiffFMLib.inference.engine import Engine, is_out_of_memory
from MedDiffFMLib.inference.sliding_window import SlidingWindowDenoiser
from MedDiffFMLib.inference.window_plan import extend, plan_windows, reflected_range


class PointwiseDenoiser(nn.Module):
    """x0 = x / (1 + sigma^2): a denoiser without a receptive field, so windows must leave no trace at all."""

    def __init__(self):
        super().__init__()
        self.network = nn.Identity()
        self.network.config = type("Config", (), {"divisor": 8})()
        self.batches = []

    def forward(self, x, sigma, condition):
        self.batches.append(tuple(x.shape))
        return x / (1 + sigma.reshape(-1, 1, 1, 1, 1) ** 2)


def blended(shape, denoiser=None, **options):
    engine = Engine(denoiser or PointwiseDenoiser(), device="cpu", precision="float32", window=32)
    return SlidingWindowDenoiser(engine, Condition((1.5, 1.5, 1.5)), shape, **options)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.tuples(*[st.integers(1, 75)] * 3), st.integers(1, 3))
def test_any_size_is_denoised_without_a_trace_of_the_windows(shape, samples):
    x = torch.randn(samples, 1, *shape)
    assert torch.allclose(blended(shape)(x, 0.5), x / 1.25, atol=1e-5)


@given(st.tuples(*[st.integers(1, 200)] * 3))
def test_windows_cover_everything_with_positive_weight(shape):
    plan = plan_windows(shape, 64, 16, 8)
    assert all(total.min() > 0 for total in plan.total)
    assert all(n % 8 == 0 for n in plan.window)
    for box in plan.boxes:
        assert all(s.start >= 0 and s.stop <= n for s, n in zip(box, plan.shape, strict=True))


def test_blend_moves_smoothly_between_disagreeing_windows():
    """Windows that answer with different constants: the largest jump between neighbors is that of the ramp."""

    class Disagreeing(PointwiseDenoiser):
        def forward(self, x, sigma, condition):
            return torch.ones_like(x) * len(self.batches) if not self.batches.append(0) else x

    result = blended((8, 8, 80), Disagreeing())(torch.zeros(1, 1, 8, 8, 80), 1.0)[0, 0, 4, 4]
    step = (result[1:] - result[:-1]).abs().max()
    assert result.max() - result.min() > 0.9
    assert step < 0.25


class Hungry(PointwiseDenoiser):
    """Fails like an allocator until windows are small enough."""

    def __init__(self, voxels, error):
        super().__init__()
        self.voxels, self.error = voxels, error

    def forward(self, x, sigma, condition):
        if x.numel() > self.voxels:
            raise self.error
        return super().forward(x, sigma, condition)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_memory_shortage_steps_down_and_loses_nothing(error):
    engine = Engine(Hungry(32**3, error), device="cpu", precision="float32", window=64)
    told = []
    engine.on_warning = told.append
    x = torch.randn(1, 1, 70, 70, 70)
    result = SlidingWindowDenoiser(engine, Condition((1.0, 1.0, 1.0)), (70, 70, 70))(x, 0.5)
    assert torch.allclose(result, x / 1.25, atol=1e-5)
    assert engine.memory_level.window == 32
    assert len(told) == 3


def test_what_is_no_shortage_is_not_repeated():
    engine, calls = Engine(PointwiseDenoiser(), device="cpu", precision="float32"), []
    with pytest.raises(RuntimeError, match="shapes"):
        engine.retry_on_oom(lambda: calls.append(1) or torch.zeros(2, 3) @ torch.zeros(2, 3))
    assert calls == [1]


def test_hopeless_shortage_is_a_clear_error():
    denoise = blended((40, 40, 40), Hungry(0, MemoryError()))
    with pytest.raises(DeviceError, match="too little memory"):
        denoise(torch.zeros(1, 1, 40, 40, 40), 1.0)


def test_other_errors_are_not_mistaken_for_a_shortage():
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        blended((16, 16, 16), Hungry(0, RuntimeError("shapes differ")))(torch.zeros(1, 1, 16, 16, 16), 1.0)


def test_cancel_is_noticed_before_the_next_network_call():
    cancel = CancelToken()
    denoiser = PointwiseDenoiser()

    def stop_after_three(event):
        if len(denoiser.batches) == 3:
            cancel.cancel()

    denoise = blended((80, 80, 80), denoiser, meter=ProgressMeter(1, stop_after_three, cancel))
    with pytest.raises(Cancelled):
        denoise(torch.zeros(1, 1, 80, 80, 80), 1.0)
    assert len(denoiser.batches) == 3


def test_progress_reaches_one_and_never_falls():
    fractions = []
    meter = ProgressMeter(2, lambda event: fractions.append(event.fraction))
    denoise = blended((70, 40, 40), meter=meter)
    x = torch.zeros(1, 1, 70, 40, 40)
    denoise(denoise(x, 1.0), 0.5)
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)


def test_reflection_folds_at_both_ends():
    assert reflected_range(-2, 8, 4).tolist() == [2, 1, 0, 1, 2, 3, 2, 1]
    x = torch.arange(3.0).reshape(1, 1, 1, 1, 3)
    assert extend(x, (1, 1, 5)).flatten().tolist() == [0, 1, 2, 1, 0]


class PairLattice(PointwiseDenoiser):
    """Right but for a lattice of period two along each window, as the Haar stem leaves one."""

    def forward(self, x, sigma, condition):
        sign = 1 - 2 * (torch.arange(x.shape[-1]) % 2)
        return super().forward(x, sigma, condition) + sign


def test_steps_take_turns_with_the_pairs_of_the_stem():
    """Two steps in a row leave opposite lattices, in every window of every axis that has several."""
    denoise = blended((8, 48, 80), PairLattice())
    x = torch.zeros(1, 1, 8, 48, 80)
    first, second, third = (denoise(x, 1.0) for _ in range(3))
    assert torch.allclose(first, -second, atol=1e-4) and torch.allclose(first, third, atol=1e-4)
    assert first.abs().mean() > 0.9
    assert torch.allclose(blended((8, 48, 80), PairLattice(), turn=1)(x, 1.0), second, atol=1e-4)


@settings(deadline=None)
@given(st.integers(1, 600), st.sampled_from([(64, 16), (48, 16), (32, 8), (16, 16), (32, 0)]))
def test_windows_of_a_turn_pair_the_same_voxels_and_those_of_the_next_the_others(length, kind):
    plain, shifted = (plan_windows((length, 8, 8), *kind, 8, shifted=turn) for turn in (False, True))
    assert len(plain.boxes) == len(shifted.boxes) and shifted.window == plain.window
    assert plain.offset == (0, 0, 0) and shifted.offset == (int(length > plain.window[0] and kind[1] > 0), 0, 0)
    for plan in (plain, shifted):
        edges = [(box[0].start, box[0].stop) for box in plan.boxes]
        assert all(start % 2 == 0 for start, _ in edges)
        assert edges[0][0] == 0 and edges[-1][1] == plan.shape[0] >= length + plan.offset[0]
        common = [before[1] - after[0] for before, after in zip(edges[:-1], edges[1:], strict=True)]
        assert all(n >= min(kind[1], 8) - 4 for n in common) and plan.total[0].min() > 0


def test_condition_is_shifted_with_the_windows():
    """Each window must be told the position, the anatomy and the known voxels of its own place."""

    class Teller(PointwiseDenoiser):
        def forward(self, x, sigma, condition):
            place = condition.channels[:, 18:19].repeat_interleave(2, -1).repeat_interleave(2, -2)
            return place.repeat_interleave(2, -3)  # the coordinate along i, at half resolution

    line = torch.linspace(-1, 1, 80)
    flat = torch.zeros(8)
    engine = Engine(Teller(), device="cpu", precision="float32", window=32)
    denoise = SlidingWindowDenoiser(engine, Condition((1.0, 1.0, 1.0), (flat, flat, line)), (8, 8, 80))
    for _ in range(2):
        told = denoise(torch.zeros(1, 1, 8, 8, 80), 1.0)[0, 0, 4, 4]
        assert (told - line)[2:-2].abs().max() < 0.03
