"""Rows of figures as tables: means with their intervals, paired wins, Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from .detection import sensitivity
from .metrics import bootstrap, wins
from .protocols import Row


@dataclass(frozen=True)
class Figure:
    """How one figure of merit is shown.

    Attributes:
        name: key in a row's values.
        title: heading with unit.
        digits: after the decimal point.
        higher_is_better: None where it is context rather than merit.
    """

    name: str
    title: str
    digits: int
    higher_is_better: bool | None


FIGURES: dict[str, tuple[Figure, ...]] = {
    "denoise": (
        Figure("PSNR", "PSNR in [-160, 240] HU, dB, higher is better", 2, True),
        Figure("SSIM", "SSIM in [-160, 240] HU, higher is better", 4, True),
    ),
    "inpaint": (
        Figure("MAE", "mean absolute error, HU, lower is better", 1, False),
        Figure("texture", "liveliness (standard deviation over the true one, 1 is right)", 2, None),
    ),
    "anomaly": (
        Figure("AUROC", "voxel AUROC, higher is better", 3, True),
        Figure("AP", "voxel average precision, higher is better", 3, True),
        Figure("prevalence", "average precision of chance (share of lesion voxels)", 4, None),
    ),
}
SENSITIVITY = Figure("sensitivity", "share of lesions found", 2, True)
TITLES = {
    "denoise": "Denoising of simulated low dose",
    "inpaint": "Filling of healthy spheres",
    "anomaly": "Anomaly maps on inserted and real lesions",
}


def summary(rows: list[Row], model: str | None = None) -> dict[str, Any]:
    """Task -> group -> figure -> per-case values, mean with interval, paired wins of the model."""
    tables: dict[str, Any] = {}
    for task in _in_order(row.task for row in rows):
        tables[task] = {}
        for group in _in_order(row.group for row in rows if row.task == task):
            part = [row for row in rows if row.task == task and row.group == group]
            tables[task][group] = {f.name: _table(part, f, model) for f in FIGURES[task]}
            tables[task][group]["seconds"] = _mean_seconds(part)
            if any(row.details for row in part):
                tables[task][group]["detection"] = _detection(part)
    return tables


def _table(rows: list[Row], figure: Figure, model: str | None) -> dict[str, Any]:
    """One figure of one group: cases x methods."""
    methods, cases = _in_order(r.method for r in rows), _in_order(r.case for r in rows)
    patients = {r.case: r.patient for r in rows}
    at = {(r.case, r.method): r.values[figure.name] for r in rows}
    columns = {m: [at.get((c, m), float("nan")) for c in cases] for m in methods}
    table: dict[str, Any] = {
        "cases": cases,
        "values": columns,
        "mean": {m: asdict(bootstrap(v, [patients[c] for c in cases])) for m, v in columns.items()},
    }
    if figure.higher_is_better is not None and model in columns:
        others = [m for m in methods if m != model]
        table["wins"] = {m: wins(columns[model], columns[m], figure.higher_is_better) for m in others}
        table["wins_of"] = model
    return table


def _detection(rows: list[Row]) -> dict[str, Any]:
    """Sensitivity at false findings a case, method by method, and the number of lesions."""
    found = {}
    for method in _in_order(r.method for r in rows):
        part = [r for r in rows if r.method == method]
        found[method] = sensitivity([r.details["false"] for r in part], [r.details["best"] for r in part])
    first = rows[0].method
    return {"sensitivity": found, "lesions": sum(len(r.details["best"]) for r in rows if r.method == first)}


def _mean_seconds(rows: list[Row]) -> dict[str, float]:
    methods = _in_order(r.method for r in rows)
    seconds = {m: [r.seconds for r in rows if r.method == m] for m in methods}
    return {m: sum(s) / len(s) for m, s in seconds.items()}


def markdown(report: dict[str, Any]) -> str:
    """The report as a page: case by case where a group stands for the whole question, means only for its parts."""
    model, plan = report["model"], report["plan"]
    about = "Baselines alone." if model is None else (
        f"Model `{model['name']}` (SHA-256 `{model['sha256'][:12]}`) on {model['device']}, seed {report['seed']}."
    )  # fmt: skip
    extent = "whole volumes" if plan["slab_mm"] is None else f"slabs of {plan['slab_mm']:g} mm along the patient"
    lines = [
        "# Evaluation", "", f"{about} Evaluated on {extent}; dose fraction {plan['dose']:g}. Means over cases with "
        "95 % intervals from drawing patients with replacement. Research use only.", "",
    ]  # fmt: skip
    changed = {task: fields for task, fields in report["parameters"].items() if fields}
    if changed:
        lines += [f"Parameters other than the defaults: {changed}.", ""]
    if report["quick"]:
        lines += ["**Quick run: too few cases to report.**", ""]
    for task, groups in report["tables"].items():
        lines += [f"## {TITLES[task]}", ""]
        whole = {name: group for name, group in groups.items() if not _is_part(task, name)}
        for name, group in whole.items():
            lines += _group_lines(task, name, group)
        lines += _parts_lines(task, {name: group for name, group in groups.items() if name not in whole})
        first = next(iter(groups.values()))
        times = ", ".join(f"{method} {seconds:.1f}" for method, seconds in first["seconds"].items())
        lines += [f"Seconds a run: {times}.", ""]
    return "\n".join(lines)


def _is_part(task: str, group: str) -> bool:
    """Sizes and contrasts of lesions are parts of a question; sizes of spheres are questions of their own."""
    return task == "anomaly" and not group.endswith("lesions")


def _group_lines(task: str, name: str, group: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for figure in FIGURES[task]:
        if figure.higher_is_better is not None:
            heading = f"{name}: {figure.title}" if name else figure.title
            lines += [f"### {heading[0].upper()}{heading[1:]}", "", *_figure_lines(group[figure.name], figure), ""]
        else:
            means = ", ".join(f"{m} {_number(i['mean'], figure)}" for m, i in group[figure.name]["mean"].items())
            lines += [f"{figure.title[0].upper()}{figure.title[1:]}: {means}.", ""]
    return lines + _detection_lines(group.get("detection"))


def _figure_lines(table: dict[str, Any], figure: Figure) -> list[str]:
    methods = list(table["values"])
    lines = ["| case | " + " | ".join(methods) + " |", "|---|" + "---:|" * len(methods)]
    for n, case in enumerate(table["cases"]):
        lines.append(f"| {case} | " + " | ".join(_number(table["values"][m][n], figure) for m in methods) + " |")
    counted = max(table["mean"][m]["count"] for m in methods)
    means = " | ".join(_interval(table["mean"][m], figure) for m in methods)
    lines.append(f"| **mean of {counted}** | {means} |")
    if table.get("wins"):
        scores = ", ".join(f"{m} in {won} of {of}" for m, (won, of) in table["wins"].items())
        lines += ["", f"{table['wins_of']} is better than {scores} cases."]
    return lines


def _parts_lines(task: str, groups: dict[str, Any]) -> list[str]:
    """One row a part, sizes first, then contrasts: means of the figures that are merits."""
    if not groups:
        return []
    figures = [f for f in FIGURES[task] if f.higher_is_better is not None]
    methods = list(next(iter(groups.values()))[figures[0].name]["values"])
    titles = [f"{method}, {figure.name}" for figure in figures for method in methods]
    lines = ["| part | cases | " + " | ".join(titles) + " |", "|---|---:|" + "---:|" * len(titles)]
    for name in sorted(groups, key=_part_order):
        cells = [_interval(groups[name][f.name]["mean"][m], f) for f in figures for m in methods]
        lines.append(f"| {name} | {len(groups[name][figures[0].name]['cases'])} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _part_order(name: str) -> tuple[int, float]:
    value, _, unit = name.partition(" ")
    if unit in ("mm", "HU"):
        return ("mm", "HU").index(unit), float(value)
    return 2, 0.0


def _interval(mean: dict[str, Any], figure: Figure) -> str:
    return f"**{_number(mean['mean'], figure)}** [{_number(mean['low'], figure)}, {_number(mean['high'], figure)}]"


def _detection_lines(detection: dict[str, Any] | None) -> list[str]:
    if detection is None:
        return []
    rates = list(next(iter(detection["sensitivity"].values())))
    lines = [
        f"Share of {detection['lesions']} lesions found, by false findings allowed a case:", "",
        "| method | " + " | ".join(f"{float(rate):g}" for rate in rates) + " |", "|---|" + "---:|" * len(rates),
    ]  # fmt: skip
    for method, found in detection["sensitivity"].items():
        lines.append(f"| {method} | " + " | ".join(_number(found[rate], SENSITIVITY) for rate in rates) + " |")
    return [*lines, ""]


def _number(value: float | None, figure: Figure) -> str:
    return "-" if value is None or value != value else f"{value:.{figure.digits}f}"


def _in_order(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
