"""One-page figure of the demo: radiological orientation, named HU windows, scale bars."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..core.atomic_files import atomic_path
from ..imaging.grid import to_grid, working_grid
from ..imaging.volume import Volume

LUNG_WINDOW = (-1350.0, 150.0)
SOFT_WINDOW = (-160.0, 240.0)
PLANES = ("axial", "coronal", "sagittal")


def draw_demo(
    path: Path, volume: Volume, nodule: np.ndarray, results: dict[str, np.ndarray], summary: dict[str, Any]
) -> None:
    """Draw the figure for the demo.

    Args:
        path: PNG to write.
        volume: the CT.
        nodule: bool mask of the readers' outline.
        results: ``anomaly``, ``denoised``, ``noise``, ``inpainted`` on the CT's grid.
        summary: what ``run_demo`` found.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    view = _View(volume, nodule)
    figure = Figure(figsize=(17, 10.6), facecolor="black")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        3,
        6,
        left=0.035,
        right=0.995,
        top=0.885,
        bottom=0.085,
        wspace=0.03,
        hspace=0.03,
        height_ratios=view.heights(),
    )
    images: list[Any] = []
    for row, plane in enumerate(PLANES):
        for column, draw in enumerate(_columns(view, results, summary)):
            axes = figure.add_subplot(grid[row, column])
            images.append(draw(axes, plane))
            axes.set_anchor("N")
            if row == 0:
                axes.set_title(_TITLES[column], color="white", fontsize=11, pad=6)
            view.annotate(axes, plane, first=column == 0, wide=column < 4)
    for column, label in _BARS.items():
        _color_bar(figure, grid, column, images[column], label)
    _heading(figure, summary)
    with atomic_path(path, overwrite=True) as temporary:
        figure.savefig(temporary, dpi=110, facecolor="black", format="png")


_TITLES = (
    "CT (lung window)",
    "Anomaly map over CT",
    "Denoised (soft-tissue window)",
    "Removed noise",
    "Nodule, before",
    "Filled with healthy tissue",
)
_BARS = {0: "HU", 1: "z-score", 2: "HU", 3: "HU removed", 4: "HU", 5: "HU"}


def _columns(view: _View, results: dict[str, np.ndarray], summary: dict[str, Any]) -> list[Any]:
    threshold = summary["threshold_z"]
    noise_window = (-3 * summary["noise_hu"], 3 * summary["noise_hu"])

    def heat(axes: Any, plane: str) -> Any:
        view.show(axes, plane, view.volume.voxels, LUNG_WINDOW)
        image = view.show(axes, plane, results["anomaly"], (0.0, 3 * threshold), "inferno", below=threshold)
        view.outline(axes, plane)
        return image

    def before(axes: Any, plane: str) -> Any:
        return view.show(axes, plane, view.volume.voxels, LUNG_WINDOW, zoom=True)

    def after(axes: Any, plane: str) -> Any:
        return view.show(axes, plane, results["inpainted"], LUNG_WINDOW, zoom=True)

    return [
        lambda axes, plane: view.show(axes, plane, view.volume.voxels, LUNG_WINDOW),
        heat,
        lambda axes, plane: view.show(axes, plane, results["denoised"], SOFT_WINDOW),
        lambda axes, plane: view.show(axes, plane, results["noise"], noise_window),
        before,
        after,
    ]


class _View:
    """Slices through the nodule's middle in radiological orientation: the patient's right is on the left."""

    def __init__(self, volume: Volume, nodule: np.ndarray) -> None:
        self.volume = volume
        self.grid = working_grid(volume, None)
        self.mask = self._turn(nodule.astype(np.float32)) > 0.5
        self.center = [int(round(axis.mean())) for axis in np.nonzero(self.mask)]
        self.spacing = self.grid.spacing[::-1]

    def _turn(self, array: np.ndarray) -> np.ndarray:
        return to_grid(Volume(array, self.volume.ijk_to_ras, "mask"), self.grid)

    def slice(self, array: np.ndarray, plane: str) -> tuple[np.ndarray, float, float]:
        """2-D slice with rows downwards, and the size of its pixels (row, column) in mm."""
        k, j, i = self.center
        sk, sj, si = self.spacing
        if plane == "axial":
            return array[k], sj, si
        if plane == "coronal":
            return array[::-1, j], sk, si
        return array[::-1, :, i], sk, sj

    def heights(self) -> list[float]:
        """Height of each row of pictures, in proportion to the slices."""
        k, j, i = (n * s for n, s in zip(self.mask.shape, self.spacing, strict=True))
        return [j / i, k / i, k / max(j, i) * 0.9]

    def show(
        self,
        axes: Any,
        plane: str,
        array: np.ndarray,
        window: tuple[float, float],
        colors: str = "gray",
        below: float | None = None,
        zoom: bool = False,
    ) -> Any:
        """Draw one slice; values under ``below`` are transparent; ``zoom`` shows 90 mm around the nodule, outlined."""
        turned = array if array.shape != self.volume.voxels.shape else self._turn(array)
        picture, rows, columns = self.slice(turned, plane)
        shown = picture if below is None else np.ma.masked_less(picture, below)
        extent = (0, picture.shape[1] * columns, picture.shape[0] * rows, 0)
        image = axes.imshow(
            shown,
            cmap=colors,
            vmin=window[0],
            vmax=window[1],
            extent=extent,
            interpolation="bilinear" if below is None else "nearest",
            alpha=None if below is None else 0.8,
        )
        axes.set_xticks([])
        axes.set_yticks([])
        if zoom:
            outline, _, _ = self.slice(self.mask, plane)
            y, x = np.nonzero(outline)
            middle_x, middle_y = (x.mean() + 0.5) * columns, (y.mean() + 0.5) * rows
            axes.set_xlim(max(0, middle_x - 45), min(extent[1], middle_x + 45))
            axes.set_ylim(min(extent[2], middle_y + 45), max(0, middle_y - 45))
            self.outline(axes, plane)
        return image

    def outline(self, axes: Any, plane: str) -> None:
        """The readers' outline of the nodule."""
        mask, rows, columns = self.slice(self.mask, plane)
        x, y = (np.arange(mask.shape[1]) + 0.5) * columns, (np.arange(mask.shape[0]) + 0.5) * rows
        axes.contour(x, y, mask, levels=[0.5], colors="#ffd23f", linewidths=1.0)

    def annotate(self, axes: Any, plane: str, first: bool, wide: bool) -> None:
        """Orientation letters, plane name and a scale bar."""
        left, right, top, bottom = {
            "axial": ("R", "L", "A", "P"),
            "coronal": ("R", "L", "S", "I"),
            "sagittal": ("A", "P", "S", "I"),
        }[plane]
        from matplotlib.patheffects import withStroke

        edge = [withStroke(linewidth=2, foreground="black")]
        style = {"color": "#9fd3ff", "fontsize": 9, "transform": axes.transAxes, "path_effects": edge}
        axes.text(0.02, 0.5, left, va="center", **style)
        axes.text(0.98, 0.5, right, va="center", ha="right", **style)
        axes.text(0.5, 0.98, top, va="top", ha="center", **style)
        axes.text(0.5, 0.02, bottom, va="bottom", ha="center", **style)
        if first:
            axes.set_ylabel(plane, color="white", fontsize=11)
        length = 50.0 if wide else 20.0
        x0, x1 = axes.get_xlim()
        y0, y1 = axes.get_ylim()
        x = x0 + 0.06 * (x1 - x0)
        y = y0 + 0.07 * (y1 - y0)
        axes.plot(
            [x, x + length],
            [y, y],
            color="white",
            linewidth=2,
            path_effects=[withStroke(linewidth=4, foreground="black")],
        )
        label = f"{length:g} mm"
        axes.text(x, y - 0.02 * abs(y1 - y0), label, color="white", fontsize=8, va="bottom", path_effects=edge)
        axes.set_xlim(x0, x1)
        axes.set_ylim(y0, y1)


def _color_bar(figure: Any, grid: Any, column: int, image: Any, label: str) -> None:
    box = grid[2, column].get_position(figure)
    axes = figure.add_axes([box.x0 + 0.012, 0.052, box.width - 0.024, 0.014])
    bar = figure.colorbar(image, cax=axes, orientation="horizontal")
    bar.ax.locator_params(nbins=4)
    bar.set_label(label, color="white", fontsize=9, labelpad=1)
    bar.ax.tick_params(colors="white", labelsize=8)
    bar.outline.set_edgecolor("white")


def _heading(figure: Any, summary: dict[str, Any]) -> None:
    if summary["nodule_rank"]:
        verdict = (
            f"nodule is finding {summary['nodule_rank']} of {summary['findings']}, peak z {summary['nodule_peak_z']:g}"
        )
    else:
        verdict = f"nodule not among the {summary['findings']} findings, peak z {summary['nodule_peak_z']:g}"
    lines = (
        f"LIDC-IDRI-0001, lung nodule of 24.6 mm.  Anomaly map: {verdict} (threshold z > {summary['threshold_z']:g}).  "
        f"Filling: {summary['nodule_mean_hu']:.0f} HU before, {summary['filled_mean_hu']:.0f} HU after.  "
        f"Noise: {summary['noise_hu']:.1f} HU."
    )
    figure.text(0.035, 0.965, "MedDiff-FM demo", color="white", fontsize=16, weight="bold")
    figure.text(0.035, 0.935, lines, color="white", fontsize=10.5)
    figure.text(
        0.995,
        0.965,
        f"model {summary['model']['name']} {summary['model']['sha256'][:8]}   Research use only",
        color="#ffb3a7",
        fontsize=10.5,
        ha="right",
    )
