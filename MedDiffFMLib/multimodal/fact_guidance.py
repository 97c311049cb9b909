"""Guidance by facts: the least change of an image after which a measured volume of tissue is the one asked for.

A tissue is a band of HU with soft edges, so that its volume V is differentiable; the step x + g (V_asked - V) / |g|^2
along the gradient g is the least one that meets it to first order (Gauss and Newton), repeated a few times. It moves
those voxels that lie near the edges of the band, so organs grow or shrink at their borders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

ROUNDS = 4
LARGEST = 0.15
"""Most that one step moves a voxel, 150 HU; a fact that the image is far from is met over several noise levels."""
_BODY = -0.9


@dataclass(frozen=True)
class TissueWish:
    """A share of the image that a tissue should take.

    Attributes:
        low, high: band in network range.
        width: of its soft edges.
        share: of the voxels of the body that are to lie in the band; or ``voxels``.
        voxels: number of voxels that are to lie in it.
        deep: count well inside the body only: the half-filled voxels of the skin would be taken for lung.
    """

    low: float
    high: float
    width: float
    share: float | None = None
    voxels: float | None = None
    deep: bool = False

    def measure(self, image: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        """Soft number of voxels in the band."""
        inside = torch.sigmoid((image - self.low) / self.width) * torch.sigmoid((self.high - image) / self.width)
        return (inside * self._counted(image, where)).sum()

    def target(self, image: torch.Tensor, where: torch.Tensor) -> float:
        """Voxels asked for."""
        if self.voxels is not None:
            return self.voxels
        assert self.share is not None
        return self.share * float(((image > _BODY) * self._counted(image, where)).sum())

    def _counted(self, image: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        return where if self.deep else torch.ones_like(image)


@dataclass(frozen=True)
class FactGuidance:
    """``correct(x0, sigma) -> x0`` towards wishes, for x0 of shape (1, 1, k, j, i) in the network's range.

    Attributes:
        wishes: met one after the other.
        where: (k, j, i) weights, 1 well inside the body.
    """

    wishes: Sequence[TissueWish]
    where: torch.Tensor

    def __call__(self, x0: torch.Tensor, sigma: float) -> torch.Tensor:
        for _ in range(ROUNDS):
            for wish in self.wishes:
                x0 = self._step(x0, wish)
        return x0.clamp(-1, 1)

    def _step(self, x0: torch.Tensor, wish: TissueWish) -> torch.Tensor:
        with torch.enable_grad():
            leaf = x0.detach().requires_grad_()
            found = wish.measure(leaf, self.where)
            (gradient,) = torch.autograd.grad(found, leaf)
        size = gradient.square().sum()
        if size < 1e-12:
            return x0
        change = gradient * ((wish.target(x0, self.where) - found.detach()) / size)
        return x0 + change.clamp(-LARGEST, LARGEST)
