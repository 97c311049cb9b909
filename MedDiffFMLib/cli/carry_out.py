"""A parsed command line to an exit code: interrupts, messages, failures in one line."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from ..core import library_messages
from ..core.errors import MedDiffFMError, expected, log_defect
from ..core.progress import CancelToken
from .console import Console


def carry_out(args: argparse.Namespace) -> int:
    """Run a parsed command line; gives the exit code."""
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
        console.note_from_signal("Cancelling; interrupt again to stop at once.")

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
