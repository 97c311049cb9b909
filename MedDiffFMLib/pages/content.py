"""Content of a page, whatever draws it: pictures, tables, lists. Can be kept as JSON."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..core.errors import InputError

FORMAT = "meddifffm-page-1"


@dataclass(frozen=True)
class Scale:
    """What colors of a picture mean.

    Attributes:
        colors: (n, 3) uint8, the low end first.
        low, high: the ends with their unit.
    """

    colors: np.ndarray
    low: str
    high: str


@dataclass(frozen=True)
class Picture:
    """A slice or an X-ray.

    Attributes:
        pixels: (rows, columns, 3) uint8, square pixels.
        width_mm: of what is shown.
        caption: short, below it.
        description: for who cannot see it.
        sides: letters at left, right, top and bottom; empty where there are none.
    """

    pixels: np.ndarray
    width_mm: float
    caption: str
    description: str
    sides: tuple[str, ...] = ()
    scale: Scale | None = None

    @property
    def aspect(self) -> float:
        """Height over width."""
        return self.pixels.shape[0] / self.pixels.shape[1]

    @property
    def bar_mm(self) -> float:
        """Round length of a bar that takes up to a third of the width."""
        return max((n for n in (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0) if n <= self.width_mm / 3), default=1.0)


@dataclass(frozen=True)
class Table:
    """Rows of texts.

    Attributes:
        wide: numbers of the columns whose texts are long.
        more: said where not all rows fit.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    wide: tuple[int, ...] = ()
    more: str = ""


@dataclass(frozen=True)
class Page:
    """What stands on a page, in this order.

    Attributes:
        notice: what the page must not be used for.
        marks: short sentences that must not be overlooked, such as that no patient is shown.
        pictures: rows of pictures.
        sentences: what was found, in words.
        lists: title -> rows of name and value.
    """

    title: str
    subtitle: str
    notice: str
    marks: tuple[str, ...] = ()
    pictures: tuple[tuple[Picture, ...], ...] = ()
    sentences: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    warnings: tuple[str, ...] = ()
    lists: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)


def png(pixels: np.ndarray) -> bytes:
    """A picture (rows, columns, 3) uint8 as PNG; the same bytes for the same pixels."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels, np.uint8)).save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def as_json(page: Page) -> dict[str, Any]:
    """A page as JSON, pictures as PNG in base 64."""
    record = dataclasses.asdict(page)
    record["pictures"] = [[_packed(picture) for picture in row] for row in page.pictures]
    return {"format": FORMAT, **record}


def _packed(picture: Picture) -> dict[str, Any]:
    record = dataclasses.asdict(picture)
    record["pixels"] = base64.b64encode(png(picture.pixels)).decode("ascii")
    if picture.scale is not None:
        record["scale"]["colors"] = picture.scale.colors.tolist()
    return record


def from_json(record: Any) -> Page:
    """The page that :func:`as_json` gave.

    Raises:
        InputError: something else.
    """
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise InputError(f"This is no page of this version ({FORMAT}).", "Save it again.")
    try:
        values = {name: record[name] for name in (field.name for field in dataclasses.fields(Page))}
        values["pictures"] = tuple(tuple(_unpacked(picture) for picture in row) for row in values["pictures"])
        values["tables"] = tuple(_table(table) for table in values["tables"])
        values["lists"] = {
            title: tuple((str(name), str(value)) for name, value in rows) for title, rows in values["lists"].items()
        }
        for name in ("marks", "sentences", "warnings"):
            values[name] = tuple(str(text) for text in values[name])
        return Page(**values)
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as problem:
        raise InputError(f"The page is damaged ({type(problem).__name__}).", "Save it again.") from None


def _unpacked(record: dict[str, Any]) -> Picture:
    from PIL import Image

    scale = record["scale"]
    with Image.open(io.BytesIO(base64.b64decode(record["pixels"])), formats=["PNG"]) as image:
        pixels = np.asarray(image.convert("RGB"))
    return Picture(
        pixels,
        float(record["width_mm"]),
        str(record["caption"]),
        str(record["description"]),
        tuple(str(letter) for letter in record["sides"]),
        scale and Scale(np.array(scale["colors"], np.uint8), str(scale["low"]), str(scale["high"])),
    )


def _table(record: dict[str, Any]) -> Table:
    rows = tuple(tuple(str(cell) for cell in row) for row in record["rows"])
    columns = tuple(str(column) for column in record["columns"])
    return Table(str(record["title"]), columns, rows, tuple(map(int, record["wide"])), str(record["more"]))
