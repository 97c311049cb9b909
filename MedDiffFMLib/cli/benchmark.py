"""``meddifffm benchmark``: time and memory of the tasks beside a reference of MONAI's stock parts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..core.devices import DEVICE_HELP
from ..core.errors import InputError
from ..evaluation.speed.cases import SUBJECTS, TASKS, choose_cases
from ..models.names import DEFAULT_MODEL
from .arguments import COUNT, SEED, THREADS, add_command
from .console import Console

SUBJECT_OF = {name.replace(" ", "-"): name for name in SUBJECTS}
"""Word on the command line -> subject."""


def add_parser(subparsers: Any, common: argparse.ArgumentParser) -> None:
    """The sub-command."""
    parser = add_command(
        subparsers,
        common,
        "benchmark",
        run,
        "Time and memory of the tasks beside MONAI's stock parts, on this machine.",
    )
    add = parser.add_argument
    add("-o", "--output", type=Path, default=Path("benchmark"), help="folder for the page, its figures and the picture")
    add("--tasks", nargs="+", choices=TASKS, default=TASKS, metavar="TASK", help=f"any of {', '.join(TASKS)}")
    add("--sizes", nargs="+", type=COUNT, default=(128, 256, 384), metavar="VOXELS",
        help="edges of the volumes (default: 128 256 384); lesions are filled in the largest")  # fmt: skip
    add("--lesions", nargs="+", type=float, default=(10.0, 20.0, 40.0), metavar="MM", help="diameters (10 20 40)")
    add("--subjects", nargs="+", choices=tuple(SUBJECT_OF), default=tuple(SUBJECT_OF), metavar="SUBJECT",
        help=f"any of {', '.join(SUBJECT_OF)}; the first one given is compared with the others")  # fmt: skip
    add("--steps", type=COUNT, default=100, help="of the references' DDIM (default: 100, as DiffPIR)")
    add("--stock-window", type=COUNT, default=64, metavar="VOXELS", help="of the stock network (default: 64)")
    add("--repeats", type=COUNT, default=3, help="runs of each, whose median counts (default: 3)")
    add("--budget", type=float, default=60.0, metavar="SECONDS",
        help="a reference that would take longer is extrapolated from a few windows (default: 60)")  # fmt: skip
    add("--image", type=Path, help="CT that the volumes are cut from (default: the sample CT)")
    add("--model", default=DEFAULT_MODEL, help="name or .safetensors file")
    add("--device", default="auto", help=DEVICE_HELP)
    add("--threads", type=THREADS, help="CPU threads (default: all)")
    add("--seed", type=SEED, default=0)


def run(args: argparse.Namespace, console: Console) -> int:
    """Measure and show the page."""
    from ..core.resources import resource_folder
    from ..demo.run import SAMPLE
    from ..evaluation.speed.implementations import Settings
    from ..evaluation.speed.run import compare

    for name in ("steps", "repeats", "stock_window"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(args, name)}.", "Give at least 1.")
    if args.stock_window % 8:
        raise InputError(f"--stock-window is {args.stock_window}.", "Give a multiple of 8.")
    source = args.image or resource_folder() / "SampleData" / SAMPLE
    if not source.exists():
        raise InputError(f"There is no file '{source}'.", "Check the path.")
    cases = choose_cases(list(args.tasks), list(args.sizes), list(args.lesions), str(source.resolve()), args.seed)
    settings = Settings(args.model, args.device, args.threads, args.steps, args.stock_window, args.budget)
    subjects = [SUBJECT_OF[name] for name in args.subjects]
    report = compare(
        settings, cases, subjects, args.output, repeats=args.repeats, progress=console.note, cancel=console.cancel
    )
    answer = {"status": "done", "output": str(args.output), "rows": report["rows"]}
    console.answer(answer, (args.output / "benchmark.md").read_text(encoding="utf-8"))
    return 0
