"""``meddifffm reading-kit``: make pairs of real and made pieces of local CTs for readers, and judge their answers."""

from __future__ import annotations

import argparse
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ..core.devices import DEVICE_HELP
from ..core.errors import InputError
from ..models.names import DEFAULT_MODEL
from ..reading.answers import Summary, read_answers, summarize
from ..reading.kit import read_key
from .arguments import COUNT, SEED, add_command
from .console import Console

TASKS = ("inpaint", "generate_lesion")


def add_parser(subparsers: Any, common: argparse.ArgumentParser) -> None:
    """The sub-command."""
    parser = add_command(
        subparsers,
        common,
        "reading-kit",
        run,
        "Make pairs of real and made pieces of your CTs for readers, or judge their answers.",
        "FOLDER is for the readers, who open it in Slicer; FOLDER-key.json beside it says which are real. With "
        "--judge KEY the inputs are the readers' files answers-NAME.csv.",
    )
    add = parser.add_argument
    add("inputs", nargs="+", type=Path, metavar="INPUT",
        help="CTs; for lesions one datalist or dataset with masks; with --judge the answers")  # fmt: skip
    add("-o", "--output", type=Path, metavar="FOLDER", help="new folder of the kit")
    add("--judge", type=Path, metavar="KEY", help="say how many answers are right, with 95 %% intervals")
    add("--task", choices=TASKS, default=TASKS[0],
        help="what makes the other one: a ball filled, or a lesion made anew (default: %(default)s)")  # fmt: skip
    add("--pairs", type=COUNT, default=20, metavar="N", help="how many (default: %(default)s)")
    add("--diameter", type=float, default=20.0, metavar="MM", help="of the balls (default: %(default)g)")
    add("--edge", type=float, default=90.0, metavar="MM", help="of the pieces (default: %(default)g)")
    add(
        "--steps",
        type=COUNT,
        metavar="N",
        help="network evaluations of one sample (default: as the task does by itself)",
    )
    add("--seed", type=SEED, default=0, metavar="N", help="of places, sides and order (default: %(default)s)")
    add("--model", default=DEFAULT_MODEL, help="catalogue name or .safetensors file (default: %(default)s)")
    add("--device", default="auto", help=DEVICE_HELP)


def run(args: argparse.Namespace, console: Console) -> int:
    """Make a kit, or judge answers."""
    if args.judge is not None:
        return _judge(args, console)
    if args.output is None:
        raise InputError("There is no folder for the kit.", "Give one with -o.")
    from ..reading.making import KitPlan, make_kit

    plan = KitPlan(**{field.name: getattr(args, field.name) for field in fields(KitPlan)})
    key = make_kit(
        _sources(args), args.output, plan, model=args.model, device=args.device, progress=console.progress,
        cancel=console.cancel,
    )  # fmt: skip
    answer = {"status": "done", "output": str(args.output), "key": str(key), "pairs": plan.pairs}
    console.answer(answer, f"{args.output}: {plan.pairs} pairs for readers. Keep {key} to yourself.")
    return 0


def _sources(args: argparse.Namespace) -> list[Any]:
    """The CTs, with their masks where lesions are asked about."""
    from ..datasets.check import Needs, read_entries
    from ..datasets.dataset_folder import LABEL
    from ..reading.making import Source

    if args.task == "inpaint":
        return [Source(path) for path in args.inputs]
    if len(args.inputs) != 1:
        raise InputError("Lesions need masks.", "Give one datalist or dataset that has both.")
    entries = read_entries(args.inputs[0], Needs("lesion", mask=True, few=True))
    return [Source(entry.image, entry.file(LABEL)) for entry in entries]


def _judge(args: argparse.Namespace, console: Console) -> int:
    kit, real = read_key(args.judge)
    summaries = summarize(read_answers(args.inputs), kit, real)
    rows = [{**asdict(summary), "share": round(summary.share, 4)} for summary in summaries]
    console.answer({"status": "done", "readers": rows}, "\n".join(map(Summary.sentence, summaries)))
    return 0
