"""``meddifffm repeat REPORT.json``: reproduce a run and compare the outputs bit for bit."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..runner.reproduce import repeat
from .arguments import add_command
from .console import Console

DIFFERENT = 3


def add_parser(subparsers: Any, common: argparse.ArgumentParser) -> None:
    """The sub-command."""
    parser = add_command(
        subparsers,
        common,
        "repeat",
        run,
        "Do a reported run again and compare the bits.",
        f"Nothing is kept. Exit code 0: identical, {DIFFERENT}: different.",
    )
    parser.add_argument("report", type=Path, help="JSON report beside a result")


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
