"""Command line: from arguments to an exit code.

Exit codes: 0 done, 1 defect of the program, 2 bad usage or input, 3 model or device, 130 cancelled.

A sub-command is one module with ``add_parser(subparsers, common)``, which calls ``arguments.add_command``, and
``run(args, console) -> exit code``; it is listed in COMMANDS. Modules import torch only inside ``run``.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from types import FrameType
from typing import Any

from .. import __version__
from ..core import library_messages
from ..core.errors import MedDiffFMError, expected, log_defect
from ..core.process_priority import ask_for_normal_priority
from ..core.progress import CancelToken
from ..runner.report import NOTICE
from . import (
    average,
    calibrate,
    dataset,
    finetune,
    info,
    models,
    multimodal,
    prepare,
    pretrain,
    pretrain_anomaly,
    pretrain_body,
    pretrain_translate,
    repeat,
    series,
    task,
    validate,
    worker,
)
from .console import Console
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
    models,
    repeat,
    *MEASURING,
    dataset,
    finetune,
    prepare,
    pretrain,
    average,
    validate,
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
    cancel = CancelToken()
    console = Console(as_json=args.json, quiet=args.quiet, cancel=cancel)
    try:
        with _interrupts(cancel, console), _library_messages(console), contextlib.redirect_stdout(console.spare_stdout):
            return args.run(args, console)
    except BrokenPipeError:  # the reader of stdout went away, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except BaseException as problem:
        if isinstance(problem, SystemExit):
            raise
        return _report_failure(problem, console)


def _report_failure(problem: BaseException, console: Console) -> int:
    """Say in one line what went wrong; no traceback on the screen."""
    failure = expected(problem)
    if failure is None:
        failure = MedDiffFMError(f"Unexpected failure: {log_defect(problem)}.", "Please report it with that file.")
        failure.kind, failure.exit_code = "internal", 1
    console.failure(failure)
    return failure.exit_code


@contextlib.contextmanager
def _interrupts(cancel: CancelToken, console: Console) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM asks the task to stop, the second stops it, the third kills."""
    if threading.current_thread() is not threading.main_thread():  # signals can only be caught there
        yield
        return

    def interrupted(number: int, _frame: FrameType | None) -> None:
        if cancel.cancelled:
            signal.signal(number, signal.SIG_DFL)
            raise KeyboardInterrupt
        cancel.cancel()
        console.note("Cancelling; interrupt again to stop at once.")

    numbers = (signal.SIGINT, signal.SIGTERM)
    before: dict[int, Any] = {number: signal.signal(number, interrupted) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _library_messages(console: Console) -> Iterator[None]:
    """Show this library's log warnings (memory that ran out), and keep those of foreign packages off the screen."""
    handler = _Handler(console)
    library = logging.getLogger(__name__.partition(".")[0])
    library.addHandler(handler)
    try:
        with library_messages.kept():
            yield
    finally:
        library.removeHandler(handler)


class _Handler(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.warning(record.getMessage())
