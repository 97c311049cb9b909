"""What stands on the page of a case: slices through what was found, tables, sentences, settings, origin.

Task declarations decide, by the kinds of their outputs; no task is named. Whoever draws the page decides about places
and sizes only. No third-party package besides NumPy, SciPy and Pillow is needed, which Slicer has.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.notice import NOTICE
from ..core.visible_text import visible
from ..imaging.volume import Volume
from ..tasks.base import Case, Task, TaskResult
from ..tasks.output_kinds import OutputKind
from ..tasks.parameters import describe
from .content import Page, Picture, Table
from .slices import Cut
from .views import Layer, overlay, picture, xray

MOST_COLUMNS, MOST_PLACES = 3, 3
NEAR_MM = 45.0
"""Shown around a small place that was changed."""
SYNTHETIC = "Synthetic: shows no patient, or what the patient does not have."
_UNITS = {"mm3": "mm\u00b3", "mm": "mm", "hu": "HU", "percent": "%", "days": "days", "ml": "ml"}
_LAST = (OutputKind.HU_SPREAD, OutputKind.LABEL_SPREAD)
"""Left out first where there is no room for all."""
_POINT = ("r_mm", "a_mm", "s_mm")


@dataclass
class Subject:
    """What a page is about.

    Attributes:
        task: that was run.
        name: of the case; empty to name none.
        case: what it was run on.
        result: what it gave.
        report: of the run, see ``runner.report``.
        place: where an output lies.
    """

    task: type[Task]
    name: str
    case: Case
    result: TaskResult
    report: dict[str, Any]
    place: Callable[[str], Volume]


def page_of(subject: Subject) -> Page:
    """The page of a case."""
    task, report = subject.task, subject.report
    marks = [SYNTHETIC] if report.get("synthetic", task.synthetic) else []
    return Page(
        title=": ".join(filter(None, [task.title, visible(subject.name)])),
        subtitle=task.sentence,
        notice=NOTICE,
        marks=tuple(marks),
        pictures=tuple(tuple(row) for row in _pictures(subject)),
        sentences=tuple(_sentences(subject)),
        tables=tuple(_tables(subject)),
        warnings=tuple(visible(str(text)) for text in report.get("warnings", ())),
        lists={title: tuple(rows) for title, rows in _lists(subject).items() if rows},
    )


# Pictures


def _pictures(subject: Subject) -> Iterator[list[Picture]]:
    """A row for each place or plane, a column for the scan and each output."""
    rays = [name for name in subject.result.volumes if subject.task.output(name).kind is OutputKind.XRAY]
    if rays:
        yield [xray(subject.place(name), _window(subject, name), _words(subject, name)) for name in rays[:MOST_COLUMNS]]
        return
    layers = _layers(subject)
    if not layers:
        return
    for label, cut in _cuts(subject, layers[0].volume):
        yield [picture(layer, cut, label) for layer in layers]


def _window(subject: Subject, name: str) -> tuple[float, float]:
    voxels = subject.result.volumes[name]
    low, high = subject.result.facts.get("windows", {}).get(name, (voxels.min(), voxels.max()))
    return float(low), float(high)


def _words(subject: Subject, name: str) -> str:
    view = subject.result.facts.get("views", {}).get(name, {}).get("view", "")
    return f"{subject.task.outputs[0].words}, {view}" if view else subject.task.output(name).words


def _layers(subject: Subject) -> list[Layer]:
    """The scan with the outline of the mask, then the outputs, the less important ones last."""
    task, case = subject.task, subject.case
    scan = case.volume if task.inputs.volume.value != "none" else None
    outputs = [(task.output(name), subject.place(name)) for name in subject.result.volumes]
    outputs.sort(key=lambda pair: pair[0].kind in _LAST)
    masks = [place for output, place in outputs if output.kind is OutputKind.MASK]
    mask = scan.with_voxels(case.mask) if scan is not None and case.mask is not None else next(iter(masks), None)
    base = scan or next((place for output, place in outputs if output.kind is OutputKind.CT), None)
    layers = [] if scan is None else [Layer(overlay(OutputKind.CT), scan, "scan", None, mask)]
    for output, place in outputs:
        if output.kind is OutputKind.MASK and scan is not None:
            continue
        shown = overlay(output.kind, _threshold(subject), subject.result.facts.get("labels"))
        layers.append(Layer(shown, place, output.words, base, mask if output.kind is OutputKind.CT else None))
    return layers[:MOST_COLUMNS]


def _threshold(subject: Subject) -> float | None:
    parameters = subject.report.get("settings", {}).get("parameters") or {}
    value = parameters.get("threshold")
    return float(value) if isinstance(value, (int, float)) else None


def _cuts(subject: Subject, shown: Volume) -> Iterator[tuple[str, Cut]]:
    """Axial slices through what was found; through one place several planes, and near it where a mask was changed."""
    places = list(itertools.islice(_places(subject), MOST_PLACES))
    if len(places) > 1:
        for label, point in places:
            yield label, Cut(point, "axial")
        return
    label, point = places[0] if places else ("", _middle(subject, shown))
    yield label, Cut(point, "axial")
    if subject.task.inputs.paints:
        yield label, Cut(point, "axial", NEAR_MM)
        yield label, Cut(point, "coronal", NEAR_MM)
    else:
        yield label, Cut(point, "coronal")


def _places(subject: Subject) -> Iterator[tuple[str, tuple[float, float, float]]]:
    """Label and RAS place of the rows of the first table with places; of facts those that no others share, the last
    first, for lists of facts begin with what is true of the whole scan."""
    for name, rows in subject.result.tables.items():
        found = [(str(row.get("number", n)), point) for n, row in enumerate(rows, 1) if (point := _point(row))]
        counts = Counter(point for _, point in found)
        if subject.task.output(name).kind is not OutputKind.POINTS:
            found = [(label, point) for label, point in reversed(found) if counts[point] == 1]
        if found:
            yield from found
            return


def _point(row: dict[str, Any]) -> tuple[float, float, float] | None:
    try:
        r, a, s = (float(row[name]) for name in _POINT)
    except (KeyError, TypeError, ValueError):
        return None
    return (r, a, s) if np.isfinite([r, a, s]).all() else None


def _middle(subject: Subject, shown: Volume) -> tuple[float, float, float]:
    """RAS middle of the mask, of the labels, or of the body."""
    inside = subject.case.mask
    volume = subject.case.volume if inside is not None else shown
    if inside is None or volume is None:
        marked = [
            subject.place(name)
            for name in subject.result.volumes
            if subject.task.output(name).kind in (OutputKind.MASK, OutputKind.LABELS)
        ]
        volume = next((place for place in marked if place.voxels.any()), shown)
        inside = volume.voxels > (0 if volume is not shown else -300)
    if not inside.any():
        inside = np.ones(volume.voxels.shape, bool)
    hits = [np.flatnonzero(inside.any(tuple(b for b in range(3) if b != axis))) for axis in range(3)]
    counts = [inside.sum(tuple(b for b in range(3) if b != axis)) for axis in range(3)]
    k, j, i = (float((count * np.arange(len(count))).sum() / count.sum()) for count in counts)
    k, j, i = (float(np.clip(at, hit[0], hit[-1])) for at, hit in zip((k, j, i), hits, strict=True))
    r, a, s, _ = volume.ijk_to_ras @ [i, j, k, 1.0]
    return float(r), float(a), float(s)


# Words


def _sentences(subject: Subject) -> Iterator[str]:
    """Lines of the texts, without those that stand in a table."""
    tabled = {str(row.get("sentence")) for rows in subject.result.tables.values() for row in rows}
    for text in subject.result.texts.values():
        for line in text.splitlines():
            if line.strip() and line.strip() not in tabled:
                yield visible(line.strip())


def _tables(subject: Subject) -> Iterator[Table]:
    for name, rows in subject.result.tables.items():
        output = subject.task.output(name)
        if not rows:
            yield Table(output.words.capitalize(), ("none",), ())
            continue
        columns = [column for column in output.columns if column not in _POINT and _worth(column, rows)]
        shown = [*columns, *(["place"] if "where" not in columns and _point(rows[0]) else [])]
        cells = tuple(tuple(_cell(row, column) for column in shown) for row in rows)
        wide = tuple(n for n, column in enumerate(shown) if any(len(row[n]) > 40 for row in cells))
        titles = tuple(heading(column) for column in shown)
        yield Table(output.words.capitalize(), titles, cells, wide, "more in the table's file")


def _worth(column: str, rows: list[dict[str, Any]]) -> bool:
    """Whether a column says something: sentences tell fact, value and unit, and empty ones nothing."""
    told = "sentence" in rows[0] and column in ("fact", "value", "unit")
    return not told and any(row.get(column) not in (None, "") for row in rows)


def _cell(row: dict[str, Any], column: str) -> str:
    if column == "place":
        return _place(row)
    return figure(row.get(column))


def _place(row: dict[str, Any]) -> str:
    from ..tasks.anomaly.findings import place

    return "" if _point(row) is None else place(row)


def heading(column: str) -> str:
    """A column's name with its unit: ``volume_mm3`` -> volume (mm³)."""
    words, _, unit = column.rpartition("_")
    name = f"{words} ({_UNITS[unit]})" if words and unit in _UNITS else column
    return name.replace("_", " ")


def figure(value: Any) -> str:
    """A value as a reader wants it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 10_000 else f"{value:.0f}"
    if isinstance(value, (list, tuple)):
        return ", ".join(figure(item) for item in value)
    return visible(str(value))


# Lists


def _lists(subject: Subject) -> dict[str, list[tuple[str, str]]]:
    return {
        "Settings": list(_settings(subject)),
        "Figures": list(_figures(subject)),
        "Structures": list(_structures(subject)),
        "Scan": list(_scans(subject)),
        "Made by": list(_origin(subject.report)),
    }


def _settings(subject: Subject) -> Iterator[tuple[str, str]]:
    """Parameters that every user sees, the others where they are not at their default; then how it was run."""
    settings = subject.report.get("settings", {})
    values = settings.get("parameters") or {}
    for field, info in describe(subject.task):
        value = values.get(field.name, field.default)
        changed = figure(value) != figure(field.default)
        if info.advanced and not changed:
            continue
        yield (
            info.title or field.name.replace("_", " "),
            "automatic" if value is None else "none" if value == "" else f"{figure(value)} {info.unit}".strip(),
        )
    if subject.task.needs_model:
        yield "seed", figure(settings.get("seed"))
        yield "region", figure(settings.get("region") or subject.result.facts.get("region") or "automatic")
    for name, text in subject.case.texts.items():
        yield name.replace("_", " "), visible(text)


def _figures(subject: Subject) -> Iterator[tuple[str, str]]:
    """Single facts of the result."""
    for name, value in subject.result.facts.items():
        if isinstance(value, (int, float, str)) and name not in ("region", "unit"):
            yield heading(name), figure(value)


def _structures(subject: Subject) -> Iterator[tuple[str, str]]:
    """Names and sizes of the labels."""
    labels = subject.result.facts.get("labels")
    for row in labels if isinstance(labels, list) else ():
        volume = row.get("volume_ml")
        yield visible(str(row.get("name"))), "" if volume is None else f"{volume:.4g} ml"


def _scans(subject: Subject) -> Iterator[tuple[str, str]]:
    """Name and geometry of what was read."""
    for name, record in subject.report.get("inputs", {}).items():
        if name == "volume" and subject.name:
            yield "name", visible(subject.name)
        title = "" if name == "volume" else f"{name.replace('_', ' ')}: "
        shape, spacing = record.get("shape_ijk"), record.get("spacing_mm")
        if shape and spacing:
            edges = " x ".join(f"{edge:.4g}" for edge in spacing)
            yield f"{title}voxels", f"{' x '.join(map(str, shape))}, {edges} mm"
        if name == "volume" and record.get("ijk_to_ras"):
            corner = [row[3] for row in record["ijk_to_ras"][:3]]
            yield "first voxel (RAS mm)", " ".join(f"{x:.1f}" for x in corner)
        if record.get("sha256"):
            yield f"{title}SHA-256", str(record["sha256"])


def _origin(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    model = report.get("model", {})
    yield "model", visible(str(model.get("name", "none")))
    if model.get("sha256"):
        yield "SHA-256", str(model["sha256"])
    versions: Iterable[tuple[str, str]] = report.get("versions", {}).items()
    yield "versions", ", ".join(f"{name} {version}" for name, version in versions)
    device = " ".join(filter(None, [str(report.get("device") or ""), str(report.get("precision") or "")]))
    if device:
        yield "device", device
    if report.get("started"):
        yield (
            "computed",
            f"{report['started'].replace('T', ' ').replace('+00:00', ' UTC')}, {report.get('seconds', 0):.0f} s",
        )
