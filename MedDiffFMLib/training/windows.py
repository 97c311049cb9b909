"""Training windows: multi-level integrated sampling from prepared cases (arXiv 2410.15432, 1.2).

A window is a 64^3 view of a box of the body: the whole body box, a box of double size, or a native box. Half of the
native boxes are cut from the scanner's own grid without any resampling, so that the prior also knows anisotropic
voxels and unsmoothed texture. Voxel size and position are part of the condition.

Each window serves one purpose, which decides about levels and noise: "generate" learns whole images at any noise,
"fill" the content of holes with known surroundings, "denoise" to remove scanner noise on voxels like a scanner's.

Cases whose voxels were resampled or smoothed (``Case.native`` is false) are no teachers of noise and texture: nothing
is cut from their grid, and their boxes are never finer in the plane than their own pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..datasets.prepared_cases import Case
from ..imaging.resampling import resample_box
from ..inference.window_plan import reflected_range
from .holes import Hole, draw_hole

LEVELS = ("whole", "double", "native")
PURPOSES = ("generate", "fill", "denoise")
FILL_LEVELS = {"whole": 1, "double": 3, "native": 6}
"""Frequencies with which levels show a hole: small holes in fine voxels are what tasks fill most."""
TISSUE_SHOWN = {"generate": 1.0, "fill": 0.6, "denoise": 0.0}
"""Factor on how often tissue classes are shown. They are made from the image: to a network that removes noise they
would give away the answer, and inside a hole a task seldom knows them."""
WHOLE_BODY_SHARE = 1 / 3
"""Share of whole bodies shown as one, with windows of all levels; else one of its regions is, as if cut out."""
BODY_HU, BODY_SHARE = -500.0, 0.1
"""A window is used where more than this share of its voxels is denser."""


@dataclass(frozen=True)
class WindowConfig:
    """Settings by which windows are drawn.

    Attributes:
        size: window edge in voxels.
        spacing: working grid in mm; a native box has this spacing, a double box twice as much.
        zoom: largest factor by which the spacing is varied, both ways.
        acquisition_share: share of native boxes that keep the scanner's own voxels.
        drop_region, drop_position, drop_anatomy: probability of hiding that condition.
        drop_tissue: probability of hiding the tissue classes where whole images are learned; see TISSUE_SHOWN.
        fill_share: share of windows with a hole, around which the network is given the known voxels.
        denoise_share: share of windows for learning to remove scanner noise; always near the scanner's own voxels.
        levels: which of "whole", "double", "native" are drawn, equally often where there is no hole.
    """

    size: int = 64
    spacing: float = 1.5
    zoom: float = 1.4
    acquisition_share: float = 0.5
    drop_region: float = 0.15
    drop_position: float = 0.15
    drop_anatomy: float = 0.5
    drop_tissue: float = 0.5
    fill_share: float = 0.35
    denoise_share: float = 0.35
    levels: tuple[str, ...] = LEVELS


@dataclass(frozen=True)
class View:
    """Places of a window's voxels in a case; nothing is read yet.

    Attributes:
        level: number of the case's level that is looked at.
        index: three lines (size,) of the window's voxels along (k, j, i), in units of ``step``; whole numbers, and
            no others, where the scanner's own grid is cut, which may be reflected.
        start, step: (3,) place of index 0 and distance between neighbors, in the level's voxels.
        spacing: (3,) mm.
        coordinates: (3, size) in the body box.
        nearest: three lines (size,) of the level's voxels that lie nearest.
    """

    level: int
    index: tuple[np.ndarray, np.ndarray, np.ndarray]
    start: np.ndarray
    step: np.ndarray
    spacing: np.ndarray
    coordinates: np.ndarray
    nearest: tuple[np.ndarray, np.ndarray, np.ndarray]

    @property
    def is_crop(self) -> bool:
        """Whether the window's voxels are voxels of the level."""
        return bool((self.step == 1).all() and (self.start == 0).all())

    def positions(self) -> np.ndarray:
        """(3, size) place of the window's voxels in the level's voxels."""
        return np.stack([s + t * line for s, t, line in zip(self.start, self.step, self.index, strict=True)])

    def voxels(self, stored: np.ndarray) -> np.ndarray:
        """(size, size, size) float32 HU out of the level's."""
        if self.is_crop:
            return np.asarray(stored[np.ix_(*self.index)], dtype=np.float32)
        first, count = [int(line.min()) for line in self.index], [int(np.ptp(line)) + 1 for line in self.index]
        box = resample_box(stored, self.start + np.array(first) * self.step, self.step, (count[0], count[1], count[2]))
        if count == [len(line) for line in self.index]:
            return box
        return box[np.ix_(*(line - f for line, f in zip(self.index, first, strict=True)))]

    def labels(self, stored: np.ndarray | None) -> np.ndarray | None:
        """(size, size, size) labels out of the level's."""
        return None if stored is None else np.asarray(stored[np.ix_(*self.nearest)])


@dataclass(frozen=True)
class WindowPlan:
    """All that was drawn for a window.

    Attributes:
        case: the case or the part of it that is shown.
        view: where its voxels lie.
        level, purpose: see :data:`LEVELS`, :data:`PURPOSES`.
        region: class index, None where it is hidden.
        position, anatomy, tissue: whether the network is given them.
        hole: what is hidden, None for nothing.
    """

    case: Case
    view: View
    level: str
    purpose: str
    region: int | None
    position: bool
    anatomy: bool
    tissue: bool
    hole: Hole | None


def draw_purpose(config: WindowConfig, rng: np.random.Generator) -> str:
    """Purpose of a window, drawn by the configured shares."""
    shares = (1 - config.fill_share - config.denoise_share, config.fill_share, config.denoise_share)
    return str(rng.choice(PURPOSES, p=shares))


def draw_window(
    case: Case, config: WindowConfig, rng: np.random.Generator, purpose: str | None = None
) -> dict[str, Any]:
    """One random window of a case, for a purpose or for one that is drawn.

    Returns:
        dict with ``voxels`` (size, size, size) float32 HU, ``spacing`` (3,) mm, ``coordinates`` (3, size) in the body
        box, ``region`` class index, ``anatomy`` and ``tissue`` (size, size, size) uint8 or None, ``hole`` bool of that
        shape or None, ``level``, ``purpose``. Order (k, j, i).
    """
    seen: list[np.ndarray] = []

    def holds_body(shown: Case, view: View) -> bool:
        seen[:] = [view.voxels(shown.levels[view.level].voxels)]
        return bool((seen[0] > BODY_HU).mean() > BODY_SHARE)

    plan = plan_window(case, config, rng, holds_body, purpose)
    view = plan.view
    return {
        "voxels": seen[0],
        "spacing": view.spacing,
        "coordinates": view.coordinates if plan.position else None,
        "anatomy": view.labels(plan.case.levels[view.level].anatomy) if plan.anatomy else None,
        "tissue": view.labels(plan.case.levels[view.level].tissue) if plan.tissue else None,
        "level": plan.level,
        "purpose": plan.purpose,
        "region": plan.region,
        "hole": None if plan.hole is None else plan.hole.mask((config.size,) * 3),
    }


def plan_window(
    case: Case,
    config: WindowConfig,
    rng: np.random.Generator,
    holds_body: Callable[[Case, View], bool],
    purpose: str | None = None,
) -> WindowPlan:
    """Everything about a random window but its voxels.

    Args:
        holds_body: whether a view shows enough of the body; asked for each one that is drawn.
        purpose: one of :data:`PURPOSES`; drawn where it is not given.
    """
    purpose = purpose or draw_purpose(config, rng)
    case = _shown_part(case, rng)
    for _ in range(20):
        level = "native" if purpose == "denoise" else str(rng.choice(config.levels, p=_level_shares(config, purpose)))
        share = 1.0 if purpose == "denoise" else config.acquisition_share if case.native else 0.0
        own = level == "native" and rng.random() < share
        if own:
            step = _scanner_step(case, rng) if purpose == "denoise" else np.ones(3)
            view = _acquisition_view(case, config, step, rng)
        else:
            view = _box_view(case, config, level, rng)
        # Windows of pure air or table teach nothing; one in twenty draws may still be poor.
        if holds_body(case, view):
            break
    region = case.region_of(view.coordinates) if rng.random() >= config.drop_region else None
    position = rng.random() >= config.drop_position
    anatomy = rng.random() >= config.drop_anatomy
    tissue = rng.random() < (1 - config.drop_tissue) * TISSUE_SHOWN[purpose]
    hole = draw_hole((config.size,) * 3, rng) if purpose == "fill" else None
    return WindowPlan(case, view, level, purpose, region, position, anatomy, tissue, hole)


def _shown_part(case: Case, rng: np.random.Generator) -> Case:
    """The case, or one of the regions that a whole body was cut into, the taller ones more often."""
    if not case.parts or rng.random() < WHOLE_BODY_SHARE:
        return case
    heights = np.array([part.body_box[1][0] - part.body_box[0][0] for part in case.parts])
    return case.parts[rng.choice(len(case.parts), p=heights / heights.sum())]


def _level_shares(config: WindowConfig, purpose: str) -> np.ndarray:
    """Probability of each of the configured levels."""
    weights = np.array([FILL_LEVELS[level] if purpose == "fill" else 1.0 for level in config.levels], dtype=float)
    return weights / weights.sum()


def _scanner_step(case: Case, rng: np.random.Generator) -> np.ndarray:
    """Voxel edges (k, j, i) over the case's own, so that few scans show many scanners: finer or wider pixels half of
    the time, and slices that are thicker where the case's own are thin."""
    step = np.ones(3)
    if rng.random() < 0.5:
        step[1:] = np.exp(rng.uniform(np.log(0.65), np.log(1.6)))
    if case.levels[0].spacing[0] <= 3 and rng.random() < 0.5:
        step[0] = rng.uniform(1, 6 / case.levels[0].spacing[0])
    return step


def _box_view(case: Case, config: WindowConfig, level: str, rng: np.random.Generator) -> View:
    """A box with its own spacing per axis, resampled to the window."""
    low, high = case.body_box
    extent = high - low
    if level == "whole":
        size = extent * rng.uniform(0.95, 1.15, 3)
        start = low - (size - extent) * rng.uniform(0, 1, 3)
    else:
        zoom = config.zoom ** rng.uniform(-1, 1)
        factor = 2.0 if level == "double" else 1.0
        edge = np.full(3, config.spacing * factor * zoom)
        if not case.native:
            edge[1:] = np.maximum(edge[1:], case.levels[0].spacing[1:])
        size = np.minimum(config.size * edge, np.maximum(extent, 16.0))
        start = low + (extent - size) * rng.uniform(-0.05, 1.05, 3)
    spacing = size / config.size
    start = start + spacing / 2
    number = case.level_for(spacing)
    source = case.levels[number]
    first, step = (start - source.origin) / source.spacing, spacing / source.spacing
    line = np.arange(config.size)
    k, j, i = (
        np.clip(np.rint(f + s * line), 0, n - 1).astype(int) for f, s, n in zip(first, step, source.shape, strict=True)
    )
    coordinates = case.coordinates(start, spacing, (config.size,) * 3)
    return View(number, (line, line, line), first, step, spacing, coordinates, (k, j, i))


def _acquisition_view(case: Case, config: WindowConfig, step: np.ndarray, rng: np.random.Generator) -> View:
    """A crop of the scanner's own grid, or of one with ``step`` times its voxel edges (k, j, i).

    Axes shorter than the window are continued by reflection.
    """
    source = case.levels[0]
    shape = np.maximum(np.floor((np.array(source.shape) - 1) / step + 1e-6).astype(int) + 1, 1)
    spacing = source.spacing * step
    low, high = ((edge - source.origin) / spacing for edge in case.body_box)
    first = np.clip(low + (high - low - config.size) * rng.uniform(0, 1, 3), 0, np.maximum(shape - config.size, 0))
    index = [reflected_range(int(first[a]), config.size, int(shape[a])) for a in range(3)]
    coordinates = np.stack([case.normalized(source.origin[a] + index[a] * spacing[a], a) for a in range(3)])
    nearest = [np.minimum(np.rint(index[a] * step[a]).astype(int), source.shape[a] - 1) for a in range(3)]
    lines = (index[0], index[1], index[2])
    return View(0, lines, np.zeros(3), step, spacing, coordinates, (nearest[0], nearest[1], nearest[2]))
