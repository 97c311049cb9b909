"""``meddifffm repeat REPORT.json``: reproduce a run and compare the outputs bit for bit."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..runner.reproduce import repeat
from .console import Console

DIFFERENT = 3


def add_parser(subparsers: Any, common: argparse.ArgumentParser) -> None:
    """The sub-command."""
    sentence = "Do a reported run again and compare the bits."
    parser = subparsers.add_parser(
        "repeat",
        parents=[common],
        help=sentence,
        description=f"{sentence} Nothing is kept. Exit code 0: identical, {DIFFERENT}: different.",
    )
    parser.add_argument("report", type=Path, help="JSON report beside a result")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: Console) -> int:
    """Repeat and compare."""
    answer = repeat(args.report, progress=console.progress, cancel=console.cancel)
    lines = [
        f"{name}: {'identical' if pair['expected'] == pair['found'] else 'DIFFERENT'}"
        for name, pair in answer["outputs"].items()
    ]
    lines += [f"{name} was {before}, is {now}" for name, (before, now) in answer["versions_changed"].items()]
    console.answer(answer, "\n".join(lines))
    return 0 if answer["identical"] else DIFFERENT
