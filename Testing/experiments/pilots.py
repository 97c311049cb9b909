"""Which recipe for the prior: short trainings of equal processor time, judged on validation patients.

    python Testing/experiments/pilots.py CACHE -o FOLDER [--minutes 20] [--only NAME ...] [--jobs 2] [--windows 64]

CACHE is a folder made by ``meddifffm prepare``, with validation patients. Every variant is trained, from random weights
or from ``starter-ct``, on one thread for the same processor time, drawing of the windows included: the steps are set by
a measurement of the first ones. The learning rate falls to zero at the end of each. The averages of the weights are
swept afterwards, and the row of the best width counts. A stopped run continues where it was; FOLDER/pilots.md holds the
table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

GROWN: dict[str, Any] = {"network": {"blocks": (1, 2, 3), "tissue": True}}
BASE: dict[str, Any] = {"loop": {"widths": (0.05, 0.1)}}
FROM_RANDOM: dict[str, dict[str, Any]] = {
    "present network": {},
    "thin fine level, deeper below: (16, 64, 128), blocks 1, 2, 3": {
        "network": {"channels": (16, 64, 128), "blocks": (1, 2, 3)}
    },
    "thin fine level, wider below: (16, 96, 160)": {"network": {"channels": (16, 96, 160)}},
}
FROM_PRIOR: dict[str, dict[str, Any]] = {
    "present network, set weights": {},
    "blocks 1, 2, 3, set weights": GROWN,
    "blocks 1, 2, 3, learned weights": {**GROWN, "weighting": "learned"},
    "the same, windows of 32^3, 32 a step": {**GROWN, "weighting": "learned", "windows": {"size": 32}, "batch": 32},
    "the same, Muon": {**GROWN, "weighting": "learned", "loop": {**BASE["loop"], "optimizer": "muon"}},
    "the same, Muon, rate 1.2e-3": {
        **GROWN,
        "weighting": "learned",
        "loop": {**BASE["loop"], "optimizer": "muon", "learning_rate": 1.2e-3},
    },
    "the same, fill 0.25, denoise 0.25": {
        **GROWN,
        "weighting": "learned",
        "windows": {"fill_share": 0.25, "denoise_share": 0.25},
    },
}
VARIANTS = {**FROM_RANDOM, **FROM_PRIOR}
WIDTHS = (0.05, 0.1, 0.2)


def settings(name: str) -> Any:
    """PretrainConfig of a variant."""
    from MedDiffFMLib.training.pretrain.config import PretrainConfig

    config = PretrainConfig(batch=4)
    config = replace(config, loop=replace(config.loop, learning_rate=8e-4 if name in FROM_RANDOM else 4e-4))
    for changes in (BASE, VARIANTS[name]):
        for part, value in changes.items():
            config = replace(
                config, **{part: replace(getattr(config, part), **value) if isinstance(value, dict) else value}
            )
    return config


def train(cache: Path, folder: Path, name: str, minutes: float) -> None:
    """One run of ``minutes`` of processor time; the same folder continues it."""
    import torch

    from MedDiffFMLib.training.pretrain.run import pretrain

    torch.set_num_threads(1)
    config, plan = settings(name), folder / "plan.json"
    if not plan.exists():
        seconds = step_seconds(cache, folder / "timing", config)
        plan.write_text(json.dumps({"step_seconds": seconds, "steps": max(int(60 * minutes / seconds), 10)}))
    steps = json.loads(plan.read_text())["steps"]
    loop = replace(
        config.loop,
        steps=steps,
        warmup=min(100, steps // 10 + 1),
        validate_every=steps + 1,
        snapshot_every=max(steps // 20, 1),
        checkpoint_every=100,
    )
    before = time.process_time()
    pretrain(cache, folder, replace(config, loop=loop, validation_windows=1), initial=initial(name), accelerator="cpu")
    (folder / "cpu.json").write_text(json.dumps({"minutes": (time.process_time() - before) / 60}))


def initial(name: str) -> Path | None:
    """Weights that a variant starts from."""
    from MedDiffFMLib.models.catalogue import resolve

    return None if name in FROM_RANDOM else resolve("starter-ct")[1]


def step_seconds(cache: Path, folder: Path, config: Any, steps: int = 24) -> float:
    """Processor seconds of a step, measured over a short run."""
    from MedDiffFMLib.training.pretrain.run import pretrain

    loop = replace(config.loop, steps=steps, warmup=10, validate_every=steps + 1, widths=())
    for n in (4, steps):  # the first steps fill caches and do not count
        before = time.process_time()
        short = replace(config, validation_windows=1, loop=replace(loop, steps=n, validate_every=n + 1))
        pretrain(cache, folder, short, accelerator="cpu")
    return (time.process_time() - before) / (steps - 4)


def judge(cache: Path, folder: Path, windows: int) -> dict[str, Any]:
    """Figures of the best average of a run."""
    from MedDiffFMLib.cli.validate import validation
    from MedDiffFMLib.models.checkpoint import build_denoiser
    from MedDiffFMLib.training.averages import averaged_state, find_snapshots
    from MedDiffFMLib.training.pretrain.run import bare_denoiser, run_config

    config, snapshots = run_config(folder), find_snapshots(folder)
    judged, rows = validation(cache, windows), {}
    for width in WIDTHS:
        denoiser = build_denoiser(config.model_config())
        denoiser.load_state_dict(bare_denoiser(averaged_state(snapshots, config.loop.steps, width)))
        rows[width] = judged(denoiser.eval())
    best = min(rows, key=lambda width: rows[width]["score"])
    plan = json.loads((folder / "plan.json").read_text())
    parameters = sum(p.numel() for p in build_denoiser(config.model_config()).parameters())
    scores = {f"{width:g}": row["score"] for width, row in rows.items()}
    return {
        "width": best,
        "scores": scores,
        "steps": config.loop.steps,
        "windows": config.loop.steps * config.batch,
        "size": config.windows.size,
        "step_seconds": plan["step_seconds"],
        "parameters": parameters,
        **rows[best],
    }


def table(folder: Path) -> str:
    """Markdown of all rows that are there."""
    rows = {
        name: json.loads((folder_of(folder, name) / "row.json").read_text())
        for name in VARIANTS
        if (folder_of(folder, name) / "row.json").exists()
    }
    figures = ["score", "rmse_hu_at_20", "rmse_hu_at_50", "rmse_hu_at_100", "rmse_hu_at_200", "rmse_hu_at_500",
               "rmse_hu_at_1000", "rmse_hu_at_3000", "rmse_hu_in_hole", "scan_hu_at_20", "scan_hu_at_50"]  # fmt: skip
    heads = [
        f.replace("rmse_hu_at_", "").replace("rmse_hu_", "").replace("_hu_at_", " ").replace("_", " ") for f in figures
    ]
    lines = ["| variant | windows | M parameters | " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(figures) + 2)]
    for name, row in rows.items():
        lines.append(
            f"| {name} | {row['windows']} of {row['size']}^3 | {row['parameters'] / 1e6:.1f} | "
            + " | ".join(f"{row[figure]:g}" for figure in figures)
            + " |"
        )
    return "\n".join(lines) + "\n"


def folder_of(folder: Path, name: str) -> Path:
    """Where a variant lives."""
    return folder / "".join(c if c.isalnum() else "-" for c in name).strip("-")


def main() -> None:
    """Train what is missing, a few at a time, then judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--only", nargs="*", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--one", choices=VARIANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        folder = folder_of(options.output, options.one)
        folder.mkdir(parents=True, exist_ok=True)
        train(options.cache, folder, options.one, options.minutes)
        row = judge(options.cache, folder, options.windows)
        (folder / "row.json").write_text(json.dumps(row, indent=1))
        return
    waiting = [n for n in options.only if not (folder_of(options.output, n) / "row.json").exists()]
    running: list[subprocess.Popen[bytes]] = []
    while waiting or running:
        running = [process for process in running if process.poll() is None]
        while waiting and len(running) < options.jobs:
            running.append(subprocess.Popen([sys.executable, *sys.argv, "--one", waiting.pop(0)]))
        time.sleep(2)
    (options.output / "pilots.md").write_text(table(options.output))
    print(table(options.output))


if __name__ == "__main__":
    main()
