"""Texture of a filling, taken from like places of the same scan.

The expected tissue that the network gives is smooth: it cannot know where vessels, septa and noise lie. What is missing
is the error of an expectation, and that can be seen where the scan is known: the same hole, laid over tissue nearby, is
bent through as if nothing were known inside, and the difference of the scan to that surface is the texture. It falls to
zero at the rim by itself, so that it meets the surroundings without a seam (seamless cloning, Perez et al. 2003, ACM
Transactions on Graphics 22:313, with the surface of least bending in place of the membrane). Places are chosen by how
much their rim and their tissue resemble those of the hole (Criminisi et al. 2004, IEEE Transactions on Image Processing
13:1200). What grain is missing then is :mod:`.grain`'s business.

It is texture synthesis: nothing of it says what was behind the mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...core.progress import ProgressMeter
from ...imaging.biharmonic import biharmonic_interpolation
from .grain import boxes, grain_share, missing_grain

RIM = 3
"""Voxels around the hole that are compared, and that stay between it and the place."""
SMOOTHING_MM = 1.5
"""Tissue is compared smoothed so much, for noise is never alike."""
COMPARED_HU = (-1000.0, 400.0)
"""Bone beyond the upper limit would decide alone."""
MOST_SHIFTS, MOST_PLACES, MOST_VOXELS = 300_000, 6000, 200
"""Shifts and places that are looked at, and voxels in which each is compared; drawn at random where there are more."""
BEST = 4
"""A filling takes one of so many places, those most alike."""
APART = 2
"""Voxels between two places along some axis at least."""
LIKE_HU = 200.0
"""Where the tissue of a place differs so much from what is expected, a third of its texture is taken, at twice as much
nothing."""
LEAST_SHARE = 0.5
"""A place of whose texture less would be taken on the whole is not alike: the best place for a hole in the middle of a
nodule may hold a rib."""
EXTREMES = (0.5, 99.5)
"""Percentiles, of the voxels around the hole and of those in the place, between which a filling stays: a surface that
bends through a piece of bone or air overshoots."""


@dataclass(frozen=True)
class Texture:
    """Texture of one or several samples of a filling.

    Attributes:
        values: (D, H, W) HU to add to the expected tissue, 0 outside the hole.
        places: how many it was taken from; 0 where no place is alike, so that nothing is added.
    """

    values: np.ndarray
    places: int


def texture_of_scan(
    filled: np.ndarray,
    hole: np.ndarray,
    spacing: tuple[float, float, float],
    samples: int,
    seed: int,
    meter: ProgressMeter | None = None,
) -> Texture:
    """Texture for each connected part of the hole, the mean over ``samples`` places.

    Args:
        filled: (D, H, W) HU, the scan with the expected tissue in its hole and as much around it as may be copied from.
        hole: bool of that shape.
        spacing: (i, j, k) in mm.
        seed: the same seed takes the same places.
        meter: where a cancel is noticed.
    """
    from scipy.ndimage import label

    values, places = np.zeros(hole.shape, np.float32), 0
    parts, count = label(hole)
    random = np.random.default_rng(seed)
    for number in range(1, count + 1):
        part = parts == number
        found = _alike(filled, part, hole, spacing, max(BEST, samples), random)
        share = grain_share(float(part.sum() * np.prod(spacing)))
        taken: list[np.ndarray] = []
        for turn in random.permutation(len(found)):
            if len(taken) == samples:
                break
            if meter is not None:
                meter.check()
            texture = _texture_at(filled, part, hole, found[turn], spacing)
            if texture is not None:
                if share > 0:
                    texture = texture + share * missing_grain(filled, texture, part, hole, found[turn], spacing)
                taken.append(texture)
        if taken:
            values += sum(taken) / len(taken)
        places += len(taken)
    return Texture(values, places)


def _alike(
    filled: np.ndarray,
    part: np.ndarray,
    hole: np.ndarray,
    spacing: tuple[float, float, float],
    count: int,
    random: np.random.Generator,
) -> list[np.ndarray]:
    """Shifts (k, j, i) from the part to the places most like it, best first."""
    from scipy.ndimage import binary_dilation, gaussian_filter

    rim = np.argwhere(binary_dilation(part, iterations=RIM) & ~hole)
    inside = np.argwhere(part)
    shifts = _shifts(inside, rim, np.array(hole.shape))
    if not len(shifts):
        return []
    if len(shifts) > MOST_PLACES:
        shifts = shifts[random.choice(len(shifts), MOST_PLACES, replace=False)]
    seen = np.clip(filled, *COMPARED_HU)
    smooth = gaussian_filter(seen, [SMOOTHING_MM / edge for edge in reversed(spacing)])
    unlike = np.zeros(len(shifts), np.float32)
    for image, voxels in ((seen, rim), (smooth, inside)):
        voxels = voxels[random.permutation(len(voxels))[:MOST_VOXELS]]
        at = np.ravel_multi_index(tuple(voxels.T), hole.shape)
        there = at[None] + (shifts @ np.array([hole.shape[1] * hole.shape[2], hole.shape[2], 1]))[:, None]
        unlike += np.abs(image.ravel()[there] - image.ravel()[at]).mean(1)
    return _apart(shifts[np.argsort(unlike, kind="stable")], inside, hole, count)


def _shifts(inside: np.ndarray, rim: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """(n, 3) shifts that keep the part and its rim in the image and, if it is about a ball, lead out of it."""
    voxels = np.concatenate([inside, rim])
    low, high = -voxels.min(0), shape - 1 - voxels.max(0)
    step = max(1, round((np.prod(high - low + 1.0) / MOST_SHIFTS) ** (1 / 3)))
    axes = [np.arange(a, b + 1, step) for a, b in zip(low, high, strict=True)]
    shifts = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    extent = inside.max(0) - inside.min(0) + 1
    return shifts[((shifts / (extent + RIM)) ** 2).sum(1) >= 1]


def _apart(shifts: np.ndarray, inside: np.ndarray, hole: np.ndarray, count: int) -> list[np.ndarray]:
    """The first shifts to known tissue that are not next to each other."""
    kept: list[np.ndarray] = []
    for shift in shifts:
        new = all(np.abs(shift - other).max() > APART for other in kept)
        if new and not hole[tuple((inside + shift).T)].any():
            kept.append(shift)
            if len(kept) == count:
                break
    return kept


def _texture_at(
    filled: np.ndarray, part: np.ndarray, hole: np.ndarray, shift: np.ndarray, spacing: tuple[float, float, float]
) -> np.ndarray | None:
    """(D, H, W): the scan less the surface of least bending through the shifted part, where that is; 0 elsewhere.

    None where the place is not alike.
    """
    from scipy.ndimage import binary_dilation

    here, there = boxes(part, shift, RIM)
    scan, inside = filled[there], part[here]
    around = scan[~inside].mean() if not inside.all() else 0.0
    bent = biharmonic_interpolation(scan, inside, np.where(inside, around, scan), spacing)
    rim = filled[here][binary_dilation(inside, iterations=RIM) & ~hole[here]]
    low, high = np.percentile(np.concatenate([rim, scan[inside]]), EXTREMES)
    expected = filled[here]
    result = np.zeros(part.shape, np.float32)
    share = np.minimum(_likeness(expected, scan, spacing), _likeness(expected, bent, spacing))
    if share[inside].mean() < LEAST_SHARE:
        return None
    result[here][inside] = (np.clip(expected + share * (scan - bent), low, high) - expected)[inside]
    return result


def _likeness(expected: np.ndarray, scan: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Share of the texture that each voxel takes: 1 where both tissues are alike."""
    from scipy.ndimage import gaussian_filter

    widths = [SMOOTHING_MM / edge for edge in reversed(spacing)]
    one, other = (gaussian_filter(np.clip(image, *COMPARED_HU), widths) for image in (expected, scan))
    return np.exp(-(((one - other) / LIKE_HU) ** 2))
