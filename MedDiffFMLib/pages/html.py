"""A page as one HTML file: pictures inside, headings and descriptions for readers of screens, ready to be printed."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from html import escape

from .content import Page, Picture, Scale, Table, png

_STYLE = """
@page { margin: 12mm; }
body { font: 14px/1.4 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 62em; margin: 1.5em auto;
  padding: 0 1em; }
h1 { font-size: 1.6em; margin: 0; }
h2 { font-size: 1.1em; margin: 1.2em 0 .3em; border-bottom: 1px solid #888; }
p { margin: .3em 0; }
.notice, .mark { font-weight: bold; color: #9b1c1c; }
.row { display: grid; gap: .6em; margin: .6em 0; break-inside: avoid; }
figure { margin: 0; }
.frame { position: relative; background: #000; color: #fff; font-size: 11px; text-shadow: 0 0 3px #000; }
.frame > img { display: block; width: 100%; }
.frame span { position: absolute; }
.left { left: 3px; top: 46%; } .right { right: 3px; top: 46%; }
.top { top: 1px; left: 49%; } .bottom { bottom: 1px; left: 49%; }
.bar { left: 4%; bottom: 5%; border-bottom: 2px solid #fff; white-space: nowrap; }
figcaption { font-size: .85em; }
.scale { display: flex; gap: .4em; align-items: center; } .scale img { height: .7em; flex: 1; min-width: 2em; }
table { border-collapse: collapse; width: 100%; font-size: .9em; }
caption { text-align: left; font-weight: bold; padding: .2em 0; }
th, td { text-align: left; vertical-align: top; padding: .15em .5em .15em 0; border-bottom: 1px solid #ccc; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1em 1em; margin: 0; font-size: .9em; }
dt { color: #444; } dd { margin: 0; overflow-wrap: anywhere; }
footer { margin-top: 1.5em; border-top: 1px solid #888; padding-top: .4em; }
@media print { body { max-width: none; margin: 0; font-size: 11px; } }
"""


def as_html(page: Page) -> str:
    """The file's text; it needs nothing else, and asks no server for anything."""
    return "\n".join(_lines(page)) + "\n"


def _lines(page: Page) -> Iterator[str]:
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escape(page.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<header>"
    yield f"<h1>{escape(page.title)}</h1>\n<p>{escape(page.subtitle)}</p>"
    yield f'<p class="notice">{escape(page.notice)}</p>'
    yield from (f'<p class="mark">{escape(mark)}</p>' for mark in page.marks)
    yield "</header>\n<main>"
    yield from _section("Warnings", _items(page.warnings))
    yield from _section("Pictures", (line for row in page.pictures for line in _row(row)))
    yield from _section("In words", (f"<p>{escape(text)}</p>" for text in page.sentences))
    yield from _section("Tables", (line for table in page.tables for line in _table(table)))
    for title, rows in page.lists.items():
        pairs = (f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows)
        yield from _section(title, ["<dl>", *pairs, "</dl>"])
    yield f'</main>\n<footer><p class="notice">{escape(page.notice)}</p></footer>\n</body>\n</html>'


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    """A heading with what belongs to it; nothing where that is empty."""
    content = list(lines)
    if content:
        yield f"<section>\n<h2>{escape(title)}</h2>"
        yield from content
        yield "</section>"


def _items(texts: Iterable[str]) -> list[str]:
    items = [f"<li>{escape(text)}</li>" for text in texts]
    return ["<ul>", *items, "</ul>"] if items else []


def _row(row: tuple[Picture, ...]) -> Iterator[str]:
    yield f'<div class="row" style="grid-template-columns: repeat({len(row)}, 1fr)">'
    for picture in row:
        yield f'<figure>\n<div class="frame">{_image(png(picture.pixels), picture.description)}'
        names = ("left", "right", "top", "bottom")
        yield from (f'<span class="{n}">{escape(s)}</span>' for n, s in zip(names, picture.sides, strict=False))
        width = 100 * picture.bar_mm / picture.width_mm
        yield f'<span class="bar" style="width: {width:.1f}%">{picture.bar_mm:g} mm</span></div>'
        yield f"<figcaption>{escape(picture.caption)}</figcaption>"
        yield from [] if picture.scale is None else [_scale(picture.scale)]
        yield "</figure>"
    yield "</div>"


def _scale(scale: Scale) -> str:
    low, high = escape(scale.low), escape(scale.high)
    bar = _image(png(scale.colors[None]), f"colors from {scale.low} to {scale.high}")
    return f'<div class="scale"><span>{low}</span>{bar}<span>{high}</span></div>'


def _image(data: bytes, description: str) -> str:
    return f'<img src="data:image/png;base64,{base64.b64encode(data).decode("ascii")}" alt="{escape(description)}">'


def _table(table: Table) -> Iterator[str]:
    yield f"<table>\n<caption>{escape(table.title)}</caption>"
    if table.rows:
        heads = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
        yield f"<thead><tr>{heads}</tr></thead>\n<tbody>"
        for row in table.rows:
            yield "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
        yield "</tbody>"
    else:
        yield "<tbody><tr><td>none</td></tr></tbody>"
    yield "</table>"
