"""The seam ratio against closed forms, and blended windows against it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from MedDiffFMLib.conditioning.condition import Condition
from MedDiffFMLib.evaluation.quality.window_seams import REACH, seam_ratio, window_borders
from MedDiffFMLib.inference.engine import Engine
from MedDiffFMLib.inference.sliding_window import SlidingWindowDenoiser

SHAPE = (80, 96, 112)
BORDERS = window_borders(SHAPE, 32, 8)


def test_borders_are_where_windows_begin_and_end() -> None:
    """Windows of even turns begin at 0, those of odd turns a voxel before the volume."""
    assert window_borders((256, 100, 40)) == (
        [47, 48, 63, 64, 95, 96, 111, 112, 144, 145, 159, 160, 192, 193, 208, 209],
        [36, 37, 63, 64],
        [],
    )


@pytest.mark.parametrize("reach", [REACH, 8, None])
def test_pure_noise_has_no_seams(reach: int | None) -> None:
    noise = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    ratio = seam_ratio(noise, BORDERS, reach)
    assert abs(ratio.overall - 1) < max(4 * ratio.chance, 0.005) and ratio.chance < 0.005
    assert ratio.axes == pytest.approx((1, 1, 1), abs=0.01)


@pytest.mark.parametrize("height", [0.5, 2.0])
def test_a_step_at_the_borders_gives_the_mean_of_the_folded_normal(height: float) -> None:
    """Differences of white noise have variance 2; a step makes its own mean of the absolute value."""
    volume = np.random.default_rng(1).normal(size=SHAPE)
    for number, place in enumerate(BORDERS[1]):
        volume[:, place:] += height if number % 2 == 0 else -height
    flat = 2 / math.sqrt(math.pi)
    folded = flat * math.exp(-(height**2) / 4) + height * math.erf(height / 2)
    ratio = seam_ratio(volume, BORDERS)
    assert ratio.axes[1] == pytest.approx(folded / flat, rel=0.01)
    assert ratio.axes[0] == pytest.approx(1, abs=0.01) and ratio.axes[2] == pytest.approx(1, abs=0.01)
    assert 1 < ratio.overall < ratio.axes[1] and ratio.overall > 1 + 4 * ratio.chance


def test_anatomy_that_grows_towards_the_middle_is_no_seam() -> None:
    """Compared with the whole volume the rough middle, where the borders lie, would pass for a seam."""
    rough = 1.2 - np.abs(np.linspace(-1, 1, SHAPE[1]))[:, None]
    volume = np.random.default_rng(2).normal(size=SHAPE) * rough
    borders = ([], window_borders((64, 96, 64))[1], [])
    assert seam_ratio(volume, borders).overall == pytest.approx(1, abs=0.02)
    assert seam_ratio(volume, borders, None).overall > 1.1


def test_integers_do_not_overflow_and_one_window_has_no_border() -> None:
    volume = np.where(np.arange(80)[:, None, None] % 2, 30000, -30000).astype(np.int16) * np.ones((1, 4, 4), np.int16)
    assert seam_ratio(volume, ([40], [], [])).overall == pytest.approx(1)
    assert math.isnan(seam_ratio(volume, ([40], [], [])).axes[1])
    with pytest.raises(ValueError, match="no border"):
        seam_ratio(volume, ([], [], []))


class Disagreeing(nn.Module):
    """Every window answers with another brightness on top of the noise that it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Identity()
        self.network.config = type("Config", (), {"divisor": 8})()
        self.calls = 0

    def forward(self, x: torch.Tensor, sigma: torch.Tensor, condition: object) -> torch.Tensor:
        self.calls += len(x)
        offsets = torch.arange(self.calls - len(x), self.calls) * 5 % 7
        return x + offsets.reshape(-1, 1, 1, 1, 1)


@pytest.mark.parametrize(("overlap", "seams"), [(0, True), (16, False)])
def test_blending_hides_windows_that_disagree(overlap: int, seams: bool) -> None:
    engine = Engine(Disagreeing(), device="cpu", precision="float32", window=32)
    denoise = SlidingWindowDenoiser(engine, Condition((1.0, 1.0, 1.0)), (64, 64, 64), overlap=overlap)
    noise = torch.randn(1, 1, 64, 64, 64, generator=torch.Generator().manual_seed(0))
    ratio = seam_ratio(denoise(noise, 1.0)[0, 0].numpy(), window_borders((64, 64, 64), 32, overlap))
    assert (ratio.overall > 1.2) is seams
    assert seams or abs(ratio.overall - 1) < 0.02
