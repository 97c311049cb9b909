"""Parameter sweep: one task at several values of a parameter, as a table and a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...core.atomic_files import atomic_path
from ...core.errors import InputError
from .protocols import Row
from .tables import FIGURES, Figure, is_part, mean_of

AXES = {"evaluations": "network evaluations", "seconds": "seconds a run"}
EXAMPLE = "Write TASK=FIELD:VALUE,VALUE,..., as in denoise=steps:5,10,20,50."


@dataclass(frozen=True)
class Curve:
    """Parameter that is varied, and its values.

    Attributes:
        fields: of the task's parameters; several get the same value.
        values: numbers, at least two.
    """

    task: str
    fields: tuple[str, ...]
    values: tuple[float, ...]

    @property
    def name(self) -> str:
        """ "denoise.steps"."""
        return f"{self.task}.{'+'.join(self.fields)}"

    def label(self, value: float) -> str:
        """The method's name at one value."""
        return f"{'+'.join(self.fields)} {value:g}"

    def settings(self, value: float) -> dict[str, float]:
        """Fields of the task's parameters at one value."""
        return {field: value for field in self.fields}


def parse_curve(text: str, tasks: Sequence[str]) -> Curve:
    """``"denoise=steps:5,10,20,50"``; ``"synthesize=middle_steps+native_steps:5,10"`` sets several fields alike.

    Raises:
        InputError: not of that form.
    """
    task, equals, rest = text.partition("=")
    names, colon, numbers = rest.partition(":")
    try:
        values = tuple(json.loads(f"[{numbers}]"))
    except ValueError:
        values = ()
    plain = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if not (equals and colon and names and plain) or len(set(values)) < 2 or task not in tasks:
        raise InputError(f"--curve {text} cannot be understood.", f"{EXAMPLE} Tasks: {', '.join(tasks)}.")
    return Curve(task, tuple(names.split("+")), tuple(dict.fromkeys(values)))


def curve_record(curve: Curve, rows: Sequence[Row]) -> dict[str, Any]:
    """Means over cases at each value, and of the baselines; JSON-ready.

    Args:
        rows: of the task: the model at each value, under :meth:`Curve.label`, and the baselines.
    """
    labels = [curve.label(value) for value in curve.values]
    known = list(dict.fromkeys(row.group for row in rows))
    groups = [g for g in known if not is_part(curve.task, g)] or known
    return {
        "task": curve.task,
        "fields": list(curve.fields),
        "values": list(curve.values),
        "evaluations": [_mean([r.evaluations for r in rows if r.method == label]) for label in labels],
        "seconds": [_mean([r.seconds for r in rows if r.method == label]) for label in labels],
        "groups": {group: _group([r for r in rows if r.group == group], curve.task, labels) for group in groups},
    }


def _group(rows: list[Row], task: str, labels: list[str]) -> dict[str, Any]:
    """Figure -> ``curve``, a mean with interval for each value, and ``baselines``, name -> mean."""
    methods = list(dict.fromkeys(row.method for row in rows))
    group: dict[str, Any] = {}
    for figure in FIGURES[task]:
        if not (figure.by_case and any(figure.name in row.values for row in rows)):
            continue
        means = {m: _interval([r for r in rows if r.method == m], figure) for m in methods}
        baselines = {m: means[m]["mean"] for m in methods if m not in labels and means[m]["count"]}
        group[figure.name] = {"curve": [means.get(label) for label in labels], "baselines": baselines}
    return group


def _interval(rows: list[Row], figure: Figure) -> dict[str, Any]:
    values = [r.values.get(figure.name, float("nan")) for r in rows]
    return asdict(mean_of(values, [r.patient for r in rows], figure.ratio))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def draw_curve(path: Path, record: dict[str, Any], title: str) -> None:
    """Picture of a curve: a row for each group and figure; left against network evaluations, right against seconds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    panels = [
        (g, f)
        for g, figures in record["groups"].items()
        for f in FIGURES[record["task"]]
        if f.name in figures and f.higher_is_better is not None
    ]
    canvas = Canvas(figsize=(10, 0.8 + 2.9 * len(panels)), layout="constrained")
    FigureCanvasAgg(canvas)
    canvas.suptitle(title)
    axes = canvas.subplots(len(panels), 2, squeeze=False, sharey="row")
    for line, (group, figure) in zip(axes, panels, strict=True):
        for one, (axis, unit) in zip(line, AXES.items(), strict=True):
            _panel(one, record, group, figure, axis)
            one.set_xlabel(unit)
        line[0].set_ylabel(f"{group}\n{figure.name}".strip())
    axes[0, 1].legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    with atomic_path(path, overwrite=True) as temporary:
        canvas.savefig(temporary, dpi=120, format="png")


def _panel(axes: Any, record: dict[str, Any], group: str, figure: Figure, axis: str) -> None:
    """The model with its intervals, each point named by its value, and the baselines as level lines."""
    figures = record["groups"][group][figure.name]
    places = [v if v is not None else n for n, v in enumerate(record[axis])]
    known = [(x, p, v) for x, p, v in zip(places, figures["curve"], record["values"], strict=True) if p and p["count"]]
    points = sorted(known, key=lambda point: point[0])
    x = [place for place, _, _ in points]
    means = [p["mean"] for _, p, _ in points]
    low, high = [p["low"] for _, p, _ in points], [p["high"] for _, p, _ in points]
    axes.fill_between(x, low, high, alpha=0.15, color="black", linewidth=0)
    axes.plot(x, means, "o-", color="black", label="model, with 95 % interval")
    for place, mean, (_, _, value) in zip(x, means, points, strict=True):
        axes.annotate(f"{value:g}", (place, mean), textcoords="offset points", xytext=(4, 5), fontsize=8)
    near = _in_sight(figures["baselines"], [*low, *high])
    for number, (name, mean) in enumerate(figures["baselines"].items()):
        if name in near:
            axes.axhline(mean, linestyle="--", linewidth=1, color=f"C{number}", label=name)
    if min(x, default=0) > 0:
        axes.set_xscale("log")
    axes.spines[["top", "right"]].set_visible(False)


def _in_sight(baselines: dict[str, float], curve: list[float]) -> list[str]:
    """Baselines near enough that the curve's own shape stays visible; the others are in the table."""
    if not curve:
        return list(baselines)
    low, high = min(curve), max(curve)
    far = {name: max(low - mean, mean - high, 0.0) for name, mean in baselines.items()}
    reach = 3 * max(high - low, min(far.values(), default=0.0))
    return [name for name, distance in far.items() if distance <= reach]
