"""Loss curves as a picture."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from ..core.atomic_files import atomic_path


def draw_curves(folder: Path) -> Path:
    """``folder/curves.png`` from ``losses.csv`` and ``validation.csv``; left as it is where it is newer than both.

    Raises:
        OutputError: it cannot be written.
    """
    path, tables = folder / "curves.png", [folder / "losses.csv", folder / "validation.csv"]
    if _newer(path, tables):  # of the last validation, after the last step: to draw takes a second
        return path
    from matplotlib.figure import Figure

    losses, validation = map(read_table, tables)
    figure = Figure(figsize=(13, 4.5), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_training(left, losses)
    _draw_validation(right, validation)
    with atomic_path(path, overwrite=True) as temporary:
        figure.savefig(temporary)
    return path


def _newer(path: Path, sources: list[Path]) -> bool:
    """Whether a file was written after all that it is made from; not where a clock is too coarse to tell."""
    if not path.exists():
        return False
    made = path.stat().st_mtime_ns
    return all(made > source.stat().st_mtime_ns for source in sources if source.exists())


def read_table(path: Path) -> dict[str, np.ndarray]:
    """Columns of a CSV of numbers by name; empty where there is none. A row that a kill cut off is left out."""
    if not path.exists():
        return {}
    with open(path, newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if all(row.values())]
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]} if rows else {}


def smoothed(values: np.ndarray) -> np.ndarray:
    """Running mean over a fortieth of the run."""
    from scipy.ndimage import uniform_filter1d

    return uniform_filter1d(values, size=max(len(values) // 40, 1), mode="nearest")


def _draw_training(axes: Any, losses: dict[str, np.ndarray]) -> None:
    axes.set(xlabel="step", ylabel="training loss", title="Training")
    if losses:
        axes.plot(losses["step"], losses["loss"], color="0.8", linewidth=0.6, label="each step")
        axes.plot(losses["step"], smoothed(losses["loss"]), color="C0", label="running mean")
        _logarithmic(axes, [losses["loss"]])
        axes.legend()
    axes.grid(alpha=0.3, which="both")


def _draw_validation(axes: Any, validation: dict[str, np.ndarray]) -> None:
    """One line a figure; those by noise level run from light to dark with the noise."""
    from matplotlib import colormaps

    axes.set(xlabel="step", title="Validation")
    by_noise = [name for name in validation if name.startswith("rmse_hu_at_")]
    finer = ("even_", "detail_", "clean_", "score")  # of the same errors; too many lines for one picture
    others = [n for n in validation if n != "step" and n not in by_noise and not n.startswith(finer)]
    for n, name in enumerate(others):
        label = "in holes" if name == "rmse_hu_in_hole" else name.replace("_", " ")
        axes.plot(validation["step"], validation[name], ".--", color=f"C{n + 1}", label=label)
    for n, name in reversed(list(enumerate(by_noise))):  # from top to bottom, as the lines lie
        color = colormaps["viridis_r"]((n + 1) / (len(by_noise) + 1))
        label = f"noise of {name.removeprefix('rmse_hu_at_')} HU"
        axes.plot(validation["step"], validation[name], ".-", color=color, label=label)
    if by_noise:
        axes.set_ylabel("root mean square error in HU")
    if validation:
        _logarithmic(axes, [validation[name] for name in (*by_noise, *others)])
        axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    axes.grid(alpha=0.3, which="both")


def _logarithmic(axes: Any, lines: list[np.ndarray]) -> None:
    """A logarithmic axis with plain numbers, unless some value is not above 0."""
    from matplotlib.ticker import StrMethodFormatter

    if all(line.min() > 0 for line in lines):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(StrMethodFormatter("{x:g}"))
        axes.tick_params(axis="y", which="minor", labelsize="x-small")
