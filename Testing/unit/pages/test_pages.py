"""One-page reports: everything on one sheet, nothing over anything else, read by others' programs, no names unasked."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedDiffFMLib.cli import main
from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.imaging.volume import Volume, geometry
from MedDiffFMLib.pages.content import Page, as_json, from_json
from MedDiffFMLib.pages.html import as_html
from MedDiffFMLib.pages.layout import Subject, page_of
from MedDiffFMLib.pages.pdf import PAPERS, as_pdf, drawn
from MedDiffFMLib.pages.slices import Cut, slice_of
from MedDiffFMLib.tasks.base import Case, TaskResult
from MedDiffFMLib.tasks.registry import TASKS
from Testing.unit.phantoms import body

NAME, SHA = "Größe <b>&1", "c0ffee" * 10 + "1234"


def subject(rows: int = 12, name: str = NAME, warnings: int = 3) -> Subject:
    """An anomaly map of the phantom with findings."""
    scan = body((24, 32, 28), 6.0)
    score = np.zeros(scan.voxels.shape, np.float32)
    score[10:13, 14:18, 8:12] = 6
    places = [
        {"number": n, "where": f"R {n} A 3 S {n}", "volume_mm3": 1234.5, "peak_z": 6.0, "mean_z": 5.0,
         "r_mm": -40.0, "a_mm": -90.0, "s_mm": 60.0 + n, "mean_hu": 40.0}
        for n in range(1, rows + 1)
    ]  # fmt: skip
    result = TaskResult({"anomaly": score, "healthy": scan.voxels}, {"findings": places}, facts={"working_mm": 3.0})
    report = {
        "settings": {"task": "anomaly", "parameters": {"threshold": 3.5, "method": "cubes"}, "seed": 7},
        "model": {"name": "starter-ct", "sha256": SHA},
        "versions": {"torch": "2.6"},
        "warnings": ["Slices are 6 mm thick; findings smaller than that are not reliable."] * warnings,
        "inputs": {"volume": {"sha256": SHA[::-1], **geometry(scan)}},
    }
    place: Callable[[str], Volume] = lambda output: scan.with_voxels(result.volumes[output])  # noqa: E731
    return Subject(TASKS["anomaly"], name, Case(scan), result, report, place)


@pytest.fixture(scope="module")
def page() -> Page:
    return page_of(subject())


def texts_of(figure: Any) -> list[Any]:
    """Boxes of the texts of a sheet that are not empty, in points."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure).draw()
    own = [text for text in figure.texts if text.get_text().strip()]
    return [(text.get_text(), text.get_window_extent()) for text in own]


@pytest.mark.slow
@pytest.mark.parametrize("paper", PAPERS)
@pytest.mark.parametrize(("rows", "warnings"), [(2, 0), (100, 12)])
def test_nothing_overlaps_and_nothing_leaves_the_sheet(paper: str, rows: int, warnings: int) -> None:
    figure = drawn(page_of(subject(rows, warnings=warnings)), paper)
    width, height = PAPERS[paper]
    boxes = texts_of(figure)
    pictures = [axes.get_window_extent() for axes in figure.axes]
    for text, box in boxes:
        assert box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height, text
        assert not any(_shared(box, picture) for picture in pictures), text
    for n, (text, box) in enumerate(boxes):
        assert not [other for other, second in boxes[n + 1 :] if _shared(box, second)], text
    assert max(picture.width for picture in pictures) > 75  # points: they can be looked at


def _shared(one: Any, other: Any) -> bool:
    """Whether two boxes share more than rounding and the free parts of letters."""
    across = min(one.x1, other.x1) - max(one.x0, other.x0)
    along = min(one.y1, other.y1) - max(one.y0, other.y0)
    return bool(across > 1 and along > 2.5)


@pytest.mark.slow
def test_the_same_page_is_the_same_file_and_one_sheet(page: Page) -> None:
    once, again = as_pdf(page), as_pdf(page)
    assert once == again and once.count(b"/Type /Page\n") + once.count(b"/Type /Page ") == 1
    assert b"CreationDate" not in once


class _Parsed(HTMLParser):
    """Open elements, headings, pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.words = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.pictures.append(dict(attributes))
        elif tag != "meta":
            self.open.append(tag)
        if tag in ("h1", "h2", "h3"):
            self.headings.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_html_needs_nothing_else_and_tells_what_pictures_show(page: Page) -> None:
    from PIL import Image

    text = as_html(page)
    parsed = _Parsed()
    parsed.feed(text)
    assert not parsed.open and parsed.headings[0] == "h1" and set(parsed.headings[1:]) == {"h2"}
    assert "http" not in text and "<script" not in text
    assert NAME in parsed.words and "<b>" not in text.partition("</head>")[2]
    for picture in parsed.pictures:
        assert picture["alt"]
        kind, _, data = str(picture["src"]).partition(";base64,")
        assert kind == "data:image/png"
        Image.open(io.BytesIO(base64.b64decode(data))).verify()
    for said in (
        SHA,
        SHA[::-1],
        "Research use only. Not a medical device",
        "28 x 32 x 24, 6 x 6 x 6 mm",
        "cubes",
        "R 12 A 3 S 12",
    ):
        assert said in parsed.words, said


def test_no_name_where_none_is_wanted() -> None:
    assert "Größe" not in as_html(page_of(subject(name="")))


def test_a_page_can_be_kept_as_json(page: Page) -> None:
    again = from_json(as_json(page))
    assert as_html(again) == as_html(page)
    with pytest.raises(InputError, match="damaged"):
        from_json({**as_json(page), "tables": 3})


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_slices_are_as_radiologists_look_however_a_scan_is_stored(plane: str) -> None:
    """One bright voxel at the right, front and top is at the left or front side, and up; the mark is on it."""
    matrix = np.diag([-2.0, -2.0, 4.0, 1.0])
    voxels = np.zeros((10, 20, 30), np.int16)
    voxels[8, 3, 5] = 1000
    point = tuple(float(x) for x in (matrix @ [5, 3, 8, 1])[:3])
    own = slice_of(Volume(voxels, matrix), Cut(point, plane))  # type: ignore[arg-type]
    turned = Volume(np.ascontiguousarray(voxels[::-1].transpose(2, 0, 1)), _turned(matrix, 10))
    assert np.allclose(slice_of(turned, Cut(point, plane)).values, own.values)  # type: ignore[arg-type]
    row, column = np.unravel_index(own.values.argmax(), own.values.shape)
    rows, columns = own.values.shape
    assert row < rows / 2 and column < columns / 2
    assert abs(own.at[0] - row) <= 4 and abs(own.at[1] - column) <= 2


def _turned(matrix: np.ndarray, planes: int) -> np.ndarray:
    """Of the array [::-1] in (i, k, j) order."""
    flip = np.diag([1.0, 1.0, -1.0, 1.0])
    flip[2, 3] = planes - 1
    swap = np.zeros((4, 4))  # new (i, j, k) are old j, k, i
    swap[0, 2] = swap[1, 0] = swap[2, 1] = swap[3, 3] = 1
    return matrix @ flip @ swap


@pytest.mark.slow
def test_command_line_and_batch(small_ct_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of its own, or one beside each result; a page that is missing is made again; no file is overwritten."""
    common = ["--device", "cpu", "--quiet", "--pixels", "64"]
    one = ["radiograph", str(small_ct_file), "-o", str(tmp_path / "out"), *common]
    assert main([*one, "--pdf", str(tmp_path / "my.pdf"), "--html", "--paper", "letter"]) == 0
    assert str(tmp_path / "my.pdf") in capsys.readouterr().out
    assert (tmp_path / "my.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "out" / "chest_radiograph.html").exists()
    assert main([*one, "--overwrite", "--html", str(small_ct_file)]) == 2
    assert "is no .html file" in capsys.readouterr().err
    assert main([*one[:2], "-o", str(tmp_path / "new"), *common, "--pdf", str(tmp_path / "my.pdf")]) == 2
    assert "exists already" in capsys.readouterr().err and not list((tmp_path / "new").glob("*"))

    batch = ["radiograph", "--batch", str(small_ct_file), "-o", str(tmp_path / "batch"), *common]
    assert main([*batch, "--html", str(tmp_path / "one.html")]) == 2
    assert "several cases" in capsys.readouterr().err
    for _ in range(2):
        assert main([*batch, "--html"]) == 0
        beside = tmp_path / "batch" / "chest_radiograph.html"
        assert beside.exists()
        beside.unlink()
