"""Tables of figures: means with intervals, paired wins."""

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
    "synthesize": (
        Figure("MMD", "discrepancy of windows (squared MMD), lower is better", 3, False),
        Figure("precision", "share of windows like real ones, higher is better", 2, True),
        Figure("recall", "share of real windows that are covered, higher is better", 2, True),
        Figure("FID", "Frechet distance of windows, lower is better", 2, False),
    ),
}
HIGHER_IS_BETTER = {
    (task, figure.name): figure.higher_is_better
    for task, figures in FIGURES.items()
    for figure in figures
    if figure.higher_is_better is not None
}
"""(task, figure) of every merit."""


def is_part(task: str, group: str) -> bool:
    """Sizes and contrasts of lesions are parts of a question; sizes of spheres are questions of their own."""
    return task == "anomaly" and not group.endswith("lesions")


def summary(rows: list[Row], model: str | None = None) -> dict[str, Any]:
    """Task -> group -> figure -> per-case values, mean with interval, paired wins of the model."""
    tables: dict[str, Any] = {}
    for task in _in_order(row.task for row in rows):
        tables[task] = {}
        for group in _in_order(row.group for row in rows if row.task == task):
            part = [row for row in rows if row.task == task and row.group == group]
            known = [f for f in FIGURES[task] if any(f.name in row.values for row in part)]
            tables[task][group] = {f.name: _table(part, f, model) for f in known}
            tables[task][group]["seconds"] = _mean_seconds(part)
            if any("best" in row.details for row in part):
                tables[task][group]["detection"] = _detection(part)
            if any("seam" in row.details for row in part):
                tables[task][group]["seams"] = _seams([row for row in part if "seam" in row.details])
    return tables


def _table(rows: list[Row], figure: Figure, model: str | None) -> dict[str, Any]:
    """One figure of one group: cases x methods."""
    methods, cases = _in_order(r.method for r in rows), _in_order(r.case for r in rows)
    patients = {r.case: r.patient for r in rows}
    at = {(r.case, r.method): r.values.get(figure.name, float("nan")) for r in rows}
    columns = {m: [at.get((c, m), float("nan")) for c in cases] for m in methods}
    table: dict[str, Any] = {
        "cases": cases,
        "values": columns,
        "mean": {m: asdict(bootstrap(v, [patients[c] for c in cases])) for m, v in columns.items()},
    }
    if figure.higher_is_better is not None and model in columns:
        others = {m: wins(columns[model], columns[m], figure.higher_is_better) for m in methods if m != model}
        table["wins"] = {m: won for m, won in others.items() if won[1]}
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


def _seams(rows: list[Row]) -> dict[str, Any]:
    """Seam ratio of the method whose windows have borders: mean, the one furthest from 1, and what chance makes."""
    ratios = [r.details["seam"] for r in rows]
    return {
        "method": rows[0].method,
        "mean": asdict(bootstrap(ratios, [r.patient for r in rows])),
        "furthest": max(ratios, key=lambda ratio: abs(ratio - 1)),
        "chance": sum(r.details["seam_chance"] for r in rows) / len(rows),
    }


def _mean_seconds(rows: list[Row]) -> dict[str, float]:
    methods = _in_order(r.method for r in rows)
    seconds = {m: [r.seconds for r in rows if r.method == m] for m in methods}
    return {m: sum(s) / len(s) for m, s in seconds.items()}


def _in_order(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
