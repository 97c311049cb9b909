"""Tables in plain text."""

from __future__ import annotations

from .visible_text import visible


def columns(rows: list[list[str]]) -> str:
    """Text in aligned columns; the first row is the heading. Cells may be foreign: control characters are escaped."""
    rows = [[visible(cell) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
