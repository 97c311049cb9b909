"""``meddifffm denoise|anomaly|inpaint|synthesize ...``: every task of the registry, on one case or many."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import Any

from ..conditioning.regions import REGION_CHOICES
from ..core.errors import InputError
from ..core.text_table import columns
from ..models.checkpoint import load_model
from ..runner.batch import CaseStatus, find_cases, run_batch
from ..runner.case import Case, check_mask_given, check_volume_given, run_case
from ..runner.outputs import plan_outputs
from ..runner.report import NOTICE
from ..runner.settings import AUTOMATIC, DEFAULT_MODEL, PRECISIONS, RunSettings
from ..tasks.registry import TASKS, Task
from .arguments import add_parameters, parameters_from
from .console import Console, duration


def add_parser(subparsers: Any, common: argparse.ArgumentParser) -> None:
    """One sub-command for each task."""
    for task in TASKS.values():
        parser = subparsers.add_parser(
            task.name, parents=[common], help=task.sentence, description=task.sentence, epilog=NOTICE
        )
        _add_files(parser, task)
        add_parameters(parser.add_argument_group("parameters of this task"), task.parameter_class())
        _add_run_options(parser.add_argument_group("how to run"), "guessed" if task.needs_volume else "chest")
        parser.set_defaults(run=run, task=task.name)


def _add_files(parser: argparse.ArgumentParser, task: Task) -> None:
    cases = (
        "many cases instead of INPUT: a folder, files, a .txt list of paths, or a .csv with columns input, mask, "
        "anatomy. Finished cases are skipped, so the same command resumes"
    )
    source = "CT as .nrrd, .nii, .nii.gz, DICOM folder or DICOM file"
    if not task.needs_volume:  # known all the same, so that they can be refused in words
        source = cases = argparse.SUPPRESS
    parser.add_argument("input", nargs="?", type=Path, help=source)
    parser.add_argument(
        "-o", "--output", type=Path, help="folder, or file name of the main result (default: the current folder)"
    )
    if task.needs_mask or task.takes_mask:
        parser.add_argument(
            "--mask", type=Path, help="label map on the CT's grid; with --batch a folder of masks named as the cases"
        )
    labels = "organ label map (TotalSegmentator numbers, 118 for the body)"
    use = "on the CT's grid, or a folder of them" if task.needs_volume else "whose grid the result takes"
    parser.add_argument("--anatomy", type=Path, help=f"{labels} {use}")
    parser.add_argument("--batch", nargs="+", type=Path, metavar="CASES", help=cases)
    parser.add_argument("--overwrite", action="store_true", help="replace existing outputs")


def _add_run_options(group: argparse._ArgumentGroup, region: str) -> None:
    group.add_argument("--seed", type=int, default=0, help="same seed, same result (default: 0)")
    group.add_argument(
        "--region", choices=REGION_CHOICES, help=f"body region; none tells the model nothing (default: {region})"
    )
    group.add_argument("--model", default=DEFAULT_MODEL, help="name from `meddifffm models`, or a .safetensors file")
    group.add_argument("--device", default=AUTOMATIC, help="auto, cpu, cuda, cuda:1 ... (default: auto)")
    group.add_argument("--precision", default=AUTOMATIC, choices=PRECISIONS)
    group.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: torch's choice)")


def run(args: argparse.Namespace, console: Console) -> int:
    """Run one case or a batch."""
    if not TASKS[args.task].needs_volume:
        check_volume_given(args.task, args.input is not None or args.batch is not None)
    elif (args.input is None) == (args.batch is None):
        raise InputError("Nothing to work on." if args.batch is None else "INPUT and --batch exclude each other.",
                         "Give one INPUT, or --batch with cases.")  # fmt: skip
    settings = _settings(args)
    load = functools.cache(lambda: load_model(settings.model, device=settings.device, precision=settings.precision))
    if args.batch is not None:
        return _run_batch(args, settings, load, console)
    mask = getattr(args, "mask", None)
    check_mask_given(args.task, mask is not None)
    plan = plan_outputs(args.task, args.input or args.anatomy, args.output, args.seed)
    report = run_case(
        settings, Case(args.input, mask, args.anatomy), plan, load,
        overwrite=args.overwrite, progress=console.progress, cancel=console.cancel,
    )  # fmt: skip
    for warning in report["warnings"]:
        console.warning(warning)
    written = [plan.folder / record["file"] for record in report["outputs"].values()]
    text = "\n".join([*(str(path) for path in written), str(plan.report)])
    console.answer({"status": "done", "report_file": plan.report, **report}, text)
    console.note(NOTICE)
    return 0


def _settings(args: argparse.Namespace) -> RunSettings:
    model = str(Path(args.model).resolve()) if args.model.endswith(".safetensors") else args.model
    return RunSettings(
        task=args.task,
        parameters=parameters_from(args, TASKS[args.task].parameter_class()),
        seed=args.seed,
        region=args.region,
        model=model,
        device=args.device,
        precision=args.precision,
        threads=args.threads,
    ).checked()


def _run_batch(args: argparse.Namespace, settings: RunSettings, load: Any, console: Console) -> int:
    cases = find_cases(args.batch, settings.task, getattr(args, "mask", None), args.anatomy)
    rows = run_batch(
        settings, cases, args.output or Path("."), load, overwrite=args.overwrite,
        progress=console.progress, cancel=console.cancel, on_case=_announce(console, len(cases)),
    )  # fmt: skip
    heading = ["case", "status", "seconds", "message"]
    table = [heading, *([row.name, row.status, f"{row.seconds:.1f}", row.message] for row in rows)]
    code = max(row.exit_code for row in rows)
    console.answer({"status": "done" if code == 0 else "error", "cases": [vars(row) for row in rows]}, columns(table))
    console.note(NOTICE)
    return code


def _announce(console: Console, count: int) -> Any:
    finished = 0

    def announce(row: CaseStatus) -> None:
        nonlocal finished
        finished += 1
        console.note(f"{finished}/{count} {row.name}: {row.status}, {duration(row.seconds)} {row.message}".rstrip())

    return announce
