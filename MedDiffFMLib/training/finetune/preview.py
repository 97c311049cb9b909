"""Preview picture of validation cases during training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...core.atomic_files import atomic_path

FILE = "preview.png"
ROWS = 2
WIDTH_INCHES, DPI = 4.0, 100
"""Fits a panel of 430 pixels."""


@dataclass(frozen=True)
class Slice:
    """One slice of a row.

    Attributes:
        title: what it shows.
        image: (rows, columns) HU, first row at the top, first column at the viewer's left.
        outlines: masks of the same shape with the color of their edge.
        aspect: height of a pixel over its width.
    """

    title: str
    image: np.ndarray
    outlines: tuple[tuple[np.ndarray, str], ...] = ()
    aspect: float = 1.0


@dataclass
class Preview:
    """Collects slices while a validation runs; the first rows are drawn.

    Attributes:
        rows: slices of one case or window each, all with the same gray scale.
    """

    rows: list[Sequence[Slice]] = field(default_factory=list)

    @property
    def full(self) -> bool:
        """Whether another row would not be drawn."""
        return len(self.rows) >= ROWS

    def add(self, *slices: Slice) -> None:
        """One more row."""
        if not self.full:
            self.rows.append(slices)

    def draw(self, folder: Path, heading: str) -> None:
        """Write ``preview.png``, if there is anything to show and matplotlib to draw it with.

        Raises:
            OutputError: it cannot be written.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError:
            return
        if not self.rows:
            return
        columns = max(len(row) for row in self.rows)
        figure = Figure(figsize=(WIDTH_INCHES, 0.3 + len(self.rows) * (WIDTH_INCHES / columns + 0.2)), dpi=DPI)
        figure.suptitle(heading, fontsize=8)
        axes = figure.subplots(len(self.rows), columns, squeeze=False)
        for row, places in zip(self.rows, axes, strict=True):
            low, high = _window(row)
            for view, place in zip(row, places, strict=False):
                _show(place, view, low, high)
        for place in axes.flat:
            place.set_axis_off()
        figure.subplots_adjust(
            left=0.005, right=0.995, bottom=0.005, top=1 - 0.45 / figure.get_figheight(), wspace=0.02
        )
        with atomic_path(folder / FILE, overwrite=True) as temporary:
            figure.savefig(temporary, format="png")


def _show(axes: Any, view: Slice, low: float, high: float) -> None:
    axes.imshow(view.image, cmap="gray", vmin=low, vmax=high, aspect=view.aspect, interpolation="nearest")
    for mask, color in view.outlines:
        if mask.any() and not mask.all():
            axes.contour(mask.astype(float), levels=[0.5], colors=[color], linewidths=1.0)
    axes.set_title(view.title, fontsize=7, pad=2)


def _window(row: Sequence[Slice]) -> tuple[float, float]:
    """Gray scale that the last slice, the truth, fills; at least 200 HU wide, or noise would look like structure."""
    low, high = (float(value) for value in np.percentile(row[-1].image, [1, 99]))
    middle, half = (low + high) / 2, max((high - low) / 2, 100.0)
    return middle - half, middle + half
