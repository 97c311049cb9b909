"""What a run says of its machine: operations, pace, waiting for data, and the picture of its curves."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from MedDiffFMLib.cli.pretrain import pace_text
from MedDiffFMLib.conditioning.condition import CONDITION_CHANNELS
from MedDiffFMLib.networks.unet import NetworkConfig
from MedDiffFMLib.training.loop import LoopConfig
from MedDiffFMLib.training.loss_plot import draw_curves, read_table, smoothed
from MedDiffFMLib.training.pretrain.config import PretrainConfig
from MedDiffFMLib.training.pretrain.run import LossModule, build_denoiser
from MedDiffFMLib.training.throughput import Pace, Throughput, matrix_rate, step_flops

NETWORK = NetworkConfig(channels=(8, 32), attention=(False, False))


def loss_module() -> nn.Module:
    return LossModule(build_denoiser(PretrainConfig(network=NETWORK).model_config()), False)


@pytest.mark.slow
def test_operations_are_those_of_a_real_step() -> None:
    """Counted on tensors without values, they are what a computed step does."""
    module, image, one = loss_module(), torch.zeros(2, 1, 16, 16, 16), torch.ones(2)
    channels = torch.zeros(2, CONDITION_CHANNELS, 8, 8, 8)
    with FlopCounterMode(display=False) as counter:
        module(image, one, image, one.long(), channels, image, torch.ones_like(image), one).backward()
    found = step_flops(loss_module, 2, 16)
    assert found == counter.get_total_flops() > 1e6
    assert step_flops(loss_module, 4, 16) == pytest.approx(2 * found, rel=0.01)


def test_matrix_rate_is_that_of_this_device() -> None:
    rate = matrix_rate(torch.device("cpu"), torch.float32)
    matrix = torch.ones(512, 512)
    with FlopCounterMode(display=False) as counter:
        matrix @ matrix
    assert counter.get_total_flops() == 2 * 512**3, "a product of an addition and a multiplication counts as two"
    assert 1e8 < rate < 1e14


def watch(folder: Path, *, processes: int = 1, rank: int = 0, longest: float = 0.0) -> tuple[Throughput, list, list]:
    """The observer of a run of 12 steps with 1 GFLOP each on a device of 10 GFLOP/s, and what it says."""
    reports: list[Pace] = []
    warnings: list[str] = []
    fabric = SimpleNamespace(
        world_size=processes,
        global_rank=rank,
        device=torch.device("cpu"),
        all_reduce=lambda value, reduce_op: torch.maximum(value, torch.tensor(longest)),
    )
    config = LoopConfig(steps=12, log_every=4)
    return (
        Throughput(config, folder, fabric, 8, lambda: (10**9, 1e10), reports.append, warnings.append),
        reports,
        warnings,
    )


def steps(observer: Throughput, count: int, seconds: float, wait: float, first: int = 1) -> None:
    for step in range(first, first + count):
        observer.stepped({"step": step, "loss": float(step), "seconds": seconds, "data_wait": wait})


def test_pace_is_that_of_the_last_steps(tmp_path: Path) -> None:
    observer, reports, warnings = watch(tmp_path)
    steps(observer, 1, 100.0, 90.0)  # compiles the network: does not count
    steps(observer, 11, 0.5, 0.05, first=2)
    assert [(pace.step, pace.loss) for pace in reports] == [(4, 3.0), (8, 6.5), (12, 10.5)]
    for pace in reports:
        assert pace.windows_per_second == pytest.approx(16) and pace.data_wait == pytest.approx(0.1)
        assert pace.flops_per_second == pytest.approx(2e9) and pace.utilisation == pytest.approx(0.2)
        assert pace.seconds_left == pytest.approx(0.5 * (12 - pace.step)) and pace.peak_memory > 1e7
    assert warnings == []
    table = read_table(tmp_path / "throughput.csv")
    np.testing.assert_allclose(table["step"], [4, 8, 12])
    np.testing.assert_allclose(table["windows_per_second"], 16)
    np.testing.assert_allclose(table["utilisation"], 0.2)
    assert pace_text(reports[1]) == (
        "step 8 of 12  loss 6.5000  16 windows/s  10% waiting for data  20.0% of the matrix rate  0:02 left"
    )


def test_a_starved_device_is_told_once_until_it_recovers(tmp_path: Path) -> None:
    observer, _, warnings = watch(tmp_path)
    steps(observer, 5, 0.5, 0.2)
    steps(observer, 3, 0.5, 0.3, first=6)
    assert len(warnings) == 1 and "waits for windows 40% of the time" in warnings[0] and "--workers" in warnings[0]
    observer, _, warnings = watch(tmp_path)
    steps(observer, 4, 0.5, 0.2)
    steps(observer, 4, 0.5, 0.0, first=5)
    steps(observer, 4, 0.5, 0.2, first=9)
    assert len(warnings) == 2


def test_the_slowest_process_decides_about_waiting(tmp_path: Path) -> None:
    """All processes wait for the one that waits for its windows; the first one speaks for all."""
    observer, reports, warnings = watch(tmp_path, processes=2, longest=0.75)
    steps(observer, 4, 0.5, 0.0)
    assert reports[0].data_wait == pytest.approx(0.5) and len(warnings) == 1
    observer, reports, _ = watch(tmp_path / "other", processes=2, rank=1)
    steps(observer, 4, 0.5, 0.0)
    assert reports == [] and not (tmp_path / "other").exists()


def write(path: Path, rows: list[dict[str, float]], end: str = "") -> None:
    with open(path, "w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        stream.write(end)


@pytest.mark.slow
def test_curves_are_drawn_of_what_is_there(tmp_path: Path) -> None:
    """With nothing, with losses alone and a row cut off, with everything: each time another whole picture.

    One that shows all there is is not drawn again.
    """
    from matplotlib.image import imread

    pictures = [imread(draw_curves(tmp_path))]
    write(tmp_path / "losses.csv", [{"step": n, "loss": 1 / n, "seconds": 1} for n in range(1, 99)], end="99,0.0")
    assert read_table(tmp_path / "losses.csv")["step"][-1] == 98
    pictures.append(imread(draw_curves(tmp_path)))
    write(
        tmp_path / "validation.csv",
        [{"step": n, "rmse_hu_at_20": 30 - n / 9, "rmse_hu_at_3000": 300 - n, "rmse_hu_in_hole": 90} for n in (40, 80)],
    )
    pictures.append(imread(draw_curves(tmp_path)))
    assert len({picture.shape for picture in pictures}) == 1 and pictures[0].shape[:2] >= (400, 1000)
    inked = [(picture[..., :3] < 0.9).any(-1).sum() for picture in pictures]
    assert inked[0] < inked[1] < inked[2]
    (tmp_path / "curves.png").write_bytes(b"newer")
    assert draw_curves(tmp_path).read_bytes() == b"newer", "nothing came after it"
    write(tmp_path / "losses.csv", [{"step": n, "loss": 1 / n, "seconds": 1} for n in range(1, 199)])
    assert imread(draw_curves(tmp_path)).shape == pictures[0].shape
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


def test_the_smoothed_curve_is_a_mean() -> None:
    noisy = 1 + np.random.default_rng(0).normal(0, 0.5, 4000)
    assert smoothed(noisy).std() < 0.1 and smoothed(noisy).mean() == pytest.approx(1, abs=0.03)
    np.testing.assert_array_equal(smoothed(noisy[:5]), noisy[:5])
