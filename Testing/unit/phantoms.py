"""Small synthetic CTs for tests."""

from __future__ import annotations

import numpy as np

from MedDiffFMLib.imaging.volume import Volume


def body(shape: tuple[int, int, int] = (40, 60, 60), spacing: float = 3.0) -> Volume:
    """Air around a soft-tissue ellipsoid with a fat rim and bone inside, noise of 15 HU; axes along LPS."""
    axes = [np.linspace(-1, 1, n) for n in shape]
    radius = np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing="ij")))
    hounsfield = np.select([radius < 0.15, radius < 0.7, radius < 0.85], [600, 50, -100], -1000)
    noise = np.random.default_rng(0).normal(0, 15, shape)
    return Volume((hounsfield + noise).astype(np.int16), np.diag([-spacing, -spacing, spacing, 1.0]))


WHOLE_BODY_PARTS_MM = {"head-neck": (840, 1050), "chest": (600, 840), "abdomen": (420, 600), "pelvis": (190, 420)}
"""Extents of the regions of :func:`whole_body` above its feet; the pelvis is the height that is usual in adults."""


def whole_body(spacing: float = 5.0) -> Volume:
    """Legs to skull, 1050 mm: lungs in the chest, ribs down into the abdomen, a flank, hip bones, two legs."""
    shape = (round(1050 / spacing), 40, 64)
    z, y, x = ((np.arange(n) + 0.5) * spacing for n in shape)
    z, y, x = z[:, None, None], (y - y.mean())[None, :, None], (x - x.mean())[None, None]

    def between(low: float, high: float) -> np.ndarray:
        return (z > low) & (z < high)

    trunk = between(190, 860) & ((x / 140) ** 2 + (y / 85) ** 2 < 1)
    head = between(860, 1050) & ((x / 75) ** 2 + (y / 80) ** 2 < 1)
    legs = (z < 200) & ((np.abs(x) - 70) ** 2 + y**2 < 60**2)
    side = np.abs(x) - 105
    bone = between(190, 1050) & (x**2 + (y - 55) ** 2 < 18**2)  # spine
    bone |= between(540, 860) & (side**2 + y**2 < 14**2)  # ribs
    bone |= between(190, 420) & (side**2 + y**2 < 20**2)  # hip bones
    bone |= (z < 200) & ((np.abs(x) - 70) ** 2 + y**2 < 14**2)  # thighs
    lungs = between(600, 840) & (((np.abs(x) - 60) / 35) ** 2 + (y / 60) ** 2 < 1)
    hounsfield = np.select([lungs, bone, trunk | head | legs], [-850.0, 600.0, 40.0], -1000.0)
    noise = np.random.default_rng(1).normal(0, 15, shape)
    return Volume((hounsfield + noise).astype(np.int16), np.diag([-spacing, -spacing, spacing, 1.0]))
