"""A body that nobody has: a template of another size and proportions, bent by a smooth random field.

Every point of the new body is a point of the template, so ribs stay whole, organs stay beside their neighbors and
vessels go on. Sizes vary by 6 % as a whole and by 3 % along each axis, and points by 5 mm (standard deviations), so
slowly that nothing folds: the field's lattice is eleven times as wide as its deviation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...conditioning.tissue import BONE, CONTRAST, FAT, LUNG, MUSCLE
from .expected_hu import BONE_DENSITIES, hu_table, tissue_table
from .fitted_body import WITH_LUNGS, Measures, fitted, framed, misfit

if TYPE_CHECKING:
    from ...imaging.grid import Grid
    from .templates import Template

LATTICE_MM, LATTICE_FINE = 55.0, 4
BEND_MM = 5.0
SIZE_SPREAD, AXIS_SPREAD, SPREAD_LIMIT = 0.06, 0.03, 0.12
LEAST_SCALE, MOST_SCALE = 0.75, 1.35
"""A box that asks for less shows a part of the body; one that asks for more gets no template."""
WHOLE = "whole-body"
LONGEST_MM, WHOLE_MM, LARGEST_MM = 300.0, 700.0, 950.0
"""Of the length that is shown where no size is asked for: of a region, of a whole body, and of one whose width or lungs
are asked for."""
RESTORED_MM, BESIDE_VOXELS = 1.0, 0.7
"""Scale down to which bone stays as it was given, and the softness of where it ends."""
REACH_MM = 500.0
"""Distance from the middle of the box within which bodies are bent."""
HU_SPREAD = {LUNG: 25.0, FAT: 8.0, MUSCLE: 5.0}
BONE_CONTRAST, BONE_SPREAD = 1.25, 0.08
"""Factor on what bone has beyond muscle, and how much it differs from body to body: thin shells lose about so much in
the voxels of a template and when they are bent."""
CONTRAST_SPREAD, LEAST_CONTRAST_HU = 0.15, 150.0
"""Strength of the contrast agent differs by at most this share of the template's: kidneys and liver veins of a late
phase are never as bright as the heart of an early one."""
_SLAB = 16


@dataclass(frozen=True)
class BentBody:
    """One body; the same on every grid around the same middle.

    Attributes:
        codes: (k, j, i) of the template's part.
        edges: voxel size (k, j, i) of the template in mm, scaled.
        field: (3, n, n, n) displacements in mm on a lattice around the middle.
        hu: value of every code.
        template: where it comes from.
        longest: mm along the patient that are shown; None for what is usual.
    """

    codes: np.ndarray
    edges: np.ndarray
    field: np.ndarray
    hu: np.ndarray
    template: Template
    longest: float | None = None

    @property
    def extent(self) -> tuple[float, float, float]:
        """Length of the part along (i, j, k) in mm."""
        k, j, i = (float(n * edge) for n, edge in zip(self.codes.shape, self.edges, strict=True))
        return i, j, k

    def facts(self) -> dict[str, Any]:
        """For the report."""
        return {"template": self.template.name, "credit": self.template.credit}

    def expected(self, grid: Grid) -> np.ndarray:
        """Expected HU on a grid, float32 (k, j, i).

        Shells of bone are hardly wider than a voxel of the template: interpolated linearly they lose the brightness
        that makes them bone, so that what bone has beyond muscle is interpolated by splines.
        """
        hounsfield = self.hu[self.codes]
        bone = np.where(np.isin(self.codes, tuple(BONE_DENSITIES)), hounsfield - self.hu[MUSCLE], np.float32(0))
        sharper = np.maximum(self._sample(bone, grid, 3), 0) - self._sample(bone, grid, 1)
        return self._sample(hounsfield, grid, 1) + sharper

    def tissue(self, grid: Grid) -> np.ndarray:
        """Tissue classes on a grid, uint8 (k, j, i)."""
        return self._sample(tissue_table()[self.codes], grid, 0)

    def _sample(self, image: np.ndarray, grid: Grid, order: int) -> np.ndarray:
        """Values of the bent image on a grid whose axes go left, posterior, superior around its middle."""
        from scipy.ndimage import map_coordinates

        output = np.empty(grid.shape, np.float32 if order else image.dtype)
        spacing = np.array(grid.spacing[::-1])
        middle = (np.array(grid.shape) - 1) / 2
        center, step = (np.array(self.codes.shape) - 1) / 2, LATTICE_MM / LATTICE_FINE
        for first in range(0, grid.shape[0], _SLAB):
            planes = np.arange(first, min(first + _SLAB, grid.shape[0]))
            lines = [planes, *(np.arange(n) for n in grid.shape[1:])]
            place = np.stack(
                np.meshgrid(
                    *((line - m) * s for line, m, s in zip(lines, middle, spacing, strict=True)),
                    indexing="ij", copy=False,
                )
            )  # fmt: skip
            at = place / step + (self.field.shape[1] - 1) / 2
            place += np.stack([map_coordinates(part, at, order=1, mode="nearest") for part in self.field])
            at = place / self.edges[:, None, None, None] + center[:, None, None, None]
            output[planes] = map_coordinates(image, at, output.dtype, order=order, mode="nearest")
        return output


def bent_body(
    region: str,
    size: tuple[float, float, float] | None,
    seed: int,
    contrast: bool | None = None,
    asked: Measures | None = None,
) -> BentBody | None:
    """Draw a body.

    Args:
        region: what it shows.
        size: edges (i, j, k) in mm of the box that it shall fill; None for its own.
        seed: the same gives the same body in boxes of the same size.
        contrast: whether contrast agent fills its vessels; None as the template has it. In some regions no template
            has any, and the body is without it.
        asked: what it shall measure where there is no ``size``. Of the templates that can have that, or else come
            nearest to it, one is drawn.

    Returns:
        None where no template shows the region, or none is large enough.
    """
    from .templates import of_region

    rng = np.random.default_rng(seed)
    known = of_region(region)
    known = [template for template in known if contrast and template.contrast] or known
    if size is None and asked is not None and asked != Measures():
        return _asked_body(known, region, asked, contrast, rng)
    known = [template for template in known if size is None or _fills(_part(template, region), size)]
    if not known:
        return None
    template = known[int(rng.integers(len(known)))]
    codes, edges = _part(template, region)
    scale = _scale(np.array(codes.shape) * edges, size, rng)
    return BentBody(codes, edges * scale, _field(rng), _appearance(template, contrast, rng), template)


def _asked_body(
    known: Sequence[Template], region: str, asked: Measures, contrast: bool | None, rng: np.random.Generator
) -> BentBody | None:
    """A body of the measures asked for, as near as templates come to them within the limits of scale."""
    if not known:
        return None
    if region not in WITH_LUNGS:
        asked = Measures(asked.width)
    vary, parts = _vary(rng), []
    for template in known:
        codes, edges = _part(template, region)
        if asked.lungs is None:
            codes = _middle(codes, edges, LONGEST_MM if region != WHOLE else WHOLE_MM)
        codes = framed(codes, edges)
        parts.append((codes, edges, fitted(codes, edges, asked, vary)))
    beyond = [misfit(scale, LEAST_SCALE, MOST_SCALE) for *_, scale in parts]
    fitting = [n for n, much in enumerate(beyond) if much <= min(beyond) + 1e-6]
    number = fitting[int(rng.integers(len(fitting)))]
    codes, edges, scale = parts[number]
    edges = edges * np.clip(scale, LEAST_SCALE, MOST_SCALE)
    template = known[number]
    return BentBody(codes, edges, _field(rng), _appearance(template, contrast, rng), template, LARGEST_MM)


def _middle(codes: np.ndarray, edges: np.ndarray, longest: float) -> np.ndarray:
    """The middle of a part (k, j, i) along the patient."""
    kept = min(len(codes), max(1, round(longest / edges[0])))
    first = (len(codes) - kept) // 2
    return codes[first : first + kept]


def _part(template: Template, region: str) -> tuple[np.ndarray, np.ndarray]:
    """Codes (k, j, i) of the part that shows a region, and the voxel size (k, j, i) in mm."""
    codes, edges = template.codes()
    low, high = (round(share * len(codes)) for share in template.regions[region])
    return codes[low : max(high, low + 1)], np.array(edges)


def _fills(part: tuple[np.ndarray, np.ndarray], size: tuple[float, float, float]) -> bool:
    """Whether a body need not be stretched too far to fill a box."""
    codes, edges = part
    k, j, i = np.array(size[::-1]) / (np.array(codes.shape) * edges)
    return bool(max(min(j, i), k) <= MOST_SCALE)


def with_bone(
    made: np.ndarray, given: np.ndarray, tissue: np.ndarray, spacing: tuple[float, float, float]
) -> np.ndarray:
    """The image that a prior made, with the bone that it was given: priors smooth thin shells away.

    In bone and beside it, what the prior changed on scales above :data:`RESTORED_MM` is taken back.

    Args:
        made, given: (k, j, i) HU on one grid.
        tissue: classes on that grid.
        spacing: (i, j, k) in mm.
    """
    from scipy.ndimage import binary_dilation, gaussian_filter

    widths = [RESTORED_MM / edge for edge in reversed(spacing)]
    margin = 2 + round(4 * max(*widths, BESIDE_VOXELS))  # the filters see four deviations far
    slabs = []
    for first in range(0, len(made), _SLAB):
        start, end = max(first - margin, 0), first + _SLAB + margin
        share = gaussian_filter(binary_dilation(tissue[start:end] == BONE).astype(np.float32), BESIDE_VOXELS)
        change = share * gaussian_filter(given[start:end] - made[start:end], widths)
        slabs.append(made[first : first + _SLAB] + change[first - start : first - start + _SLAB])
    return np.concatenate(slabs)


def own_size(body: BentBody, region: str) -> tuple[float, float, float]:
    """Edges (i, j, k) in mm, whole, of the box in which a body is shown where none is asked for."""
    i, j, k = body.extent
    longest = body.longest or (WHOLE_MM if region == WHOLE else LONGEST_MM)
    return float(round(i)), float(round(j)), float(round(min(k, longest)))


def _scale(extent: np.ndarray, size: tuple[float, float, float] | None, rng: np.random.Generator) -> np.ndarray:
    """Factors (k, j, i) on a template of this extent."""
    vary = _vary(rng)
    if size is None:
        return vary
    k, j, i = np.array(size[::-1]) / extent
    across = max(min(j, i) * (1 - abs(vary[0] - 1) / 2), LEAST_SCALE)
    return np.array([max(across, k), across, across])


def _vary(rng: np.random.Generator) -> np.ndarray:
    """Factors (k, j, i) of a random size and random proportions."""
    return 1 + np.clip(rng.normal(0, SIZE_SPREAD) + rng.normal(0, AXIS_SPREAD, 3), -SPREAD_LIMIT, SPREAD_LIMIT)


def _field(rng: np.random.Generator) -> np.ndarray:
    """Displacements (3, n, n, n) in mm, float32, on a lattice fine enough for linear interpolation."""
    from scipy.ndimage import zoom

    knots = 2 * round(REACH_MM / LATTICE_MM) + 1
    fine = (knots - 1) * LATTICE_FINE + 1
    wild = rng.normal(0, BEND_MM, (3, knots, knots, knots))
    return np.stack([zoom(part, fine / knots, order=3, mode="nearest").astype(np.float32) for part in wild])


def _appearance(template: Template, contrast: bool | None, rng: np.random.Generator) -> np.ndarray:
    """HU of every code, as another patient might have them."""
    table = hu_table(template.hu)
    for code, spread in HU_SPREAD.items():
        table[code] += np.float32(rng.normal(0, spread))
    bone = list(BONE_DENSITIES)
    table[bone] = table[MUSCLE] + np.float32(rng.normal(BONE_CONTRAST, BONE_SPREAD)) * (table[bone] - table[MUSCLE])
    if template.contrast:
        own = table[CONTRAST] * rng.uniform(1 - CONTRAST_SPREAD, 1 + CONTRAST_SPREAD)
        table[CONTRAST] = table[MUSCLE] if contrast is False else max(own, LEAST_CONTRAST_HU)
    return table
