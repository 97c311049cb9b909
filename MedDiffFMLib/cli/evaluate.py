"""``meddifffm evaluate CASES``: measure a model beside the baselines on cases it has never seen."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..conditioning.regions import REGIONS
from ..core.devices import DEVICE_HELP
from ..core.errors import InputError
from ..core.parts import PART_HELP, WHOLE, parse_part
from ..evaluation.quality.added_noise import KINDS
from ..evaluation.quality.cases import read_cases
from ..evaluation.quality.compare_reports import read_report
from ..evaluation.quality.degradations import Plan
from ..evaluation.quality.evaluate import EVALUATED_TASKS, MODEL_TASKS, evaluate
from ..evaluation.quality.parameter_sweep import parse_curve
from ..evaluation.quality.synthesis import SynthesisPlan
from ..evaluation.quality.variants import parse_variant
from ..models.names import DEFAULT_MODEL
from .arguments import COUNT, SEED, add_command
from .console import Console


def add_parser(subparsers: Any, common: argparse.ArgumentParser) -> None:
    """The sub-command."""
    parser = add_command(
        subparsers,
        common,
        "evaluate",
        run,
        "Measure a model beside baselines: denoising, inpainting, anomaly maps, synthetic CTs.",
    )
    add = parser.add_argument
    add("cases", help="folder of CTs, or a MONAI datalist (.json); none of them may be training data")
    add("-o", "--output", type=Path, default=Path("evaluation"), help="folder for evaluation.md and evaluation.json")
    add("--model", default=DEFAULT_MODEL, help="name or .safetensors file; 'none' for the baselines alone")
    add("--tasks", nargs="*", choices=EVALUATED_TASKS, default=MODEL_TASKS, metavar="TASK",
        help=f"any of {', '.join(EVALUATED_TASKS)}; none for curves alone (default: the first four)")  # fmt: skip
    add("--cache", type=Path, help="folder that keeps degraded cases and baselines for the next model")
    add("--slab", type=float, default=Plan().slab_mm, metavar="MM",
        help="evaluated extent, 0 for whole volumes (default: %(default)g)")  # fmt: skip
    add("--set", nargs="+", default=[], metavar="TASK.FIELD=VALUE",
        help="task parameters other than the defaults, for example denoise.steps=20")  # fmt: skip
    add("--variant", action="append", default=[], metavar="TASK:FIELD=VALUE,...",
        help="the model with other parameters, beside itself: inpaint:steps=10,samples=1; may be repeated")  # fmt: skip
    add("--curve", action="append", default=[], metavar="TASK=FIELD:VALUES",
        help="steps against quality, as a table and a picture: denoise=steps:5,10,20,50; may be repeated")  # fmt: skip
    add("--compare", type=Path, metavar="OLD.json", help="an earlier evaluation.json, put beside this one case by case")
    add("--noise", nargs="+", choices=KINDS, default=Plan().noise_kinds, metavar="KIND",
        help=f"what denoising is asked: {', '.join(KINDS)} (default: all)")  # fmt: skip
    add("--levels", nargs="+", type=float, default=Plan().noise_levels_hu, metavar="HU",
        help="levels of added noise, but of the quarter dose (default: 30)")  # fmt: skip
    add("--resume", action="store_true", help="keep every result in the output folder, and go on where a run stopped")
    add(
        "--part",
        type=parse_part,
        default=WHOLE,
        metavar="I/N",
        help=f"{PART_HELP}; keeps results as --resume does: run it with --resume for all cases afterwards",
    )
    add("--volumes", type=COUNT, default=SynthesisPlan().volumes, metavar="N",
        help="synthetic CTs of each region (default: %(default)s)")  # fmt: skip
    add("--regions", nargs="+", choices=REGIONS, default=(), metavar="REGION",
        help="regions of synthetic CTs (default: all that two patients show)")  # fmt: skip
    add("--references", metavar="CASES",
        help="training data, folder or datalist: is a synthetic CT a copy of one of them?")  # fmt: skip
    add("--features", type=Path, metavar="FILE",
        help="TorchScript network in whose features synthetic CTs are compared, and FID is computed")  # fmt: skip
    add("--feature-slices", action="store_true", help="the network takes (B, 3, H, W) slices, not (B, 1, D, H, W)")
    add("--quick", action="store_true", help="two cases and thin slabs: a trial, no figures to report")
    add("--device", default="auto", help=DEVICE_HELP)
    add("--seed", type=SEED, default=0, help="of the model's sampling (default: 0)")


def run(args: argparse.Namespace, console: Console) -> int:
    """Evaluate and show the page."""
    if args.volumes < 1:
        raise InputError(f"--volumes {args.volumes} leaves nothing to judge.", "Give at least 1.")
    cases = args.part.of(read_cases(args.cases))
    if not cases:
        raise InputError("This part has no case.", "Use as many parts as there are cases, or fewer.")
    parameters = parse_settings(args.set)
    variants = [parse_variant(text, MODEL_TASKS) for text in args.variant]
    curves = [parse_curve(text, MODEL_TASKS) for text in args.curve]
    earlier = None if args.compare is None else read_report(args.compare)
    space = None
    if args.features is not None:
        from ..evaluation.quality.window_features import load_network

        space = load_network(args.features, args.feature_slices)
    model = None
    if args.model != "none" and (set(args.tasks) & set(MODEL_TASKS) or curves or variants):
        from ..models.checkpoint import load_model

        model = load_model(args.model, device=args.device)
    plan = Plan(slab_mm=args.slab or None, noise_kinds=tuple(args.noise), noise_levels_hu=tuple(args.levels))
    report = evaluate(
        model,
        cases,
        args.tasks,
        args.output,
        args.quick,
        plan=plan,
        synthesis=SynthesisPlan(args.volumes, args.seed, tuple(args.regions)),
        space=space,
        parameters=parameters,
        curves=curves,
        variants=variants,
        references=read_cases(args.references) if args.references else (),
        resume=args.resume or args.part != WHOLE,
        earlier=earlier,
        cache=args.cache,
        seed=args.seed,
        progress=console.note,
        cancel=console.cancel,
    )
    page = args.output / "evaluation.md"
    answer = {
        "status": "done",
        "output": str(args.output),
        "model": report["model"],
        "verdict": report["verdict"],
        "tables": report["tables"],
    }
    console.answer(answer, page.read_text(encoding="utf-8"))
    return 0


def parse_settings(settings: list[str]) -> dict[str, dict[str, Any]]:
    """``["denoise.steps=20"]`` -> ``{"denoise": {"steps": 20}}``; values are JSON, anything else is text.

    Raises:
        InputError: not of that form.
    """
    by_task: dict[str, dict[str, Any]] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        task, dot, field = name.partition(".")
        if not (equals and dot and field) or task not in EVALUATED_TASKS:
            raise InputError(
                f"--set {setting} cannot be understood.", "Write TASK.FIELD=VALUE, as in denoise.steps=20."
            )
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        by_task.setdefault(task, {})[field] = tuple(value) if isinstance(value, list) else value
    return by_task
