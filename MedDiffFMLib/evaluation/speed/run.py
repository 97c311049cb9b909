"""Speed comparison: implementations in alternation; medians, ratios and the report."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.atomic_files import atomic_path
from ...core.errors import InputError
from .cases import Case
from .report_page import draw, markdown
from .subprocess_runner import Child

if TYPE_CHECKING:
    from ...core.progress import CancelToken
    from .implementations import Settings

FORMAT = "meddifffm-benchmark-1"
MEDIANS = ("seconds", "cpu_seconds", "matrix_rate")
LARGEST = ("peak_bytes", "cuda_peak_bytes")


def compare(
    settings: Settings,
    cases: list[Case],
    subjects: list[str],
    folder: Path,
    *,
    repeats: int = 3,
    progress: Callable[[str], None] = lambda line: None,
    cancel: CancelToken | None = None,
) -> dict[str, Any]:
    """Measure and write ``benchmark.md``, ``benchmark.json`` and ``benchmark.png``, which are replaced after each case.

    With several repeats every subject runs once more before they are counted, so that all are warm.

    Raises:
        InputError: nothing to measure.
        Cancelled: between two runs.
    """
    if not cases or not subjects:
        raise InputError("There is nothing to measure.", "Choose at least one task and one subject.")
    children = [Child(name, settings) for name in subjects]
    report: dict[str, Any] = {"format": FORMAT, "repeats": repeats, "rows": [], **_circumstances(settings)}
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for number, case in enumerate(cases):
            figures = _measure(case, children, repeats, cancel)
            report["rows"].append(row(case, figures))
            report["subjects"] = {child.name: child.about for child in children}
            write(report, folder)
            progress(f"{number + 1} of {len(cases)}: {case.name}")
    finally:
        for child in children:
            child.close()
    return report


def _measure(
    case: Case, children: list[Child], repeats: int, cancel: CancelToken | None
) -> dict[str, list[dict[str, Any]]]:
    """Figures of each subject's runs, taken in turn; one that failed is asked no more."""
    measured: dict[str, list[dict[str, Any]]] = {child.name: [] for child in children}
    for _ in range(repeats + (repeats > 1)):
        for child in children:
            if cancel is not None:
                cancel.check()
            if not any("failed" in figures for figures in measured[child.name]):
                measured[child.name].append(child.measure(case))
    return {name: figures[1:] if len(figures) > 1 else figures for name, figures in measured.items()}


def row(case: Case, measured: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """One case: medians of each subject, and how many times the first one is faster than each other."""
    medians = {name: _median(figures) for name, figures in measured.items()}
    first, *others = medians
    faster = {
        other: {key: _cost(medians[other], key) / _cost(medians[first], key) for key in ("seconds", "cpu_seconds")}
        for other in others
        if "failed" not in medians[first] and "failed" not in medians[other]
    }
    return {"case": case.name, **case.as_dict(), "medians": medians, "faster": faster, "runs": measured}


def _cost(figures: dict[str, Any], key: str) -> float:
    """Time of a case, or of a voxel where subjects are shown windows of different sizes."""
    return max(figures[key], 1e-9) / figures.get("voxels", 1)


def _median(runs: list[dict[str, Any]]) -> dict[str, Any]:
    failed = [figures for figures in runs if "failed" in figures]
    if failed:
        return failed[0]
    median = dict(runs[-1])
    for key in MEDIANS:
        if key in median:
            median[key] = statistics.median(figures[key] for figures in runs)
    for key in LARGEST:
        values = [figures[key] for figures in runs if figures.get(key) is not None]
        if values:
            median[key] = max(values)
    median["extrapolated"] = any(figures["extrapolated"] for figures in runs)
    if "flops" in median:
        # Each run beside the matrix product that was timed right after it: other load on the machine meets both.
        shares = [figures["flops"] / figures["seconds"] / figures["matrix_rate"] for figures in runs]
        median["share_of_matrix_rate"] = statistics.median(shares)
    return median


def _circumstances(settings: Settings) -> dict[str, Any]:
    from dataclasses import asdict

    from ...core.devices import choose_device
    from ...runner.report import machine, software_versions

    return {
        "settings": asdict(settings),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(str(choose_device(settings.device))),
        "versions": software_versions(),
    }


def write(report: dict[str, Any], folder: Path) -> None:
    """The report's three files, each replaced whole."""
    with atomic_path(folder / "benchmark.json", overwrite=True) as temporary:
        temporary.write_text(json.dumps(report, indent=1), encoding="utf-8")
    draw(report, folder / "benchmark.png")
    with atomic_path(folder / "benchmark.md", overwrite=True) as temporary:
        temporary.write_text(markdown(report), encoding="utf-8")
