"""Small synthetic CTs for tests."""

from __future__ import annotations

import numpy as np

from MedDiffFMLib.volume import Volume


def body(shape: tuple[int, int, int] = (40, 60, 60), spacing: float = 3.0) -> Volume:
    """Air around a soft-tissue ellipsoid with a fat rim and bone inside, noise of 15 HU; axes along LPS."""
    axes = [np.linspace(-1, 1, n) for n in shape]
    radius = np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing="ij")))
    hounsfield = np.select([radius < 0.15, radius < 0.7, radius < 0.85], [600, 50, -100], -1000)
    noise = np.random.default_rng(0).normal(0, 15, shape)
    return Volume((hounsfield + noise).astype(np.int16), np.diag([-spacing, -spacing, spacing, 1.0]))
