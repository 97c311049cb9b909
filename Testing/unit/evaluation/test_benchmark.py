"""The benchmark: its reference does what it says, and its table says what was measured."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from MedDiffFMLib.cli import main
from MedDiffFMLib.evaluation.speed.cases import (
    Case,
    choose_cases,
    cut_volume,
    lesion_mask,
    psnr,
    whole_body,
    with_noise,
)
from MedDiffFMLib.evaluation.speed.monai_reference import Stock, falling
from MedDiffFMLib.evaluation.speed.report_page import markdown
from MedDiffFMLib.evaluation.speed.run import row
from MedDiffFMLib.imaging.volume import Volume

SHAPE = (40, 24, 24)


def block(value: float = 40.0, spacing: float = 2.0) -> Volume:
    return Volume(np.full(SHAPE, value, np.float32), np.diag([-spacing, -spacing, spacing, 1.0]))


def test_volumes_are_cut_or_mirrored_to_size_and_noise_has_its_level() -> None:
    ramp = block().with_voxels(np.arange(24, dtype=np.float32) * np.ones(SHAPE, np.float32))
    cut = cut_volume(ramp, (32, 32, 32)).voxels
    assert cut.shape == (32, 32, 32)
    assert cut[0, 0, :6].tolist() == [3, 2, 1, 0, 0, 1] and cut[0, 0, 4:28].tolist() == list(range(24))
    noise = with_noise(block(), 0).voxels - 40
    assert noise.std() == pytest.approx(30, rel=0.02)
    assert psnr(block(80).voxels, block(40)) == pytest.approx(20)  # 40 of 400 HU
    assert lesion_mask(block(), 20).sum() * 8 == pytest.approx(4 / 3 * np.pi * 10**3, rel=0.1)


@pytest.mark.slow
def test_a_whole_body_has_its_size_whatever_it_is_made_from() -> None:
    body = whole_body(block(spacing=9.0))
    assert body.voxels.shape == (400, 512, 512) and body.spacing == pytest.approx((1, 1, 1))
    assert body.voxels.min() == body.voxels.max() == 40


def test_every_task_has_its_rows() -> None:
    cases = choose_cases(["network", "denoise", "whole-body", "inpaint"], [32, 64], [10, 20], "a.nrrd")
    assert [case.name for case in cases] == [
        "network",
        "denoise 32^3",
        "denoise 64^3",
        "whole-body",
        "inpaint 64^3 10 mm",
        "inpaint 64^3 20 mm",
    ]


class Silent(nn.Module):
    """A network that sees no noise: x0 is x."""

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x)


class Sharp(Stock):
    """A denoiser that knows the answer: 0.25 everywhere."""

    def denoise_window(self, windows: torch.Tensor, sigma: float) -> torch.Tensor:
        return torch.full_like(windows, 0.25)


@pytest.mark.slow
def test_ddim_over_a_sliding_window_reaches_what_the_denoiser_knows() -> None:
    reference = Sharp(Silent(), "cpu", 16, 5, budget=1e9)
    answer = reference.synthesize((24, 16, 40), torch.Generator().manual_seed(0))
    assert torch.allclose(answer.image, torch.full((24, 16, 40), 0.25), atol=1e-5)
    assert answer.windows == 5 * reference.windows((24, 16, 40)) == 5 * 2 * 1 * 3 and not answer.extrapolated
    known = torch.linspace(-1, 1, 16**3).reshape(16, 16, 16)
    hole = torch.zeros(16, 16, 16, dtype=torch.bool)
    hole[5:9, 5:9, 5:9] = True
    filled = reference.inpaint(known, hole, torch.Generator().manual_seed(0)).image
    assert torch.allclose(filled[~hole], known[~hole], atol=1e-5) and torch.allclose(filled[hole], torch.tensor(0.25))


def test_what_would_take_too_long_is_extrapolated_and_says_so() -> None:
    reference = Stock(Silent(), "cpu", 16, 100, budget=0.0)
    answer = reference.anomaly(torch.zeros(64, 64, 64), torch.Generator().manual_seed(0))
    assert answer.extrapolated and answer.image is None
    assert answer.windows == 100 * 125 and answer.seconds > 0


def test_noise_levels_fall_from_the_first_to_the_last() -> None:
    levels = falling(10, 80.0, 0.002)
    assert levels == sorted(levels, reverse=True)
    assert (levels[0], levels[-1]) == (80.0, pytest.approx(0.002)) and falling(1, 5.0) == [5.0]


def test_table_tells_medians_ratios_stars_and_failures() -> None:
    def run(seconds: float, **more: object) -> dict:
        return {"seconds": seconds, "cpu_seconds": 2 * seconds, "windows": 8, "extrapolated": False, **more}

    found = {
        "engine": [run(1.0, psnr=30.0, peak_bytes=5e8), run(9.0, peak_bytes=7e8, psnr=30.0), run(2.0, psnr=30.0)],
        "same weights": [run(40.0, extrapolated=True)],
        "stock network": [{"failed": "no memory"}],
    }
    line = row(Case("denoise", 64), found)
    assert line["medians"]["engine"]["seconds"] == 2.0 and line["medians"]["engine"]["peak_bytes"] == 7e8
    assert line["faster"] == {"same weights": {"seconds": 20.0, "cpu_seconds": 20.0}}
    sizes = {"engine": [run(2.0, voxels=1000)], "same weights": [run(3.0, voxels=100)]}  # windows of different sizes
    assert row(Case("network"), sizes)["faster"]["same weights"]["seconds"] == pytest.approx(15)
    report = {
        "rows": [line],
        "repeats": 3,
        "date": "2026-01-01",
        "settings": {"model": "m"},
        "subjects": {name: {"precision": "float32", "window": 64} for name in found},
        "machine": {"processor": "p", "cores": 2},
        "versions": {"torch": "1", "monai": "2"},
    }
    page = markdown(report)
    assert "| denoise 64^3 | engine | 2 | 4 | 8 | 30.00 | 700 |  |  |" in page
    assert "|  | same weights | 40* | 80* | 8 |  |  | **20.0** | **20.0** |" in page
    assert "failed: no memory" in page


@pytest.mark.slow
def test_command_measures_both_in_processes_of_their_own(tiny_model_file, tmp_path, capsys) -> None:
    command = ["benchmark", "-o", str(tmp_path), "--tasks", "network", "denoise", "--sizes", "40", "--steps", "2",
               "--subjects", "engine", "same-weights", "--repeats", "1", "--model", str(tiny_model_file),
               "--device", "cpu", "--threads", "1", "--json", "--quiet"]  # fmt: skip
    assert main(command) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [line["case"] for line in rows] == ["network", "denoise 40^3"]
    for line in rows:
        for figures in line["medians"].values():
            assert figures["seconds"] > 0 and figures["peak_bytes"] > 1e8 and not figures["extrapolated"]
    network, denoise = (line["medians"] for line in rows)
    assert 0 < network["engine"]["share_of_matrix_rate"] < 1.5
    # The tiny network knows nothing; both must be measured against the same noisy volume, and change it.
    assert {"psnr"} <= set(denoise["engine"]) & set(denoise["same weights"])
    assert denoise["same weights"]["windows"] == denoise["engine"]["windows"] == 2, "two passes each"
    assert {path.name for path in tmp_path.iterdir()} == {"benchmark.json", "benchmark.md", "benchmark.png"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--steps", "0"], "--steps: 0 is not within 1 to"),
        (["--sizes", "4"], "4 voxels along each edge is too small"),
        (["--stock-window", "60"], "--stock-window is 60"),
        (["--image", "missing.nrrd"], "There is no file 'missing.nrrd'"),
    ],
)
def test_impossible_requests_are_refused_in_words(options, words, capsys) -> None:
    assert main(["benchmark", *options]) == 2
    assert words in capsys.readouterr().err
