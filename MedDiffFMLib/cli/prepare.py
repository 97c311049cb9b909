"""``meddifffm prepare DATALIST``: CTs to the cache that ``pretrain`` reads."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from ..core.parts import PART_HELP, WHOLE, parse_part
from ..core.text_table import columns
from .arguments import add_command
from .console import Console


def add_parser(subparsers: Any, common: argparse.ArgumentParser) -> None:
    """The sub-command."""
    parser = add_command(
        subparsers,
        common,
        "prepare",
        run,
        "Prepare CTs for training.",
        "Finished cases are kept, so the same command resumes. Cases that cannot be used are "
        "listed with the reason and left out.",
    )
    parser.add_argument("datalist", type=Path, help='MONAI decathlon JSON with "training" and "validation"')
    parser.add_argument(
        "--part",
        type=parse_part,
        default=WHOLE,
        metavar="I/N",
        help=f"{PART_HELP}; run it without afterwards, which writes the index",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="folder of the cache")
    parser.add_argument("--anatomy-key", default="anatomy", choices=("anatomy", "label"),
                        help="key of the organ label maps, TotalSegmentator numbers (default: anatomy)")  # fmt: skip


def run(args: argparse.Namespace, console: Console) -> int:
    """Prepare and show what became of each case; the exit code is the worst of them."""
    from ..datasets.prepare import prepare

    cases = prepare(
        args.datalist,
        args.output,
        anatomy_key=args.anatomy_key,
        part=args.part,
        report=console.note,
        cancel=console.cancel,
    )
    rows = [["case", "split", "state", "voxels", "spacing (mm)", "region", "remarks"]]
    for case in cases:
        size = " x ".join(map(str, case.shape))
        spacing = " x ".join(f"{s:g}" for s in case.spacing)
        resampled = [] if case.native else ["Not a scanner's own voxels."]
        remarks = case.reason or " ".join([*case.warnings, *resampled])
        region = f"{case.region}: {', '.join(case.parts)}" if case.parts else case.region
        rows.append([case.name, case.split, case.state, size, spacing, region, remarks])
    used = [case.split for case in cases if case.state != "skipped"]
    usable = {split: used.count(split) for split in ("training", "validation")}
    skipped = len(cases) - len(used)
    total = f"{usable['training']} training and {usable['validation']} validation cases in {args.output}"
    text = f"{columns(rows)}\n\n{total}; {skipped} skipped."
    code = max((case.exit_code for case in cases), default=0)
    answer = {"status": "error" if code else "done", "output": str(args.output), **usable, "skipped": skipped}
    console.answer({**answer, "cases": [dataclasses.asdict(case) for case in cases]}, text)
    return code
