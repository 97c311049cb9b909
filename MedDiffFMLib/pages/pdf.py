"""A page as PDF, A4 or Letter, drawn by Matplotlib: one sheet, whatever the case holds.

Texts take the height that they need; pictures and tables share the rest. Tables end with a note where it is too small.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .content import Page, Picture, Table

PAPERS = {"a4": (595.28, 841.89), "letter": (612.0, 792.0)}
"""Width and height in points."""
MARGIN, GAP = 34.0, 6.0
SIZES = (7.6, 7.0, 6.4, 5.8)
"""Of the text, points; smaller ones where there is much of it."""
LINE = 1.32
PICTURES_SHARE = 0.42
"""Of the sheet, that pictures have at least."""
RED, GRAY = "#9b1c1c", "#444444"
_LEAST_ROWS = 3


def as_pdf(page: Page, paper: str = "a4") -> bytes:
    """The file; the same bytes for the same page.

    Args:
        paper: name in PAPERS.
    """
    stream = io.BytesIO()
    about = {"Title": page.title, "Subject": page.notice, "Creator": "MedDiff-FM", "CreationDate": None}
    with _set_type():
        drawn(page, paper).savefig(stream, format="pdf", metadata=about)
    return stream.getvalue()


def drawn(page: Page, paper: str) -> Any:
    """The sheet as Matplotlib's figure, a point a pixel."""
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.figure import Figure

    width, height = PAPERS[paper]
    with _set_type():
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        FigureCanvasPdf(figure)
        _Sheet(figure, width, height).fill(page)
    return figure


@contextlib.contextmanager
def _set_type() -> Iterator[None]:
    """One font on all computers, embedded so that the text can be searched."""
    import matplotlib

    quiet = logging.getLogger("fontTools.subset")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with matplotlib.rc_context({"pdf.fonttype": 42, "font.family": "DejaVu Sans"}):
            yield
    finally:
        quiet.setLevel(level)


@dataclass(frozen=True)
class _Look:
    """How a text is set."""

    size: float
    weight: str = "normal"
    color: str = "black"


def _text_width(text: str, look: _Look) -> float:
    """Points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family="DejaVu Sans", size=look.size, weight=look.weight)
    return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0])


def _wrapped(text: str, width: float, look: _Look) -> list[str]:
    """Lines no wider than ``width`` points; words that are longer are broken."""
    lines = [""]
    for word in re.findall(r"\S+", text):
        while word:
            trial = f"{lines[-1]} {word}".strip()
            if _text_width(trial, look) <= width:
                lines[-1], word = trial, ""
            elif lines[-1]:
                lines.append("")
            else:
                fits = max((n for n in range(1, len(word)) if _text_width(word[:n], look) <= width), default=1)
                lines[-1], word = word[:fits], word[fits:]
                lines += [""] if word else []
    return lines


class _Sheet:
    """A sheet that is filled from the top; places in points from its upper left corner."""

    def __init__(self, figure: Any, width: float, height: float) -> None:
        self.figure, self.width, self.height = figure, width, height
        self.inner = width - 2 * MARGIN
        self.top = MARGIN

    def fill(self, page: Page) -> None:
        """Draw everything in the largest text with which pictures have their share."""
        for size in SIZES:
            parts = self._parts(page, size)
            left = self.height - 2 * MARGIN - sum(part.height for part in parts)
            least = sum(_table_height(self._set(table, size), _LEAST_ROWS) for table in page.tables)
            wanted = PICTURES_SHARE * self.height if page.pictures else 0.0
            if left - least >= wanted:
                break
        else:
            parts, left = self._shortened(parts, left - least - wanted), max(left, least + wanted)
        self._draw(page, parts, left, size)

    def _draw(self, page: Page, parts: list[_Block], left: float, size: float) -> None:
        tables = [self._set(table, size) for table in page.tables]
        every = sum(_table_height(table, len(table.rows)) for table in tables)
        grid = _grid_height(page.pictures, self.inner, size)  # in the rows of the page, which are the tallest
        least = PICTURES_SHARE * self.height if page.pictures else 0.0
        for_pictures = min(grid, max(left - every, min(least, left)))
        for_tables = left - for_pictures
        head = [part for part in parts if part.place == "head"]
        for part in head:
            self._block(part)
        self._pictures(page.pictures, for_pictures, size)
        for part in (part for part in parts if part.place == "words"):
            self._block(part)
        for number, table in enumerate(tables):
            wanted = _table_height(table, len(table.rows))
            others = sum(_table_height(other, _LEAST_ROWS) for other in tables[number + 1 :])
            used = self._table(table, min(wanted, for_tables - others))
            for_tables -= used
        for part in (part for part in parts if part.place == "lists"):
            self._block(part)
        self.top = self.height - MARGIN - sum(part.height for part in parts if part.place == "foot")
        for part in (part for part in parts if part.place == "foot"):
            self._block(part)

    # Texts

    def _parts(self, page: Page, size: float) -> list[_Block]:
        body, small = _Look(size), _Look(size - 0.6, color=GRAY)
        strong = _Look(size, "bold", RED)
        head = [(page.title, _Look(size * 1.9, "bold")), (page.subtitle, _Look(size * 1.1)), (page.notice, strong)]
        head += [(mark, strong) for mark in page.marks]
        parts = [_Block("head", self._lines(head, self.inner))]
        if page.warnings:
            lines = [("Warnings", _Look(size, "bold")), *((f"\u2022 {text}", body) for text in page.warnings)]
            parts.append(_Block("head", self._lines(lines, self.inner)))
        if page.sentences:
            lines = [("In words", _Look(size, "bold")), *((text, body) for text in page.sentences)]
            parts.append(_Block("words", self._lines(lines, self.inner)))
        parts += self._lists(page, size)
        parts.append(_Block("foot", self._lines([(page.notice, replace(small, color=RED))], self.inner)))
        return parts

    def _lines(self, texts: Sequence[tuple[str, _Look]], width: float, left: float = MARGIN) -> list[_Line]:
        return [_Line(line, look, left) for text, look in texts for line in _wrapped(text, width, look)]

    def _lists(self, page: Page, size: float) -> list[_Block]:
        """Lists in two columns, each to the shorter one."""
        column = (self.inner - 2 * GAP) / 2
        sides: list[list[_Line]] = [[], []]
        for title, rows in page.lists.items():
            side = min(range(2), key=lambda n: sum(line.height for line in sides[n]))
            left = MARGIN + side * (column + 2 * GAP)
            gap = [_Line("", _Look(size / 2), left)] if sides[side] else []
            sides[side] += [*gap, *self._list(title, rows, column, left, size)]
        return [_Block("lists", sides[0], sides[1])] if any(sides) else []

    def _list(self, title: str, rows: Sequence[tuple[str, str]], width: float, left: float, size: float) -> list[_Line]:
        name_look, look = _Look(size - 0.6, color=GRAY), _Look(size - 0.6)
        name_width = min(max(_text_width(name, name_look) for name, _ in rows) + GAP, 0.4 * width)
        lines = [_Line(title, _Look(size, "bold"), left)]
        for name, value in rows:
            names = _wrapped(name, name_width - GAP / 2, name_look)
            values = _wrapped(value, width - name_width, look)
            for n in range(max(len(names), len(values))):
                own = names[n] if n < len(names) else ""
                said = values[n] if n < len(values) else ""
                lines.append(_Line(own, name_look, left, said, look, left + name_width))
        return lines

    def _shortened(self, parts: list[_Block], lacking: float) -> list[_Block]:
        """Sentences cut, with a note, until the rest has its place."""
        for number, part in enumerate(parts):
            if part.place == "words":
                kept = list(part.lines)
                while len(kept) > 2 and lacking < 0:
                    lacking += kept.pop().height
                kept[-1] = replace(kept[-1], text="... and more in the text file.")
                parts[number] = replace(part, lines=kept)
        return parts

    def _block(self, block: _Block) -> None:
        tops = []
        for lines in (block.lines, block.beside):
            top = self.top
            for line in lines:
                top += line.height
                self._text(line.left, top, line.text, line.look)
                if line.said:
                    self._text(line.said_left, top, line.said, line.said_look)
            tops.append(top)
        self.top = max(tops) + GAP

    def _text(self, left: float, baseline: float, text: str, look: _Look, **more: Any) -> None:
        x, y = left / self.width, 1 - (baseline - 0.28 * look.size) / self.height
        style = {"fontsize": look.size, "weight": look.weight, "color": look.color, "va": "baseline", **more}
        self.figure.text(x, y, text, parse_math=False, **style)

    # Pictures

    def _pictures(self, rows: Sequence[Sequence[Picture]], height: float, size: float) -> None:
        if not rows or height <= 0:
            return
        rows = _arranged(rows, self.inner, height, size)
        below = [_below(row, size) for row in rows]
        column = (self.inner - GAP * (_columns(rows) - 1)) / _columns(rows)
        natural = sum(max(picture.aspect for picture in row) * column for row in rows)
        scale = min(1.0, max(0.05, (height - sum(below) - GAP * len(rows)) / natural))
        for row, caption in zip(rows, below, strict=True):
            tall = max(picture.aspect for picture in row) * column * scale
            own = [min(column, tall / picture.aspect) for picture in row]
            for number, picture in enumerate(row):
                self._picture(picture, MARGIN + number * (max(own) + GAP), max(own), tall, size)
            self.top += tall + caption + GAP

    def _picture(self, picture: Picture, left: float, column: float, tall: float, size: float) -> None:
        from matplotlib.patheffects import withStroke

        width = min(column, tall / picture.aspect)
        high = width * picture.aspect
        axes = self._axes(left, self.top, width, high)
        axes.imshow(picture.pixels, aspect="auto", interpolation="none", extent=(0, 1, 0, 1))
        sides = [(0.015, 0.5, "left", "center"), (0.985, 0.5, "right", "center")]
        places = [*sides, (0.5, 0.985, "center", "top"), (0.5, 0.015, "center", "bottom")]
        style = {"color": "white", "path_effects": [withStroke(linewidth=1.4, foreground="black")]}
        for letter, (x, y, ha, va) in zip(picture.sides, places, strict=False):
            axes.text(x, y, letter, fontsize=size - 1, ha=ha, va=va, **style)
        bar = picture.bar_mm / picture.width_mm
        rim = {"color": "white", "path_effects": [withStroke(linewidth=2.4, foreground="black")]}
        axes.plot([0.04, 0.04 + bar], [0.05, 0.05], linewidth=1.2, **rim)
        axes.text(0.04, 0.065, f"{picture.bar_mm:g} mm", fontsize=size - 1.5, va="bottom", **style)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        look, top = _Look(size - 1), self.top + high
        for line in _wrapped(picture.caption, column, look)[:2]:
            top += look.size * LINE
            self._text(left, top, line, look)
        if picture.scale is not None:
            self._scale(picture, left, top + 2, width, look)

    def _scale(self, picture: Picture, left: float, top: float, width: float, look: _Look) -> None:
        scale = picture.scale
        assert scale is not None
        low, high = (_text_width(text, look) + 3 for text in (scale.low, scale.high))
        axes = self._axes(left + low, top + 1, max(width - low - high, 10.0), look.size - 1)
        axes.imshow(scale.colors[None], aspect="auto", interpolation="none")
        self._text(left, top + look.size * LINE, scale.low, look)
        self._text(left + width - high + 3, top + look.size * LINE, scale.high, look)

    def _axes(self, left: float, top: float, width: float, height: float) -> Any:
        box = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        axes = self.figure.add_axes(box)
        axes.set_axis_off()
        return axes

    # Tables

    def _set(self, table: Table, size: float) -> _SetTable:
        """Column widths by what stands in them; wide columns share what is left."""
        look, head = _Look(size - 0.6), _Look(size - 0.6, "bold")
        texts = [[title, *(row[n] for row in table.rows)] for n, title in enumerate(table.columns)]
        widths = [
            max(_text_width(text, head if n == 0 else look) for n, text in enumerate(column)) + GAP for column in texts
        ]
        most = self.inner / max(len(widths), 1)
        elastic = set(table.wide) or {n for n, width in enumerate(widths) if width > most}
        spare = self.inner - sum(width for n, width in enumerate(widths) if n not in elastic)
        if sum(widths) > self.inner and elastic:
            share = max(spare / len(elastic), 40.0)
            widths = [share if n in elastic else width for n, width in enumerate(widths)]
        if sum(widths) > self.inner:
            widths = [width * self.inner / sum(widths) for width in widths]
        rows = [[_wrapped(cell, w - GAP / 2, look) for cell, w in zip(row, widths, strict=True)] for row in table.rows]
        heads = [_wrapped(cell, w - GAP / 2, head) for cell, w in zip(table.columns, widths, strict=True)]
        return _SetTable(table, widths, heads, rows, size)

    def _table(self, table: _SetTable, height: float) -> float:
        """Draw as many rows as fit; gives the height that is taken."""
        begin, look, head = self.top, _Look(table.size - 0.6), _Look(table.size - 0.6, "bold")
        count = len(table.rows)
        while count > 0 and _table_height(table, count) > height + 0.5:  # points, of rounding
            count -= 1
        title = table.source.title if count else f"{table.source.title}: {_count(len(table.rows))}"
        self.top += table.size * LINE
        self._text(MARGIN, self.top, title, _Look(table.size, "bold"))
        for cells, style in [(table.heads, head), *((row, look) for row in table.rows[:count])] if count else []:
            left = MARGIN
            for lines, width in zip(cells, table.widths, strict=True):
                for n, line in enumerate(lines, 1):
                    self._text(left, self.top + n * look.size * LINE, line, style)
                left += width
            self.top += max(len(lines) for lines in cells) * look.size * LINE
        if count < len(table.rows):
            self.top += look.size * LINE
            self._text(MARGIN, self.top, f"{len(table.rows) - count} {table.source.more}", replace(look, color=GRAY))
        self.top += GAP
        return self.top - begin


def _count(rows: int) -> str:
    return "none" if rows == 0 else f"{rows} rows"


@dataclass(frozen=True)
class _Line:
    """A line, with another text in the same line further right."""

    text: str
    look: _Look
    left: float
    said: str = ""
    said_look: _Look = _Look(1.0)
    said_left: float = 0.0

    @property
    def height(self) -> float:
        return self.look.size * LINE


@dataclass(frozen=True)
class _Block:
    """Lines that stay together, in one or two columns.

    Attributes:
        place: "head", "words", "lists" or "foot".
    """

    place: str
    lines: list[_Line]
    beside: Sequence[_Line] = ()

    @property
    def height(self) -> float:
        return max(sum(line.height for line in lines) for lines in (self.lines, self.beside)) + GAP


@dataclass(frozen=True)
class _SetTable:
    """A table with its texts broken into lines."""

    source: Table
    widths: list[float]
    heads: list[list[str]]
    rows: list[list[list[str]]]
    size: float


def _table_height(table: _SetTable, rows: int) -> float:
    """With title, heading, up to so many rows, and the note of the others."""
    step, shown = (table.size - 0.6) * LINE, table.rows[:rows]
    height = table.size * LINE + GAP
    if shown:
        height += sum(max(len(lines) for lines in cells) for cells in (table.heads, *shown)) * step
    return height + (step if len(shown) < len(table.rows) else 0.0)


def _arranged(
    rows: Sequence[Sequence[Picture]], width: float, height: float, size: float
) -> Sequence[Sequence[Picture]]:
    """Short rows side by side where pictures become larger so."""
    if len({len(row) for row in rows}) > 1:
        return rows

    def edge(arranged: Sequence[Sequence[Picture]]) -> float:
        column = (width - GAP * (_columns(arranged) - 1)) / _columns(arranged)
        texts = sum(_below(row, size) + GAP for row in arranged)
        natural = sum(max(picture.aspect for picture in row) for row in arranged)
        return min(column, max(height - texts, 1.0) / natural)

    joined = [
        [[picture for row in rows[first : first + count] for picture in row] for first in range(0, len(rows), count)]
        for count in range(1, len(rows) + 1)
    ]
    return max(joined, key=edge)


def _columns(rows: Sequence[Sequence[Picture]]) -> int:
    return max(max(len(row) for row in rows), 2)


def _below(row: Sequence[Picture], size: float) -> float:
    """Height of captions and scales: up to two lines, and one."""
    look = _Look(size - 1)
    return look.size * LINE * (2 + any(picture.scale is not None for picture in row)) + 2


def _grid_height(rows: Sequence[Sequence[Picture]], width: float, size: float) -> float:
    """Of pictures as wide as their columns."""
    if not rows:
        return 0.0
    column = (width - GAP * (_columns(rows) - 1)) / _columns(rows)
    return sum(max(picture.aspect for picture in row) * column + _below(row, size) + GAP for row in rows)
