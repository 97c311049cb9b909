"""``meddifffm evaluate CASES``: measure a model beside the baselines on cases it has never seen."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..evaluation.benchmark import evaluate
from ..evaluation.cases import read_cases
from ..evaluation.degradations import Plan
from ..evaluation.protocols import PROTOCOLS
from .console import Console


def add_parser(subparsers: Any, common: argparse.ArgumentParser) -> None:
    """The sub-command."""
    sentence = "Measure a model beside baselines: denoising, inpainting, anomaly maps."
    parser = subparsers.add_parser("evaluate", parents=[common], help=sentence, description=sentence)
    parser.add_argument("cases", help="folder of CTs, or a MONAI datalist (.json); none of them may be training data")
    parser.add_argument("-o", "--output", type=Path, default=Path("evaluation"),
                        help="folder for evaluation.md and evaluation.json")  # fmt: skip
    parser.add_argument("--model", default="starter-ct",
                        help="name or .safetensors file; 'none' for the baselines alone")  # fmt: skip
    parser.add_argument("--tasks", nargs="+", choices=tuple(PROTOCOLS), default=tuple(PROTOCOLS))
    parser.add_argument("--cache", type=Path, help="folder that keeps degraded cases and baselines for the next model")
    parser.add_argument("--slab", type=float, default=Plan().slab_mm, metavar="MM",
                        help="evaluated extent, 0 for whole volumes (default: %(default)g)")  # fmt: skip
    parser.add_argument("--set", nargs="+", default=[], metavar="TASK.FIELD=VALUE",
                        help="task parameters other than the defaults, for example denoise.steps=20")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="two cases and thin slabs: a trial, no figures to report")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (default: auto)")
    parser.add_argument("--seed", type=int, default=0, help="of the model's sampling (default: 0)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: Console) -> int:
    """Evaluate and show the page."""
    cases = read_cases(args.cases)
    parameters = parse_settings(args.set)
    plan = Plan(slab_mm=args.slab or None)
    model = None
    if args.model != "none":
        from ..models.checkpoint import load_model

        model = load_model(args.model, device=args.device)
    report = evaluate(
        model, cases, args.tasks, args.output, args.quick, plan=plan, parameters=parameters, cache=args.cache,
        seed=args.seed, progress=console.note, cancel=console.cancel,
    )  # fmt: skip
    page = args.output / "evaluation.md"
    answer = {"status": "done", "output": str(args.output), "model": report["model"], "tables": report["tables"]}
    console.answer(answer, page.read_text(encoding="utf-8"))
    return 0


def parse_settings(settings: list[str]) -> dict[str, dict[str, Any]]:
    """``["denoise.steps=20"]`` -> ``{"denoise": {"steps": 20}}``; values are JSON, anything else is text.

    Raises:
        InputError: not of that form.
    """
    found: dict[str, dict[str, Any]] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        task, dot, field = name.partition(".")
        if not (equals and dot and field) or task not in PROTOCOLS:
            raise InputError(f"--set {setting} cannot be understood.",
                             "Write TASK.FIELD=VALUE, as in denoise.steps=20.")  # fmt: skip
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        found.setdefault(task, {})[field] = tuple(value) if isinstance(value, list) else value
    return found
