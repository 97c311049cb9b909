"""What each part of the training windows is worth, at equal compute: the paper's table III, on a small scale.

    python Testing/experiments/ablation.py CACHE [--steps 1500] [--channels 16 32 64] [--window 32] [--seeds 0]
                                          [--threads 2] [--output FOLDER]

CACHE is a folder made by ``meddifffm prepare``. Each row is trained from scratch with the same network, steps, batch
and seeds, for generating and filling; only what its windows show differs:

* patches only: native boxes, no condition;
* + multi-level: the whole body, double and native boxes, equally often;
* + coordinates: their position in the body too;
* + region and anatomy: the region's embedding and, where the cache holds labels, the organs too.

All rows are judged on the same windows of the validation patients with the same noise, and are told what they were
trained with: loss by level (mean over five noise levels, EDM's weight), and error inside holes whose surroundings are
known, one network evaluation from 3000 HU of noise. A stopped run continues where it was.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.datasets.prepared_cases import Case, open_cases
from MedDiffFMLib.models.checkpoint import load_denoiser, read_header
from MedDiffFMLib.networks.unet import NetworkConfig
from MedDiffFMLib.training.batches import Batch, TrainingWindows, collate
from MedDiffFMLib.training.loop import LoopConfig
from MedDiffFMLib.training.noise import NoiseConfig
from MedDiffFMLib.training.pretrain.config import PretrainConfig
from MedDiffFMLib.training.pretrain.run import pretrain
from MedDiffFMLib.training.windows import LEVELS, WindowConfig

BLIND = {"drop_region": 1.0, "drop_position": 1.0, "drop_anatomy": 1.0}
VARIANTS: dict[str, dict[str, Any]] = {
    "patches only": {**BLIND, "levels": ("native",)},
    "+ multi-level": BLIND,
    "+ coordinates": {**BLIND, "drop_position": WindowConfig().drop_position},
    "+ region and anatomy": {},
}
DEVIATIONS = (-1.5, -0.75, 0.0, 0.75, 1.5)
"""Noise levels of the validation, in standard deviations of the training's log sigma."""
HOLE_SIGMA = 3.0
BATCH = 4


def windows_of(name: str, size: int) -> WindowConfig:
    """What a variant is trained on; no windows for removing scanner noise, which the variants do not touch."""
    return replace(WindowConfig(size=size, denoise_share=0.0, drop_tissue=1.0), **VARIANTS[name])


def validation_batches(cases: list[Case], config: WindowConfig, level: str, holes: bool, count: int) -> list[Batch]:
    """The same windows for every variant; a condition is shown to the variants that were trained with it."""
    shown = {name: float(getattr(config, name) == 1.0) for name in BLIND}
    alike = replace(config, levels=(level,), fill_share=float(holes), denoise_share=0.0, **shown)
    windows = TrainingWindows(cases, alike, 12345, 0, count)
    return [collate([windows[n] for n in range(first, min(first + BATCH, count))]) for first in range(0, count, BATCH)]


@torch.no_grad()
def loss_at(denoiser: torch.nn.Module, batches: list[Batch]) -> float:
    """Mean EDM loss over the noise levels."""
    generator = torch.Generator().manual_seed(7)
    training = NoiseConfig()
    losses: list[float] = []
    for batch in batches:
        for deviation in DEVIATIONS:
            sigma = torch.full((len(batch.x0),), training.log_mean + deviation * training.log_std).exp()
            noise = torch.randn(batch.x0.shape, generator=generator)
            losses += denoiser.loss(batch.x0, sigma, noise, batch.condition).flatten().tolist()  # type: ignore[operator]
    return statistics.fmean(losses)


@torch.no_grad()
def hole_error(denoiser: torch.nn.Module | None, batches: list[Batch]) -> float:
    """Mean absolute error inside the holes in HU, air aside; without a denoiser that of the first guess."""
    generator = torch.Generator().manual_seed(7)
    total, count = 0.0, 0
    for batch in batches:
        noisy = batch.x0 + HOLE_SIGMA * torch.randn(batch.x0.shape, generator=generator)
        condition = batch.condition
        assert condition.hole is not None and condition.expected is not None
        found = condition.expected
        if denoiser is not None:
            found = denoiser(noisy, torch.full((len(noisy),), HOLE_SIGMA), condition)
        inside = (condition.hole > 0) & (batch.x0 > -0.5)
        total += 1000 * float((found - batch.x0).abs()[inside].sum())
        count += int(inside.sum())
    return total / max(count, 1)


def train(name: str, seed: int, options: argparse.Namespace) -> Path:
    """One run; the same folder continues it."""
    channels = tuple(options.channels)
    loop = LoopConfig(
        steps=options.steps,
        learning_rate=options.learning_rate,
        warmup=min(100, max(options.steps // 10, 1)),
        validate_every=options.steps + 1,
    )
    config = PretrainConfig(
        batch=options.batch,
        seed=seed,
        windows=windows_of(name, options.window),
        loop=loop,
        network=NetworkConfig(channels=channels, attention=(False,) * len(channels)),
    )
    folder = options.output / f"{name.replace('+ ', '').replace(' ', '-')}-{seed}"
    return pretrain(options.cache, folder, config, accelerator=options.accelerator)


def judge(weights: Path | None, cases: list[Case], config: WindowConfig, count: int) -> dict[str, float]:
    """Figures of one run, or of the first guess alone."""
    denoiser = None if weights is None else load_denoiser(weights).eval().float()
    figures = {}
    for level in LEVELS:
        if denoiser is not None:
            figures[f"loss, {level}"] = loss_at(denoiser, validation_batches(cases, config, level, False, count))
        figures[f"hole HU, {level}"] = hole_error(denoiser, validation_batches(cases, config, level, True, count))
    return figures


def page(rows: dict[str, list[dict[str, float]]], options: argparse.Namespace) -> str:
    """Markdown table: mean over seeds, and the spread between them where there are several."""
    titles = [f"loss, {level}" for level in LEVELS] + [f"hole HU, {level}" for level in LEVELS] + ["seconds"]
    lines = [
        f"{options.steps} steps of {options.batch} windows of {options.window}^3, channels "
        f"{' '.join(map(str, options.channels))}, seeds {' '.join(map(str, options.seeds))}; "
        f"{options.count} validation windows a level.",
        "",
        "| windows | " + " | ".join(titles) + " |",
        "|---|" + "---:|" * len(titles),
    ]
    for name, runs in rows.items():
        cells = [cell([run[title] for run in runs if title in run], title) for title in titles]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def cell(values: list[float], title: str) -> str:
    if not values:
        return ""
    digits = 3 if title.startswith("loss") else 1 if title.startswith("hole") else 0
    spread = f" +- {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cache", type=Path)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--channels", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--window", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=4e-4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--count", type=int, default=32, help="validation windows a level")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--output", type=Path, default=Path("ablation"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cases = open_cases(options.cache, "validation")
    if not cases:
        raise InputError(f"{options.cache} holds no validation cases.", "Split some patients off in the datalist.")
    guess = judge(None, cases, windows_of("patches only", options.window), options.count)
    rows: dict[str, list[dict[str, float]]] = {"no network: surface of least bending": [guess]}
    for name in VARIANTS:
        for seed in options.seeds:
            weights = train(name, seed, options)
            figures = judge(weights, cases, windows_of(name, options.window), options.count)
            seconds = read_header(weights)["config"]["training"]["seconds"]
            rows.setdefault(name, []).append({**figures, "seconds": seconds})
            print(f"{name}, seed {seed}: {figures}", flush=True)
            (options.output / "ablation.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
            (options.output / "ablation.md").write_text(page(rows, options), encoding="utf-8")
    print(page(rows, options))


if __name__ == "__main__":
    main()
