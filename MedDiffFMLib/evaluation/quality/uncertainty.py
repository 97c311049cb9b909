"""Calibration of a segmentation's uncertainty: reliability, errors among its most doubtful voxels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...core.atomic_files import atomic_path

BINS = 10
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


class Reliability(NamedTuple):
    """Voxels by what was predicted of them; (bins,) each.

    Attributes:
        voxels: how many lie in the bin.
        predicted, observed: their mean probability, and the share that is inside indeed; NaN in an empty bin.
    """

    voxels: np.ndarray
    predicted: np.ndarray
    observed: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of the two, each bin by its voxels."""
        return float(np.nansum(self.voxels * np.abs(self.predicted - self.observed)) / max(self.voxels.sum(), 1))


def reliability(probability: np.ndarray, truth: np.ndarray, bins: int = BINS) -> Reliability:
    """Reliability curve of a class' probabilities.

    Args:
        probability: of any shape, 0 to 1.
        truth: of the same shape, bool.
    """
    place = np.minimum((probability * bins).astype(int), bins - 1).ravel()
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        predicted = np.bincount(place, probability.ravel(), bins) / count
        observed = np.bincount(place, truth.ravel().astype(float), bins) / count
    return Reliability(count, predicted, observed)


def errors_found(uncertainty: np.ndarray, wrong: np.ndarray, share: float = 0.1) -> float:
    """Share of the wrong voxels that are among the most uncertain ones; NaN where nothing is wrong.

    Where voxels are equally uncertain, some of them belong to the ``share``: then the errors among them count by the
    same part, as if they were chosen by chance.

    Args:
        uncertainty: of any shape; only its order counts.
        wrong: of the same shape, bool.
        share: of all voxels.
    """
    if not wrong.any():
        return float("nan")
    values, number = np.unique(uncertainty.ravel(), return_inverse=True)
    size = np.bincount(number, minlength=len(values))[::-1]
    errors = np.bincount(number, wrong.ravel().astype(float), len(values))[::-1]
    left = share * uncertainty.size - np.concatenate([[0], np.cumsum(size)[:-1]])
    return float((errors * np.clip(left / size, 0, 1)).sum() / errors.sum())


def draw_calibration(
    path: Path, curves: Mapping[str, Reliability], coverage: Mapping[str, Sequence[float]], title: str
) -> None:
    """Picture: reliability curves, and errors found against the share of voxels looked at.

    Args:
        curves: by name of the method.
        coverage: for each method what :func:`errors_found` says of each of SHARES.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasAgg(canvas)
    canvas.suptitle(title)
    left, right = canvas.subplots(1, 2)
    left.plot([0, 1], [0, 1], "--", color="gray", linewidth=1)
    for name, curve in curves.items():
        left.plot(curve.predicted, curve.observed, "o-", label=f"{name}, error {curve.error:.3f}")
    left.set(xlabel="predicted probability", ylabel="share inside", xlim=(0, 1), ylim=(0, 1))
    right.plot(SHARES, SHARES, "--", color="gray", linewidth=1, label="by chance")
    for name, line in coverage.items():
        right.plot(SHARES, line, "o-", label=name)
    right.set(
        xlabel="most uncertain share of the voxels", ylabel="share of the errors in it", xscale="log", ylim=(0, 1)
    )
    for panel in (left, right):
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(fontsize=8, frameon=False)
    with atomic_path(path, overwrite=True) as temporary:
        canvas.savefig(temporary, dpi=120, format="png")
