"""Cascade of a synthesis: its grids, coarsest first, and the noise at each handover."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...imaging.grid import Grid, same_box

if TYPE_CHECKING:
    import torch

    from .spec import Synthesize

WIDEST_MM = 4.2
"""Coarsest spacing of the grids between: training knew boxes of 3 mm, zoomed by up to 1.4."""

REFINE_MM = 3.0
"""Voxels on which an expected image is first made real: coarse enough that the prior sees organs whole."""

LEAST_RATIO = 1.4
"""A grid between two others must be coarser than the finer one, and finer than the coarser one, by this."""

DETAIL = 0.04
"""Noise that hides what a coarse image lacks, see :func:`handover_sigma`. The amplitude spectrum of CT falls with the
square of the frequency, sqrt(S(f)) = 0.010 / f^2 mm^1.5 / mm^2 in units of 1000 HU, as sharp edges in three dimensions
do: measured on 24 training CTs, chest, 0.04 to 0.2 per mm. How much of it a prior uses well depends on its strength,
hence the factor ``detail``."""


@dataclass(frozen=True)
class CascadeStage:
    """One sampling run.

    Attributes:
        grid: where its voxels lie.
        sigma: noise level at which it starts.
        steps: steps of the sampler.
        last: whether its image is the result.
    """

    grid: Grid
    sigma: float
    steps: int
    last: bool = False

    @property
    def evaluations(self) -> int:
        """Network evaluations of each voxel; what is shown in the end is evaluated twice, see ``run_stage``."""
        return self.steps + int(self.last)

    @property
    def voxel(self) -> str:
        """Voxel edges for the user."""
        edges = [f"{edge:.2g}" for edge in self.grid.spacing]
        return f"{edges[0] if len(set(edges)) == 1 else ' x '.join(edges)} mm"

    def facts(self) -> dict[str, Any]:
        """For the report."""
        return {
            "shape_ijk": list(self.grid.shape[::-1]),
            "spacing_mm": [round(edge, 4) for edge in self.grid.spacing],
            "sigma": round(self.sigma, 4),
            "evaluations": self.evaluations,
        }


def plan_stages(finest: Grid, whole: int, parameters: Synthesize, coarse: int | None = None) -> list[CascadeStage]:
    """Stages from the coarsest grid to ``finest``.

    Args:
        whole: voxels along an edge of a training window, in which the network saw whole bodies.
        coarse: the same of a companion that invents the first image, where it is less.
    """
    grids = plan_grids(finest, whole)
    if coarse is not None and coarse < max(grids[0].shape):
        grids.insert(0, same_box(finest, _shape(np.minimum(grids[0].shape, coarse))))
    stages = [CascadeStage(grids[0], parameters.sigma_max, parameters.whole_steps, last=len(grids) == 1)]
    for before, fine in zip(grids[:-1], grids[1:], strict=True):
        last = fine is finest
        steps = parameters.native_steps if last else parameters.middle_steps
        sigma = min(parameters.detail * handover_sigma(before, fine), parameters.sigma_max)
        stages.append(CascadeStage(fine, sigma, steps, last))
    return stages


def plan_refinement(finest: Grid, parameters: Synthesize) -> list[CascadeStage]:
    """Stages for an image that is expected of an anatomy: voxels of :data:`REFINE_MM` first where they are coarser."""
    shape = _shape(np.rint(np.array(finest.shape) * finest.spacing[::-1] / REFINE_MM))
    grids = [finest]
    if np.prod(shape) * LEAST_RATIO**3 <= np.prod(finest.shape):
        grids.insert(0, same_box(finest, shape))
    stages = [CascadeStage(grids[0], parameters.texture, parameters.middle_steps, last=len(grids) == 1)]
    for before, fine in zip(grids[:-1], grids[1:], strict=True):
        sigma = min(parameters.detail * handover_sigma(before, fine), parameters.texture)
        stages.append(CascadeStage(fine, sigma, parameters.native_steps, last=True))
    return stages


def plan_grids(finest: Grid, whole: int = 64) -> list[Grid]:
    """Grids over the same box, coarsest first: at most ``whole`` voxels along each edge, then octaves up to ``finest``.

    The octaves are as isotropic as the finest grid allows. No grid lies between where the coarsest is fine enough.
    """
    coarsest = same_box(finest, _shape(np.minimum(finest.shape, whole)))
    if coarsest.shape == finest.shape:
        return [finest]
    fine, coarse = np.array(finest.spacing[::-1]), np.array(coarsest.spacing[::-1])
    grids, spacing = [finest], 2 * fine.min()
    while spacing <= WIDEST_MM and spacing * LEAST_RATIO <= coarse.max():
        edges = np.clip(spacing, fine, coarse)
        grid = same_box(finest, _shape(np.rint(np.array(finest.shape) * fine / edges)))
        if np.prod(grid.shape) * LEAST_RATIO <= np.prod(grids[-1].shape):
            grids.append(grid)
        spacing *= 2
    return [coarsest, *reversed(grids)]


def _shape(count: np.ndarray) -> tuple[int, int, int]:
    k, j, i = (max(int(n), 1) for n in count)
    return k, j, i


def handover_sigma(coarse: Grid, fine: Grid) -> float:
    """Noise level on ``fine`` that drowns what an image on ``coarse`` lacks, in units of 1000 HU.

    White noise of that level has, per volume, the power that CTs have at the highest frequency that the coarse grid
    carries: it hides all finer detail, which the next stage then invents, and leaves coarser structure visible.
    """
    lost = max(c for c, f in zip(coarse.spacing, fine.spacing, strict=True) if c > 1.01 * f)
    return DETAIL * lost**2 / float(np.prod(fine.spacing)) ** 0.5


def upsample(image: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """(1, 1, D, H, W) on one grid -> the same box in ``shape`` voxels, by cubic splines.

    Linear interpolation would weaken structures that the coarse grid still carries and that the noise does not hide.
    """
    import torch
    from scipy.ndimage import zoom

    coarse = image[0, 0].numpy()
    factors = [n / m for n, m in zip(shape, coarse.shape, strict=True)]
    fine = zoom(coarse, factors, output=np.float32, order=3, mode="nearest", grid_mode=True)
    return torch.from_numpy(fine)[None, None]
