"""Command line: from arguments to an exit code.

Exit codes: 0 done, 1 defect of the program, 2 bad usage or input, 3 model or device, 130 cancelled.

A sub-command is one module with ``add_parser(subparsers, common)``, which calls ``arguments.add_command``, and
``run(args, console) -> exit code``; it is listed in COMMANDS. Modules import torch only inside ``run``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from .. import __version__
from ..core.process_priority import ask_for_normal_priority
from ..runner.report import NOTICE
from . import (
    average,
    calibrate,
    dataset,
    finetune,
    info,
    listen,
    models,
    multimodal,
    organs,
    page,
    prepare,
    pretrain,
    pretrain_anomaly,
    pretrain_body,
    pretrain_translate,
    reading_kit,
    repeat,
    series,
    task,
    validate,
    worker,
)
from .carry_out import carry_out
from .left_out import LeftOut

if find_spec("MedDiffFMLib.evaluation") is None:  # Slicer's package
    MEASURING: tuple[Any, ...] = (LeftOut("evaluate"), LeftOut("benchmark"))
else:
    from . import benchmark, evaluate

    MEASURING = (evaluate, benchmark)

COMMANDS = (
    task,
    info,
    series,
    listen,
    models,
    repeat,
    organs,
    page,
    *MEASURING,
    dataset,
    finetune,
    prepare,
    pretrain,
    average,
    validate,
    reading_kit,
    pretrain_body,
    pretrain_anomaly,
    multimodal,
    pretrain_translate,
    calibrate,
    worker,
)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="meddifffm", description="One CT diffusion prior behind many tools.", epilog=NOTICE
    )
    parser.add_argument("--version", action="version", version=f"meddifffm {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print one JSON object on stdout and nothing else there")
    common.add_argument("--quiet", action="store_true", help="no progress and no notes on stderr")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(subparsers, common)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit code."""
    ask_for_normal_priority()
    parser = build_parser()
    try:
        args, unknown = parser.parse_known_args(argv)
        if unknown and not hasattr(args, "any_arguments"):
            parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    except SystemExit as stop:  # argparse has printed help (0) or what is wrong (2)
        return int(stop.code or 0)
    return carry_out(args)
