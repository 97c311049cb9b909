"""What a hole holds, told from its rim by what such rims hold elsewhere in the same scan.

Linear prediction, as in kriging (Matheron 1963, Economic Geology 58:1246), with the covariance that the scan itself
has: at thousands of places nearby, the voxels of the hole are regressed on those of its rim. What bending gives away
already is left out: the prediction is the sum of the places, each with its weight, and the surface of least bending
through what their rims leave of the rim here. It is the mean of what may be there, and as smooth as one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...core.progress import ProgressMeter
from ...imaging.biharmonic import biharmonic_interpolation

RIM = 2
"""Voxels around the hole, those that bending looks at; three were worse: there are more weights for as many places."""
MOST_PLACES, FEWEST_PLACES = 6000, 100
MOST_NUMBERS = 8_000_000
"""Places times voxels of the rim: large holes have fewer places."""
REACH_MM = 8.0
"""Between the hole and the places that are looked at, at most: tissue nearby is more alike."""
TRIED = 4
"""Places that are drawn for each that is looked at: many lie in the hole."""
RIDGE = 1.0
"""Penalty, in units of the mean energy of a rim."""
LIKE_SHARE = 0.02
"""Places as unlike as this quantile of them count by 0.6, and twice as unlike ones by 0.4."""
LEVEL = 0.25
"""Weight of the difference of the means, beside that of the shapes, in how unlike rims are."""
LEAST_WEIGHT = 1e-3
EXTREMES = (0.5, 99.5)
"""Percentiles of the rim between which a prediction stays."""


@dataclass(frozen=True)
class RimPredictor:
    """What rims tell of holes of one shape; see :meth:`learned`.

    Attributes:
        values: (D * H * W,) HU of the scan.
        at_rim, inside: flat indices of the rim (m,) and of the hole (n,), in order.
        offsets: (p,) to the places, and
        rims: (p, m) float32, their rims.
        bent: values of the rim (m,) -> those of least bending in the hole (n,).
    """

    values: np.ndarray
    at_rim: np.ndarray
    inside: np.ndarray
    offsets: np.ndarray
    rims: np.ndarray
    bent: Callable[[np.ndarray], np.ndarray]

    @classmethod
    def learned(
        cls,
        scan: np.ndarray,
        part: np.ndarray,
        hole: np.ndarray,
        spacing: tuple[float, float, float],
        random: np.random.Generator,
    ) -> RimPredictor | None:
        """From places nearby in the scan; None where there are too few, or where the rim is not known.

        Args:
            scan: (D, H, W) HU; what lies in the hole is ignored.
            part: bool, a connected part of ``hole``.
            spacing: (i, j, k) in mm.
            random: draws the places where there are more than are looked at.
        """
        from scipy.ndimage import binary_dilation

        rim = binary_dilation(part, iterations=RIM) & ~part
        if (rim & hole).any():  # another part is too near
            return None
        at_rim, inside = np.flatnonzero(rim), np.flatnonzero(part)
        offsets = _places(part | rim, hole, len(at_rim), spacing, random)
        if len(offsets) < FEWEST_PLACES:
            return None

        def bent(left: np.ndarray) -> np.ndarray:
            image = np.zeros(part.shape, np.float32)
            image[rim] = left
            return biharmonic_interpolation(image, part, image, spacing)[part]

        values = scan.ravel()
        rims = values[at_rim[None] + offsets[:, None]].astype(np.float32)
        return cls(values, at_rim, inside, offsets, rims, bent)

    def told(self, offset: int = 0, meter: ProgressMeter | None = None) -> np.ndarray:
        """HU (n,) that the rim tells, here or where the hole is moved by a flat offset.

        Args:
            meter: where a cancel is noticed.
        """
        if meter is not None:
            meter.check()
        here = self.values[self.at_rim + offset].astype(np.float32)
        level, levels = here.mean(), self.rims.mean(1)
        shapes = self.rims - levels[:, None]
        weights = _weights(here - level, shapes, level - levels, self.offsets != offset)
        told = level - weights @ levels + self.bent(here - level - weights @ shapes)
        for weight, place in zip(weights, self.offsets, strict=True):
            told += weight * self.values[self.inside + place]
        return np.clip(told, *np.percentile(here, EXTREMES))


def _places(
    around: np.ndarray, hole: np.ndarray, rim: int, spacing: tuple[float, float, float], random: np.random.Generator
) -> np.ndarray:
    """Offsets (n,) of flat indices from the hole with its rim to known tissue nearby, drawn at random.

    Args:
        around: bool (D, H, W), the part and its rim.
        rim: voxels of the rim.
    """
    voxels = np.argwhere(around)
    first, last = voxels.min(0), voxels.max(0)
    reach = last - first + np.ceil(REACH_MM / np.array(spacing[::-1])).astype(int)
    low, high = np.maximum(-first, -reach), np.minimum(np.array(hole.shape) - 1 - last, reach)
    most = min(MOST_PLACES, MOST_NUMBERS // rim)
    strides = np.array([hole.shape[1] * hole.shape[2], hole.shape[2], 1])
    at, unknown, kept = voxels @ strides, hole.ravel(), []
    for number in random.permutation(np.prod(high - low + 1))[: TRIED * most]:
        offset = int((np.array(np.unravel_index(number, high - low + 1)) + low) @ strides)
        if not unknown[at + offset].any():
            kept.append(offset)
            if len(kept) == most:
                break
    return np.array(kept, dtype=int)


def _weights(here: np.ndarray, there: np.ndarray, levels: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n,): what each place counts for in the prediction, from rims without their means, (m,) and (n, m).

    Args:
        levels: (n,), by which the mean here is above theirs.
        others: bool (n,), places that may count: one does not tell what it holds itself.
    """
    unlike = ((there - here) ** 2).mean(1) + LEVEL * levels**2
    likeness = np.exp(-unlike / (2 * np.quantile(unlike, LIKE_SHARE) + 1e-6))
    likeness[(likeness < LEAST_WEIGHT) | ~others] = 0
    rows = (there * np.sqrt(likeness)[:, None]).astype(np.float64)
    energy = max(float((rows**2).sum()) / len(rows), 1e-6)
    if len(rows) < len(here):
        solved = np.linalg.solve(rows @ rows.T + RIDGE * energy * np.eye(len(rows)), rows @ here)
    else:
        solved = rows @ np.linalg.solve(rows.T @ rows + RIDGE * energy * np.eye(len(here)), here)
    return (solved * np.sqrt(likeness)).astype(np.float32)
