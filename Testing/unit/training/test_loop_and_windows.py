"""What a prior is shown: windows with the geometry they claim, noise with the texture it claims, repeatably."""

from __future__ import annotations

import csv
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from MedDiffFMLib.conditioning.regions import NULL_REGION, REGIONS
from MedDiffFMLib.core.errors import ModelError
from MedDiffFMLib.datasets.prepared_cases import Case, Level
from MedDiffFMLib.imaging.resampling import linear_weights, resample_box
from MedDiffFMLib.inference.window_plan import reflected_range
from MedDiffFMLib.training.averages import ExponentialAverage
from MedDiffFMLib.training.batches import TrainingWindows, collate
from MedDiffFMLib.training.holes import draw_blobs, draw_lattice
from MedDiffFMLib.training.loop import LoopConfig, TrainingLoop, rate_at, save_atomically
from MedDiffFMLib.training.noise import NoiseConfig, balance, cosine_chain, ct_texture, draw_noise
from MedDiffFMLib.training.windows import LEVELS, PURPOSES, WindowConfig, draw_window

SIZE = 16
KEEP = {"drop_region": 0.0, "drop_position": 0.0, "drop_anatomy": 0.0, "drop_tissue": 0.0}
PLAIN = {"fill_share": 0.0, "denoise_share": 0.0}  # windows of whole images only
SLOPE = np.array([3.0, -2.0, 1.5])  # HU a mm along (k, j, i)


def ramp_case(
    spacing: tuple[float, ...] = (2.0, 1.0, 1.5), shape: tuple[int, ...] = (40, 60, 50), native: bool = True
) -> Case:
    """A CT that is linear in the position, so that every voxel tells where it comes from; anatomy is the slice and
    tissue is the row, modulo 7, plus 1."""
    steps = np.array(spacing)
    position = np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, steps, strict=True)), indexing="ij")
    voxels = sum(slope * axis for slope, axis in zip(SLOPE, position, strict=True)).astype(np.float32)
    anatomy = np.broadcast_to(np.arange(shape[0], dtype=np.uint8)[:, None, None], shape)
    tissue = np.broadcast_to(np.arange(shape[1], dtype=np.uint8)[:, None] % 7 + 1, shape)
    low, high = -0.5 * steps, (np.array(shape) - 0.5) * steps
    level = Level(voxels, anatomy, steps, np.zeros(3), tissue)
    return Case("ramp", "p", "chest", (level,), (low, high), native=native)


def positions(case: Case, coordinates: np.ndarray) -> np.ndarray:
    """Normalized coordinates (3, n) -> mm; exact where they were not clipped."""
    low, high = (edge[:, None] for edge in case.body_box)
    return low + (coordinates + 1) / 2 * (high - low)


def expected_ramp(at: np.ndarray) -> np.ndarray:
    """The ramp's HU on the grid of three lines of positions in mm."""
    k, j, i = (slope * line for slope, line in zip(SLOPE, at, strict=True))
    return k[:, None, None] + j[None, :, None] + i[None, None, :]


# Windows


@given(
    level=st.sampled_from(LEVELS),
    spacing=st.tuples(*[st.floats(0.6, 4.0)] * 3),
    acquisition=st.booleans(),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_window_shows_what_lies_at_the_position_it_claims(
    level: str, spacing: tuple[float, ...], acquisition: bool, seed: int
) -> None:
    case = ramp_case(spacing)
    config = WindowConfig(size=SIZE, levels=(level,), acquisition_share=float(acquisition), **KEEP, **PLAIN)
    sample = draw_window(case, config, np.random.default_rng(seed))
    native_voxels = acquisition and level == "native"
    assert sample["level"] == level and sample["voxels"].shape == (SIZE,) * 3
    assert REGIONS[sample["region"]] == "chest"
    at = positions(case, sample["coordinates"])
    steps = np.abs(np.diff(at, axis=1))
    if native_voxels:
        np.testing.assert_array_equal(sample["spacing"], case.levels[0].spacing)
    np.testing.assert_allclose(steps, np.repeat(sample["spacing"][:, None], SIZE - 1, 1), rtol=1e-3, atol=1e-3)
    # Where the antialiasing does not reach over the edge of the CT, a linear image stays what it is.
    reach = np.maximum(sample["spacing"], case.levels[0].spacing)[:, None] * (0 if native_voxels else 1)
    last = (np.array(case.levels[0].voxels.shape)[:, None] - 1) * case.levels[0].spacing[:, None]
    inside = [
        np.flatnonzero((line >= r - 1e-3) & (line <= end - r + 1e-3))
        for line, r, end in zip(at, reach, last, strict=True)
    ]
    assert all(len(line) >= 2 for line in inside)
    found, wanted = sample["voxels"][np.ix_(*inside)], expected_ramp(at)[np.ix_(*inside)]
    # Copied voxels are exact but for float32; the center of sampled antialiasing weights is a tenth of a voxel off.
    tolerance = 0.02 if native_voxels else 0.1 * np.abs(SLOPE * case.levels[0].spacing).sum()
    np.testing.assert_allclose(found, wanted, atol=tolerance)
    slices = np.clip(np.rint(at[0] / case.levels[0].spacing[0]), 0, 39)
    assert np.abs(sample["anatomy"][:, 0, 0] - slices).max() <= 1
    assert (np.abs(sample["anatomy"][:, 0, 0] - slices) > 0).mean() <= 0.1, "nearest slice but for ties"
    rows = np.clip(np.rint(at[1] / case.levels[0].spacing[1]), 0, 59)
    assert (sample["tissue"][0, :, 0] == rows % 7 + 1).mean() >= 0.9


def test_levels_have_the_extent_of_their_kind() -> None:
    case = ramp_case((1.0, 1.0, 1.0), (100, 100, 100))
    extents = {}
    for level in LEVELS:
        config = WindowConfig(size=SIZE, levels=(level,), zoom=1.0, acquisition_share=0.0, **KEEP, **PLAIN)
        drawn = [draw_window(case, config, np.random.default_rng(n))["spacing"] for n in range(8)]
        extents[level] = SIZE * np.array(drawn)
    assert (extents["whole"] >= 95).all() and (extents["whole"] <= 115).all()
    np.testing.assert_allclose(extents["double"], SIZE * 1.5 * 2)
    np.testing.assert_allclose(extents["native"], SIZE * 1.5)


def test_acquisition_windows_continue_a_thin_ct_by_reflection() -> None:
    case = ramp_case(shape=(6, 60, 50))
    config = WindowConfig(size=SIZE, levels=("native",), acquisition_share=1.0, **KEEP, **PLAIN)
    sample = draw_window(case, config, np.random.default_rng(3))
    index = reflected_range(0, SIZE, 6)
    assert index.tolist() == [0, 1, 2, 3, 4, 5, 4, 3, 2, 1, 0, 1, 2, 3, 4, 5]
    np.testing.assert_array_equal(sample["voxels"], sample["voxels"][:6][index])
    np.testing.assert_allclose(positions(case, sample["coordinates"])[0], index * 2.0, atol=1e-4)
    np.testing.assert_array_equal(sample["anatomy"][:, 0, 0], index)


@given(st.floats(-5, 30), st.floats(0.2, 6), st.integers(1, 20), st.integers(1, 30))
def test_antialiasing_weights_are_averages(start: float, step: float, count: int, available: int) -> None:
    weights = linear_weights(start, step, count, available)
    assert weights.shape == (count, available) and (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)


def test_coarser_windows_are_antialiased() -> None:
    noise = np.random.default_rng(0).normal(0, 100, (48, 48, 48)).astype(np.float32)
    coarse = resample_box(noise, np.full(3, 1.5), np.full(3, 4.0), (10, 10, 10))
    assert coarse.std() < 25, "picking single voxels would keep the standard deviation of 100"


def test_the_level_in_use_is_the_coarsest_that_is_fine_enough() -> None:
    fine, coarse = (Level(np.zeros((4, 4, 4)), None, np.full(3, s), np.zeros(3)) for s in (1.0, 3.0))
    case = Case("c", "p", "", (fine, coarse), (np.zeros(3), np.ones(3)))
    chosen = [case.level_for(np.array(s)) for s in ((0.5,) * 3, (2.9,) * 3, (3.0, 3.0, 2.0), (3.0,) * 3)]
    assert chosen == [0, 0, 0, 1]


def test_a_sample_is_a_function_of_seed_and_number() -> None:
    cases = [ramp_case(), ramp_case((1.0, 1.0, 1.0))]
    config = WindowConfig(size=SIZE)
    whole = TrainingWindows(cases, config, seed=5, first=0, count=12)
    tail = TrainingWindows(cases, config, seed=5, first=8, count=4)
    for n in range(4):
        for key, value in whole[8 + n].items():
            np.testing.assert_array_equal(np.asarray(tail[n][key]), np.asarray(value), err_msg=key)
    other = TrainingWindows(cases, config, seed=6, first=8, count=4)
    assert any(not np.array_equal(tail[n]["voxels"], other[n]["voxels"]) for n in range(4))


@pytest.mark.slow
def test_conditions_are_dropped_as_often_as_asked() -> None:
    config = WindowConfig(size=8, drop_region=0.3, drop_position=0.15, drop_anatomy=0.6, drop_tissue=0.45, **PLAIN)
    windows = TrainingWindows([ramp_case()], config, seed=0, first=0, count=600)
    samples = [windows[n] for n in range(len(windows))]
    for key, share in (("region", 0.3), ("coordinates", 0.15), ("anatomy", 0.6), ("tissue", 0.45)):
        found = np.mean([sample[key] is None for sample in samples])
        assert abs(found - share) < 4 * np.sqrt(share * (1 - share) / len(samples)), key
    levels = Counter(sample["level"] for sample in samples)
    assert set(levels) == set(LEVELS) and min(levels.values()) > 150


def test_a_dropped_condition_reaches_the_network_as_unknown() -> None:
    hidden = WindowConfig(size=8, drop_region=1.0, drop_position=1.0, drop_anatomy=1.0, drop_tissue=1.0, **PLAIN)
    x0, condition = collate([TrainingWindows([ramp_case()], hidden, 0, 0, 1)[0]])[:2]
    assert x0.shape == (1, 1, 8, 8, 8) and x0.abs().max() <= 1
    assert condition.region.tolist() == [NULL_REGION]
    scale = slice(27, 30)
    assert condition.channels[:, scale].abs().sum() > 0, "the voxel size is never hidden"
    condition.channels[:, scale] = 0
    assert not condition.channels.any()


# Purposes


@pytest.mark.slow
def test_purposes_come_in_the_asked_shares_with_their_levels_and_holes() -> None:
    config = WindowConfig(size=8, fill_share=0.4, denoise_share=0.3, **KEEP)
    windows = TrainingWindows([ramp_case()], config, seed=1, first=0, count=600)
    samples = [windows[n] for n in range(len(windows))]
    for purpose, share in (("generate", 0.3), ("fill", 0.4), ("denoise", 0.3)):
        found = np.mean([sample["purpose"] == purpose for sample in samples])
        assert abs(found - share) < 4 * np.sqrt(share * (1 - share) / len(samples)), purpose
    assert all((sample["hole"] is not None) == (sample["purpose"] == "fill") for sample in samples)
    assert {sample["level"] for sample in samples if sample["purpose"] == "denoise"} == {"native"}
    shown = {p: np.mean([s["tissue"] is not None for s in samples if s["purpose"] == p]) for p in PURPOSES}
    assert shown["denoise"] == 0, "classes that are made from the clean image would give it away"
    assert shown["generate"] == 1 and abs(shown["fill"] - 0.6) < 0.15
    filled = Counter(sample["level"] for sample in samples if sample["purpose"] == "fill")
    assert filled["native"] > filled["double"] > filled["whole"], "small holes in fine voxels are the usual ones"


def test_noise_is_learned_on_voxels_of_scanners_and_nothing_is_made_finer_than_it_was() -> None:
    """Smoothed voxels say nothing about noise; seen at a spacing that they do not resolve they would teach blur."""
    smoothed, native = ramp_case((3.0, 4.5, 4.5), native=False), ramp_case((2.0, 1.0, 1.0), (20, 20, 20))
    windows = TrainingWindows([smoothed, native], WindowConfig(size=8), seed=4, first=0, count=300)
    samples = [windows[n] for n in range(len(windows))]
    denoised = [s for s in samples if s["purpose"] == "denoise"]
    assert denoised and all(s["spacing"][1] <= 1.6 for s in denoised), "all of the native case"
    assert any(s["purpose"] == "fill" and s["spacing"][1] >= 4.5 for s in samples), "holes may be in any case"
    config = WindowConfig(size=8, levels=("double", "native"), acquisition_share=1.0, **KEEP, **PLAIN)
    for n in range(60):
        sample = draw_window(smoothed, config, np.random.default_rng(n))
        assert (sample["spacing"][1:] >= 4.5 - 1e-9).all() and not np.allclose(sample["spacing"], (3, 4.5, 4.5))
    only = TrainingWindows([smoothed], WindowConfig(size=8, fill_share=0.0, denoise_share=1.0), 0, 0, 1)
    assert only[0]["purpose"] == "denoise", "without any native case all count"


@given(spacing=st.tuples(st.floats(0.5, 6.0), *[st.floats(0.4, 2.0)] * 2), seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_denoise_windows_have_the_voxels_of_a_scanner(spacing: tuple[float, ...], seed: int) -> None:
    """Pixels square as the scanner's and 0.65 to 1.6 times as wide, slices its own or thicker, up to 6 mm."""
    case = ramp_case(spacing)
    config = WindowConfig(size=SIZE, fill_share=0.0, denoise_share=1.0, **KEEP)
    sample = draw_window(case, config, np.random.default_rng(seed))
    own = np.array(spacing)
    step = sample["spacing"] / own
    assert step[1] == pytest.approx(step[2]) and 0.65 - 1e-9 <= step[1] <= 1.6 + 1e-9
    assert step[0] >= 1 and (step[0] == 1 or (own[0] <= 3 and sample["spacing"][0] <= 6 + 1e-9))
    at = positions(case, sample["coordinates"])
    np.testing.assert_allclose(np.abs(np.diff(at, axis=1)).max(1), sample["spacing"], rtol=1e-3, atol=1e-3)
    reach = 2 * np.maximum(sample["spacing"], own)[:, None]
    last = (np.array(case.levels[0].voxels.shape)[:, None] - 1) * own[:, None]
    inner = [np.flatnonzero((line > r) & (line < end - r)) for line, r, end in zip(at, reach, last, strict=True)]
    np.testing.assert_allclose(
        sample["voxels"][np.ix_(*inner)], expected_ramp(at)[np.ix_(*inner)], atol=0.1 * np.abs(SLOPE * own).sum()
    )


@given(shape=st.tuples(*[st.integers(1, 24)] * 3), seed=st.integers(0, 2**32))
@settings(max_examples=80, deadline=None)
def test_holes_are_never_empty(shape: tuple[int, int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    for drawn in (draw_lattice(shape, rng), draw_blobs(rng)):
        hole = drawn.mask(shape)
        assert hole.shape == shape and hole.dtype == bool and hole.any()
        assert max(shape) < 8 or not hole.all(), "a window without a known voxel is not a hole"


def test_a_lattice_hides_and_shows_every_part_of_a_window() -> None:
    """As the anomaly map uses it: no cubic eighth of the window is all hidden or all shown."""
    for seed in range(40):
        hole = draw_lattice((32, 32, 32), np.random.default_rng(seed)).mask((32, 32, 32))
        eighths = hole.reshape(2, 16, 2, 16, 2, 16).mean((1, 3, 5))
        assert (eighths > 0).all() and (eighths < 1).all()
        assert 0.02 < hole.mean() < 0.5


# Noise


@pytest.mark.parametrize("seed", range(5))
def test_ct_texture_is_unit_noise_without_large_blotches(seed: int) -> None:
    """A ramp has nothing at zero frequency; what a strength that varies in space puts there is little."""
    generator = torch.Generator().manual_seed(seed)
    noise = ct_texture(torch.randn(24, 32, 32, generator=generator), generator)
    assert noise.std().item() == pytest.approx(1, abs=1e-4)
    plane = torch.fft.fft2(noise).abs().square()
    assert plane[:, 0, 0].mean() < 0.1 * plane.mean(), "white noise would have 1"


def test_noise_follows_the_purpose() -> None:
    """Scan noise within its range and mostly textured; holes at higher noise than whole images."""
    config = NoiseConfig()
    generator = torch.Generator().manual_seed(1)
    sigma: dict[str, list[float]] = {}
    textured = 0
    for purpose in PURPOSES:
        sigma[purpose] = []
        for _ in range(300):
            level, noise = draw_noise((1, 4, 16, 16), purpose, config, generator)
            assert noise.shape == (1, 4, 16, 16) and level.shape == ()
            sigma[purpose].append(level.item())
            flat = torch.fft.fft2(noise[0]).abs().square()[:, 0, 0].mean() / 256  # about 1 for white noise
            textured += purpose == "denoise" and flat.item() < 0.2
    assert min(sigma["denoise"]) >= 0.004 and max(sigma["denoise"]) <= 0.12
    assert 0.65 < textured / 300 < 0.9, "ct_texture_share of 0.8"
    for purpose, mean, spread in (("generate", -0.8, 1.6), ("fill", 0.7, 1.1)):
        assert np.mean(np.log(sigma[purpose])) == pytest.approx(mean, abs=4 * spread / 300**0.5)
        assert min(sigma[purpose]) >= 0.002 and max(sigma[purpose]) <= 80
    again = draw_noise((1, 4, 16, 16), "denoise", config, torch.Generator().manual_seed(1))
    same = draw_noise((1, 4, 16, 16), "denoise", config, torch.Generator().manual_seed(1))
    assert torch.equal(again[0], same[0]) and torch.equal(again[1], same[1])


def test_the_paper_draws_each_step_of_its_chain_equally_often() -> None:
    config, chain = NoiseConfig(levels="cosine-steps"), cosine_chain()
    assert len(chain) == 1000 and (chain.diff() > 0).all()
    generator = torch.Generator().manual_seed(2)
    levels = [draw_noise((1, 2, 2, 2), "generate", config, generator)[0].item() for _ in range(600)]
    steps = np.searchsorted(chain.clamp(0.002, 80.0).numpy(), levels) / 1000
    assert np.abs(np.quantile(steps, [0.1, 0.25, 0.5, 0.75, 0.9]) - [0.1, 0.25, 0.5, 0.75, 0.9]).max() < 0.08


def test_balance_lets_no_noise_level_dominate() -> None:
    """High noise, where a trained network errs little, counts more; the guess's error in holes knows no noise."""
    sigma = torch.tensor([0.01, 0.1, 1.0, 10.0])
    plain = balance(sigma, torch.zeros(4, dtype=torch.bool))
    assert (plain.diff() > 0).all() and plain[-1] / plain[0] < 10
    assert torch.equal(balance(sigma, torch.ones(4, dtype=torch.bool)), torch.ones(4))


# Loop


def test_learning_rate_rises_stays_and_falls() -> None:
    config = LoopConfig(steps=1000, learning_rate=1.0, warmup=100, decay_share=0.3)
    assert rate_at(0, config) == pytest.approx(0.01) and rate_at(49, config) == pytest.approx(0.5)
    assert rate_at(99, config) == rate_at(400, config) == rate_at(700, config) == 1.0
    assert rate_at(850, config) == pytest.approx(0.5) and rate_at(999, config) == pytest.approx(1 / 300)


def test_ema_forgets_its_start_and_then_averages() -> None:
    source = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        source.weight.fill_(0.0)
        ema = ExponentialAverage(source, decay=0.5)
        source.weight.fill_(1.0)
    ema.update(source, step=0)
    assert ema.module.weight.item() == pytest.approx(0.9), "young: decay 1/10"
    ema.update(source, step=100)
    assert ema.module.weight.item() == pytest.approx(0.95), "old: decay 0.5"
    assert not ema.module.weight.requires_grad


def make_loop(folder, loss_of, **config) -> TrainingLoop:
    """A loop around one weight."""
    from MedDiffFMLib.training.fabric import Fabric

    torch.manual_seed(0)
    settings = LoopConfig(**{"steps": 6, "checkpoint_every": 2, "warmup": 1, **config})
    return TrainingLoop(torch.nn.Linear(1, 1), loss_of, None, settings, folder, Fabric(accelerator="cpu", devices=1))


def square(module: torch.nn.Module, step: int) -> torch.Tensor:
    return module(torch.ones(1, 1)).square().mean()


@pytest.mark.parametrize(("scale", "applied"), [(1000.0, 0.5), (1e-4, None)])
def test_large_gradients_are_clipped_and_small_ones_left(tmp_path, scale: float, applied: float | None) -> None:
    """The optimizer sees at most the norm that is asked for; the log keeps what it was before."""
    seen = []
    loop = make_loop(tmp_path, lambda module, step: scale * square(module, step), steps=1, clip=0.5)
    step = loop.optimizer.step

    def recorded(*args, **kwargs):
        seen.append(torch.stack([p.grad.norm() for p in loop.plain.parameters()]).norm().item())
        return step(*args, **kwargs)

    loop.optimizer.step = recorded
    loop.run()
    with open(tmp_path / "losses.csv", newline="") as stream:
        logged = float(next(csv.DictReader(stream))["gradient_norm"])
    assert seen == pytest.approx([applied or logged], rel=1e-4)
    assert (logged > 100) == bool(applied)


def test_a_checkpoint_is_complete_or_the_older_one(tmp_path, monkeypatch) -> None:
    make_loop(tmp_path, square, steps=2).run()
    before = (tmp_path / "last.pt").read_bytes()

    def half(state, stream) -> None:
        stream.write(before[: len(before) // 2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(torch, "save", half)
        save_atomically({}, tmp_path / "last.pt")
    assert (tmp_path / "last.pt.partial").exists() and (tmp_path / "last.pt").read_bytes() == before
    loop = make_loop(tmp_path, square)
    assert loop.resume() and loop.step == 2, "what a kill left of a new checkpoint is ignored"


@pytest.mark.parametrize("damage", [lambda data: data[:-200], lambda data: b"", lambda data: b"\x80\x04K\x01."])
def test_a_damaged_checkpoint_is_named(tmp_path, damage) -> None:
    make_loop(tmp_path, square, steps=2).run()
    path = tmp_path / "last.pt"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelError, match=r"cannot be continued from last\.pt"):
        make_loop(tmp_path, square).resume()


def test_loss_or_gradient_that_is_not_finite_keeps_the_last_checkpoint(tmp_path) -> None:
    def bad_loss(module: torch.nn.Module, step: int) -> torch.Tensor:
        return square(module, step) * (float("nan") if step == 5 else 1.0)

    def bad_gradient(module: torch.nn.Module, step: int) -> torch.Tensor:
        loss = square(module, step)  # sqrt has an infinite slope at zero, where its value is fine
        return loss + (module.weight.sum() - module.weight.sum().detach()).sqrt() if step == 5 else loss

    for name, loss_of, what in (("a", bad_loss, "loss"), ("b", bad_gradient, "gradient")):
        folder = tmp_path / name
        with pytest.raises(ModelError) as caught:
            make_loop(folder, loss_of).run()
        assert caught.value.cause == f"The {what} is not finite at step 6."
        assert str(folder / "last.pt") in caught.value.remedy and "last good checkpoint is kept" in caught.value.remedy
        state = torch.load(folder / "last.pt", weights_only=True)
        assert state["step"] == 4 and all(torch.isfinite(t).all() for t in state["module"].values())


def test_compiling_or_not_does_not_matter_to_resuming(tmp_path) -> None:
    from MedDiffFMLib.training.loop import load_plain

    source, target = torch.nn.Sequential(torch.nn.Linear(2, 2)), torch.nn.Sequential(torch.nn.Linear(2, 2))
    compiled = {name.replace("0.", "0._orig_mod."): tensor for name, tensor in source.state_dict().items()}
    load_plain(target, compiled)
    assert torch.equal(target[0].weight, source[0].weight)
