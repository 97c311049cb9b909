"""The list of cases, and the page that is made from it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pytest

from MedDiffFMLib.core.errors import InputError, MedDiffFMError

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "bad-input.md"


@dataclass(frozen=True)
class BadInput:
    """One row.

    Attributes:
        section: heading on the page: what the module with the case says of itself.
        title: what is wrong with the input.
        message: exact text; ``{folder}`` stands for the folder that ``run`` works in.
        error: type of the exception, None for a warning (work goes on).
        run: does what a user would do; raises, or returns the warnings.
    """

    section: str
    title: str
    message: str
    error: type[MedDiffFMError] | None
    run: Callable[[Path, pytest.MonkeyPatch], list[str] | None]


CASES: list[BadInput] = []


def case(title: str, message: str, error: type[MedDiffFMError] | None = InputError):
    """Add the decorated function as a case."""

    def add(run: Callable[[Path, pytest.MonkeyPatch], list[str] | None]):
        section = (sys.modules[run.__module__].__doc__ or "").strip(". ")
        CASES.append(BadInput(section, title, message, error, run))
        return run

    return add


def page() -> str:
    """docs/reference/bad-input.md."""
    lines = [
        "# Bad input",
        "",
        "What is checked before any computing starts, and what the user then reads, in the command line, in Python and",
        "in 3D Slicer alike. Errors end the run with the exit code shown; a warning is shown, kept in the report, and",
        "the run goes on. Nothing half-written is ever left behind. Numbers are those of the tests' own examples.",
        "This page is made from `Testing/unit/bad_input/`, whose every row is a test.",
    ]
    for section, rows in groupby(CASES, lambda row: row.section):
        lines += ["", f"## {section}", "", "| Input | Exit code | Message |", "|---|---|---|"]
        for row in rows:
            code = "warning" if row.error is None else str(row.error.exit_code)
            lines.append(f"| {row.title} | {code} | {row.message.replace('{folder}', '…')} |")
    return "\n".join(lines) + "\n"
