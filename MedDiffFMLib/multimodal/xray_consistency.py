"""Consistency of a CT with X-rays: the least change after which its projections are the X-rays.

With A the line integrals along all rays and W how far each voxel may move, the least change that meets measured
integrals y is x + W A^T (A W A^T)^-1 (y - A x). The inverse is taken by conjugate gradients on the detectors'
pixels, of which there are a hundred times fewer than voxels. A beam of several energies is not linear in x: the
difference in attenuation is divided by its slope in water, and the step repeated (quasi-Newton), as it is where a
voxel would fall below air.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..imaging.grid import Grid
from .attenuation import attenuation, densities
from .beam import Beam
from .projection import back_project, project

MM_PER_CM = 10.0
AIR, DENSEST = -1.0, 1.0
"""Bounds of a voxel in the network's range, 1000 HU."""
EXACT, LOOSE = 3e-3, 0.1
"""Damping, of the mean of A W A^T: pixels that contradict each other have no exact answer, and those of a real film,
with scatter and gray curves, contradict each other much."""
LEAST_CM = 2.0
"""Of voxels that may hold tissue, which a ray has to pass to be met: the fringe of a shadow has too few to do so."""
THICK_CM = 10.0
"""Of voxels that may hold tissue, on rays that tell how even a body is."""
LEAST_BODY = 0.1
"""Probability of the body whose square weights are divided by at least."""
TOLERANCE = 1e-3
"""Of the residual, where conjugate gradients stop."""


@dataclass(frozen=True)
class XrayView:
    """One X-ray as it is met.

    Attributes:
        beam: source and detector, with pixels about as large as voxels.
        attenuation: -ln(I / I0), (j, i) float32.
    """

    beam: Beam
    attenuation: torch.Tensor


class XrayConsistency:
    """``correct(x0, sigma) -> x0`` towards X-rays, for x0 of shape (S, 1, k, j, i) in the network's range.

    Args:
        views: the X-rays.
        grid: where the voxels lie.
        support: (k, j, i) bool, voxels that may hold tissue; all others are air.
        weight: (k, j, i), how far each voxel may move, relative; None for all alike.
        rounds: quasi-Newton steps of each call.
        damping: ``EXACT`` or ``LOOSE``.
    """

    def __init__(
        self,
        views: Sequence[XrayView],
        grid: Grid,
        support: torch.Tensor,
        weight: torch.Tensor | None = None,
        rounds: int = 2,
        iterations: int = 12,
        damping: float = EXACT,
    ) -> None:
        self.views, self.grid, self.support = list(views), grid, support
        self.weight = support.float() if weight is None else weight * support
        self.rounds, self.iterations, self.damping = rounds, iterations, damping
        through = self._gather(support.float())
        self._counted = [(length >= LEAST_CM).float() for length in through]

    def __call__(self, x0: torch.Tensor, sigma: float) -> torch.Tensor:
        return torch.stack([self.meet(one[0], self.rounds)[None] for one in x0])

    def meet(self, image: torch.Tensor, rounds: int) -> torch.Tensor:
        """Image (k, j, i) after so many steps."""
        image = torch.where(self.support, image.clamp(AIR, DENSEST), AIR)
        for _ in range(rounds):
            areal = [_areal(image, self.grid, view.beam) for view in self.views]
            missing = [
                counted * (view.attenuation - attenuation(through)) / _slope(through)
                for view, through, counted in zip(self.views, areal, self._counted, strict=True)
            ]
            image = (image + self._change(missing, self._free(image, missing))).clamp(AIR, DENSEST)
        return image

    def meet_by_air(self, image: torch.Tensor, body: torch.Tensor, rounds: int) -> torch.Tensor:
        """Image (k, j, i), which holds what each voxel is if all of them are body, after so many steps.

        Voxels move by 1 / probability² of the body, so that what is most probably air becomes air first, and the body
        does not become too thin. The rays that pass little air need a usual step afterwards.
        """
        usual, self.weight = self.weight, self.support / body.clamp_min(LEAST_BODY).square()
        try:
            return self.meet(image, rounds)
        finally:
            self.weight = usual

    def residuals(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Attenuation missing in each view, (j, i)."""
        return [view.attenuation - shadow_of(image, self.grid, view.beam) for view in self.views]

    def relative(self, image: torch.Tensor) -> list[float]:
        """Root mean square of each residual over that of its X-ray."""
        pairs = zip(self.residuals(image), self.views, strict=True)
        return [float(missing.norm() / view.attenuation.norm().clamp_min(1e-6)) for missing, view in pairs]

    def evenness(self) -> float:
        """Median over 90th percentile of the attenuation per cm of tissue, whatever its scale; mean of the views.

        Lungs make it low: 0.67 to 0.73 in five chests, 0.82 to 0.86 in four abdomens.
        """
        found = []
        for view, length in zip(self.views, self._gather(self.support.float()), strict=True):
            thick = length > THICK_CM
            if thick.any():
                middle, most = np.percentile((view.attenuation[thick] / length[thick]).numpy(), (50, 90))
                found.append(float(middle / max(most, 1e-6)))
        return float(np.mean(found)) if found else 1.0

    def lifted(self) -> list[torch.Tensor]:
        """Attenuation per cm of tissue of each view, laid back along its rays: (k, j, i), 0 where no ray counts."""
        lifts = []
        for view, length in zip(self.views, self._gather(self.support.float()), strict=True):
            counted = (length > LEAST_CM).float()
            mean = counted * view.attenuation / length.clamp_min(LEAST_CM)
            over, rays = (
                back_project(part[None], self.grid.shape, self.grid.ijk_to_ras, view.beam)[0]
                for part in (mean, counted)
            )
            lifts.append(torch.where(rays > 1e-3, over / rays.clamp_min(1e-3), 0.0))
        return lifts

    def _free(self, image: torch.Tensor, missing: list[torch.Tensor]) -> torch.Tensor:
        """Weights of the voxels that can move the way in which the rays through them would have them move."""
        wanted = self._spread(missing)
        stuck = ((image <= AIR) & (wanted < 0)) | ((image >= DENSEST) & (wanted > 0))
        return torch.where(stuck, 0.0, self.weight)

    def _change(self, missing: list[torch.Tensor], weight: torch.Tensor) -> torch.Tensor:
        """Least change (k, j, i), g/cm3, that adds ``missing`` g/cm2 along the rays."""
        ones = [torch.ones_like(part) for part in missing]
        scale = sum(float(part.mean()) for part in self._gather(weight * self._spread(ones))) / len(ones)
        damping = self.damping * max(scale, 1e-12)

        def system(pictures: list[torch.Tensor]) -> list[torch.Tensor]:
            through = self._gather(weight * self._spread(pictures))
            rows = zip(through, pictures, self._counted, strict=True)
            return [counted * part + damping * picture for part, picture, counted in rows]

        return weight * self._spread(_conjugate_gradients(system, missing, self.iterations))

    def _gather(self, image: torch.Tensor) -> list[torch.Tensor]:
        """A: g/cm3 -> g/cm2 in each view."""
        return [project(image[None], self.grid.ijk_to_ras, view.beam)[0] / MM_PER_CM for view in self.views]

    def _spread(self, pictures: list[torch.Tensor]) -> torch.Tensor:
        """A^T, (k, j, i)."""
        parts = [
            back_project(picture[None], self.grid.shape, self.grid.ijk_to_ras, view.beam)[0] / MM_PER_CM
            for picture, view in zip(pictures, self.views, strict=True)
        ]
        return torch.stack(parts).sum(0)


def shadow_of(image: torch.Tensor, grid: Grid, beam: Beam) -> torch.Tensor:
    """Attenuation (j, i) of an image (k, j, i) in the network's range along the rays of a beam."""
    return attenuation(_areal(image, grid, beam))


def _areal(image: torch.Tensor, grid: Grid, beam: Beam) -> torch.Tensor:
    """(2, j, i) g/cm2 of water and of bone."""
    return project(densities(1000 * image), grid.ijk_to_ras, beam) / MM_PER_CM


def _slope(areal: torch.Tensor) -> torch.Tensor:
    """Attenuation that a little more water would add, cm2/g, (j, i)."""
    with torch.enable_grad():
        leaf = areal.detach().requires_grad_()
        return torch.autograd.grad(attenuation(leaf).sum(), leaf)[0][0]


def _conjugate_gradients(system, wanted: list[torch.Tensor], iterations: int) -> list[torch.Tensor]:  # type: ignore[no-untyped-def]
    """Pictures that a symmetric positive ``system`` turns into ``wanted`` (Hestenes and Stiefel 1952)."""
    answer = [torch.zeros_like(part) for part in wanted]
    rest = [part.clone() for part in wanted]
    direction = rest
    size = start = _dot(rest, rest)
    for _ in range(iterations):
        if size <= TOLERANCE**2 * start or size == 0:
            break
        turned = system(direction)
        step = size / _dot(direction, turned)
        answer = [a + step * d for a, d in zip(answer, direction, strict=True)]
        rest = [r - step * t for r, t in zip(rest, turned, strict=True)]
        size, before = _dot(rest, rest), size
        direction = [r + size / before * d for r, d in zip(rest, direction, strict=True)]
    return answer


def _dot(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    return sum(float((a * b).sum()) for a, b in zip(one, other, strict=True))
