"""CSV files: written whole or not at all, with no cell that a spreadsheet would compute."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .atomic_files import atomic_path
from .visible_text import visible

_FORMULA = ("=", "+", "-", "@")


def write_csv(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[str], path: Path, *, overwrite: bool = False
) -> None:
    """Write rows as CSV; without rows the heading alone.

    Raises:
        OutputError: exists, no permission, no space.
    """
    with (
        atomic_path(path, overwrite=overwrite) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows({name: cell(value) for name, value in row.items()} for row in rows)


def cell(value: Any) -> Any:
    """A value as a cell: a text that could be a formula begins with an apostrophe (OWASP, CSV injection), control
    characters are escaped; numbers stay numbers."""
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
