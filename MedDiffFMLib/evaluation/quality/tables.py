"""Tables of figures: means with intervals, paired wins."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .detection import LARGE_MM, among_first, sensitivity
from .metrics import EARLY, Interval, areas, bootstrap, false_positive_rates, wins
from .patch_classifier import told_apart
from .protocols import OWN, Row
from .texture import BANDS, band_name

DRAWS = 300
"""Of patients, for the interval of a ranking over all cases."""


@dataclass(frozen=True)
class Figure:
    """Display of one figure of merit.

    Attributes:
        name: key in a row's values.
        title: heading with unit.
        digits: after the decimal point.
        higher_is_better: None where it is context rather than merit.
        ratio: whether means are geometric, so that half and twice as much are equally far from 1.
        by_case: whether the page shows it case by case; else its means alone.
    """

    name: str
    title: str
    digits: int
    higher_is_better: bool | None
    ratio: bool = False
    by_case: bool = True


FIGURES: dict[str, tuple[Figure, ...]] = {
    "denoise": (
        Figure("PSNR", "PSNR in [-160, 240] HU, dB, higher is better", 2, True),
        Figure("SSIM", "SSIM in [-160, 240] HU, higher is better", 4, True),
        Figure("LDCT PSNR", "PSNR as LDCT-benchmark has it, dB, higher is better", 2, True, by_case=False),
        Figure("LDCT SSIM", "SSIM as LDCT-benchmark has it, higher is better", 4, True, by_case=False),
        Figure("level error, total", "error of the estimated noise level, % of added and own noise", 1, False),
        Figure("level error, added", "error of the estimated noise level, % of added noise alone", 1, False),
        Figure("level over total", "estimated noise level over added and own noise (1 is right)", 2, None, True),
        Figure("level over added", "estimated noise level over added noise alone", 2, None, True),
    ),
    "inpaint": (
        Figure("MAE", "mean absolute error, HU, lower is better", 1, False),
        Figure("told apart", "AUC of a classifier, filled against untouched patches, 0.5 is best", 2, False,
               by_case=False),
        Figure("spectrum", "distance of the spectrum up to half the Nyquist rate, octaves, lower is better", 2, False,
               by_case=False),
        Figure("texture", "liveliness (standard deviation over the true one, 1 is right)", 2, None),
        *(Figure(band_name(b), f"{band_name(b)} of the Nyquist rate over the true one (1 is right)", 2, None, True,
                 by_case=False) for b in BANDS),
    ),
    "anomaly": (
        Figure("AUROC", "voxel AUROC, higher is better", 3, True),
        Figure("AP", "voxel average precision, higher is better", 3, True),
        Figure("AUROC30", "voxel AUROC up to a false positive rate of 0.3, higher is better", 3, True, by_case=False),
        Figure("AUPRO30", "area under the overlap of lesions up to a false positive rate of 0.3, higher is better", 3,
               True, by_case=False),
        Figure("found 4", "share of a scan's lesions among its first 4 findings, higher is better", 2, True),
        Figure("prevalence", "average precision of chance (share of lesion voxels)", 4, None),
    ),
    "translate": (
        Figure("MAE", "CT from MR: mean absolute error in the body, HU, lower is better", 1, False),
        Figure("bone Dice", "overlap of what exceeds 150 HU (Dice), higher is better", 2, True),
        Figure("NMI", "mutual information with the MR, over that of the true CT", 3, True),
        Figure("covered", "share of voxels in their 90 % interval (0.9 is right)", 3, None),
        Figure("MR MAE", "MR from CT: mean absolute error in the body, units of fat, lower is better", 3, False),
    ),
    "radiograph": (
        Figure("error", "mean error of line integrals, % of their mean, lower is better", 3, False),
        Figure("correlation", "correlation with sums in fine steps, higher is better", 5, True),
    ),
    "describe": (
        Figure("region", "region right, higher is better", 2, True),
        Figure("thickness", "class of the slice thickness right, higher is better", 2, True),
        Figure("written", "facts that are written", 0, None),
    ),
    "synthesize": (
        Figure("MMD", "discrepancy of windows (squared MMD), lower is better", 3, False),
        Figure("precision", "share of windows like real ones, higher is better", 2, True),
        Figure("recall", "share of real windows that are covered, higher is better", 2, True),
        Figure("FID", "Frechet distance of windows, lower is better", 2, False),
        Figure("random FID", "Frechet distance in random features, lower is better", 2, False),
        Figure("random MMD", "squared MMD in random features, lower is better", 3, False),
        Figure("nearest", "correlation with the nearest reference window, mean", 3, None),
        Figure("nearest, highest", "the same, highest", 3, None),
    ),
}  # fmt: skip
HIGHER_IS_BETTER = {
    (task, figure.name): figure.higher_is_better
    for task, figures in FIGURES.items()
    for figure in figures
    if figure.higher_is_better is not None
}
"""(task, figure) of every merit."""


def is_part(task: str, group: str) -> bool:
    """Sizes and contrasts of lesions, kinds and levels of noise are parts of a question; sizes of spheres are not."""
    return (task == "anomaly" and not group.endswith("lesions")) or (task == "denoise" and bool(group))


def summary(rows: list[Row], model: str | None = None) -> dict[str, Any]:
    """Task -> group -> figure -> per-case values, mean with interval, paired wins of the model."""
    tables: dict[str, Any] = {}
    for task in _in_order(row.task for row in rows):
        tables[task] = {}
        for group in _in_order(row.group for row in rows if row.task == task):
            part = [row for row in rows if row.task == task and row.group == group]
            known = [f for f in FIGURES[task] if any(f.name in row.values for row in part)]
            own = OWN if any(row.method == OWN for row in part) else model
            tables[task][group] = {f.name: _table(part, f, own) for f in known}
            tables[task][group]["seconds"] = _mean_seconds(part)
            refused = {
                m: [r.case for r in part if r.method == m and "refused" in r.details]
                for m in _in_order(r.method for r in part)
            }
            if any(refused.values()):
                tables[task][group]["refused"] = {m: cases for m, cases in refused.items() if cases}
            if any("best" in row.details for row in part):
                tables[task][group]["detection"] = _detection(part)
            if any("scores" in row.details for row in part):
                tables[task][group]["pooled"] = _pooled(part)
            if any("seam" in row.details for row in part):
                tables[task][group]["seams"] = _seams([row for row in part if "seam" in row.details])
    return tables


def add_told_apart(rows: list[Row]) -> None:
    """Put ``told apart`` into the values of inpainting: the classifier of a case's patient, once all cases are there.

    Where a patient has several cases all of them have its figure. 0.5 is best; a classifier that is wrong more often
    has seen nothing either, so that less counts as 0.5.
    """
    described = [row for row in rows if "patches" in row.details]
    for group, method in dict.fromkeys((row.group, row.method) for row in described):
        part = [row for row in described if (row.group, row.method) == (group, method)]
        filled, untouched = ([np.array(r.details["patches"][kind]) for r in part] for kind in ("filled", "untouched"))
        areas = told_apart(filled, untouched, [row.patient for row in part])
        for row in part:
            if np.isfinite(areas[row.patient]):
                row.values["told apart"] = max(areas[row.patient], 0.5)


def _table(rows: list[Row], figure: Figure, model: str | None) -> dict[str, Any]:
    """One figure of one group: cases x methods; methods without it are left out."""
    known = [row for row in rows if figure.name in row.values]
    methods, cases = _in_order(r.method for r in known), _in_order(r.case for r in rows)
    patients = {r.case: r.patient for r in rows}
    at = {(r.case, r.method): r.values[figure.name] for r in known}
    columns = {m: [at.get((c, m), float("nan")) for c in cases] for m in methods}
    table: dict[str, Any] = {
        "cases": cases,
        "values": columns,
        "mean": {m: asdict(mean_of(v, [patients[c] for c in cases], figure.ratio)) for m, v in columns.items()},
    }
    if figure.higher_is_better is not None and model in columns:
        others = {m: wins(columns[model], columns[m], figure.higher_is_better) for m in methods if m != model}
        table["wins"] = {m: won for m, won in others.items() if won[1]}
        table["wins_of"] = model
    return table


def mean_of(values: list[float], patients: list[str], ratio: bool) -> Interval:
    """Mean over cases with its interval, geometric for a ratio."""
    if not ratio:
        return bootstrap(values, patients)
    interval = bootstrap([float(np.log(v)) if v > 0 else float("nan") for v in values], patients)
    mean, low, high = (float(np.exp(v)) for v in (interval.mean, interval.low, interval.high))
    return Interval(mean, low, high, interval.count)


def _detection(rows: list[Row]) -> dict[str, Any]:
    """Sensitivity at false findings a case, and among the first findings of a scan, method by method."""
    methods = {m: [r for r in rows if r.method == m and "best" in r.details] for m in _in_order(r.method for r in rows)}
    methods = {m: part for m, part in methods.items() if part}
    detection = {
        m: sensitivity([r.details["false"] for r in part], [r.details["best"] for r in part])
        for m, part in methods.items()
    }
    first = next(iter(methods.values()))
    return {"sensitivity": detection, "lesions": sum(len(r.details["best"]) for r in first), **_first(methods)}


def _first(methods: dict[str, list[Row]]) -> dict[str, Any]:
    """``first``: list of findings -> size of lesions -> number of findings -> share; ``listed``: mean length."""
    shares: dict[str, Any] = {}
    lengths = {}
    for method, part in methods.items():
        lists = {method: "ranks"}
        if "listed ranks" in part[0].details:
            lists[f"{method}, its own list"] = "listed ranks"
            lengths[method] = sum(r.details["listed"] for r in part) / len(part)
        sizes, patients = [r.details["diameters"] for r in part], [r.patient for r in part]
        for name, key in lists.items():
            ranks = [r.details[key] for r in part]
            shares[name] = {
                words: {n: asdict(i) for n, i in among_first(ranks, sizes, patients, least).items()}
                for words, least in (("all", 0.0), (f"{LARGE_MM:g} mm or more", LARGE_MM))
            }
    return {"first": shares, "listed": lengths}


def _pooled(rows: list[Row]) -> dict[str, Any]:
    """AUROC over the voxels of all cases together, each voxel counting the same."""
    return {
        method: {
            name: asdict(_pooled_areas([r for r in rows if r.method == method and "scores" in r.details], limit))
            for name, limit in (("AUROC", 1.0), ("AUROC30", EARLY))
        }
        for method in _in_order(r.method for r in rows)
    }


def _pooled_areas(rows: list[Row], limit: float) -> Interval:
    """With the interval from drawing patients."""
    patients = _in_order(r.patient for r in rows)
    draws = np.random.default_rng(0).integers(0, max(len(patients), 1), (DRAWS, len(patients)))
    mean = _area(rows, np.ones(len(rows)), limit)
    owner = np.array([patients.index(r.patient) for r in rows], dtype=int)
    drawn = [_area(rows, np.bincount(d, minlength=len(patients))[owner], limit) for d in draws] if rows else []
    known = [v for v in drawn if np.isfinite(v)]
    low, high = np.percentile(known, [2.5, 97.5]) if known else (float("nan"), float("nan"))
    return Interval(mean, float(low), float(high), len(rows))


def _area(rows: list[Row], times: np.ndarray, limit: float) -> float:
    """From the scores that rows keep; a case that is drawn twice counts twice."""

    def joined(kind: str, place: int) -> tuple[np.ndarray, np.ndarray]:
        scores = [np.asarray(r.details["scores"][kind], dtype=np.float64) for r in rows]
        counts = [
            t * r.details["scores"]["voxels"][place] / max(s.size, 1)
            for t, s, r in zip(times, scores, rows, strict=True)
        ]
        weights = np.repeat(counts, [s.size for s in scores])
        values = np.concatenate([np.zeros(0), *scores])
        return values[weights > 0], weights[weights > 0]

    (normal, heavy), (lesion, weights) = joined("normal", 0), joined("lesion", 1)
    if not (normal.size and lesion.size):
        return float("nan")
    order = np.argsort(normal)
    return float(np.average(areas(*false_positive_rates(normal[order], lesion, heavy[order]), limit), weights=weights))


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
