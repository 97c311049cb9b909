"""Texture of a filling, taken from like places of the same scan.

The expected tissue that the network gives is smooth: it cannot know where vessels, septa and noise lie. What the rim
tells (:mod:`.told_by_rim`) is nearer to the truth, and smooth as well: it is a mean. So the filling is what the rim
tells here, with what lies at a like place beyond what its rim tells there: a conditional simulation (Journel 1974,
Economic Geology 69:673). It meets the rim by itself, for what rims tell is right there. Places are chosen by how much
their rim resembles that of the hole (Criminisi et al. 2004, IEEE Transactions on Image Processing 13:1200) and their
tissue what is told here. The rim of a large lesion is not healthy: there the mean is that of the expected tissue.

In still larger holes, and where the rim tells nothing, for want of places or beside another hole, a piece of the scan
is cloned without a seam (Perez et al. 2003, ACM Transactions on Graphics 22:313, with the surface of least bending in
place of the membrane): the same hole, laid over tissue nearby, is bent through as if nothing were known inside, and the
difference of the scan to that surface is added to the surface through the hole. Where no place is alike, what is told
stays, or the expected tissue. The mean of several samples, which is to be near the truth, is that of the expected
tissue with texture where tissue is alike and of what the rim tells. What grain these pieces lack is :mod:`.grain`'s
business.

It is texture synthesis: nothing of it says what was behind the mask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from ...core.progress import ProgressMeter
from ...imaging.biharmonic import biharmonic_interpolation
from .grain import boxes, diameter, grain_share, missing_grain
from .told_by_rim import RimPredictor

RIM = 3
"""Voxels around the hole that are compared, and that stay between it and the place."""
SMOOTHING_MM = 1.5
"""Tissue is compared smoothed so much, for noise is never alike."""
COMPARED_HU = (-1000.0, 400.0)
"""Bone beyond the upper limit would decide alone."""
MOST_SHIFTS, MOST_PLACES = 300_000, 6000
"""Shifts and places that are looked at; drawn at random where there are more."""
COMPARED = ((100, 600), (1000, None))
"""Rounds of comparison: voxels of rim and inside in which each place is compared, drawn at random where there are more,
and how many places, those most alike, stay for the next; None for all."""
INSIDE = 0.3
"""Weight of the tissue inside beside the rim where one sample is made: what is expected is smooth, and the places most
like it are calm."""
BEST = 4
"""A filling takes one of so many places, those most alike."""
APART = 2
"""Voxels between two places along some axis at least."""
LIKE_HU, LEAST = 200.0, 0.5
"""Tissue that differs so much from what is expected is alike by a third, at twice as much not at all; a place that is
less alike on the whole is not taken: the best one for a hole in the middle of a nodule may hold a rib."""
LARGEST_MM = 35.0
"""Diameter up to which one sample is made of what the rim tells: of balls of 30 mm its texture is more like tissue's
than that of a cloned piece, of balls of 38 mm it is told from tissue more often."""
TRUSTED_MM = 25.0
"""Diameter from which a sample has the mean of the expected tissue, most in the middle: the rim of a large lesion is
brighter than healthy lung, and what it tells was 70 HU too bright in the middle of the sample's nodule. It costs
healthy balls of 30 mm 1 HU of error."""
TOLD = 0.6
"""Share, in the mean of several samples, of what the rim tells by itself; both err, but not alike."""
EXTREMES = (0.5, 99.5)
"""Percentiles, of the voxels around the hole and of those in the place, between which a filling stays: a surface that
bends through a piece of bone or air overshoots."""


@dataclass(frozen=True)
class Filling:
    """One sample of what a hole holds, or the mean of several.

    Attributes:
        values: (D, H, W) HU, the scan with its hole filled.
        places: how many texture was taken from; 0 where none is alike.
        expected: whether the expected tissue was asked for.
    """

    values: np.ndarray
    places: int
    expected: bool


def filled_from_scan(
    scan: np.ndarray,
    hole: np.ndarray,
    expect: Callable[[], np.ndarray],
    spacing: tuple[float, float, float],
    samples: int,
    seed: int,
    meter: ProgressMeter | None = None,
) -> Filling:
    """Fill each connected part of the hole: by the mean over ``samples`` places.

    Args:
        scan: (D, H, W) HU, as much of it as may be copied from; what lies in the hole is ignored.
        hole: bool of that shape.
        expect: gives the scan with the expected tissue in its hole; not called where rims tell enough.
        spacing: (i, j, k) in mm.
        seed: the same seed takes the same places.
        meter: where a cancel is noticed.
    """
    from scipy.ndimage import label

    numbered, count = label(hole)
    random, places = np.random.default_rng(seed), 0
    tissue = expect() if samples > 1 else None
    filled = _closed(scan, numbered, count) if tissue is None else tissue.copy()
    values = filled.copy()
    for number in range(1, count + 1):
        part = numbered == number
        predictor = _predictor(filled, part, hole, spacing, samples, random)
        told = None if predictor is None else predictor.told(meter=meter)
        expected = None
        if samples > 1 or told is None or diameter(part, spacing) > TRUSTED_MM:
            tissue = expect() if tissue is None else tissue
            expected = tissue[part]
        filled[part] = told if told is not None and samples == 1 else expected
        found = _alike(filled, part, hole, spacing, max(BEST, samples), INSIDE if samples == 1 else 1.0, random)
        if samples > 1 or not found:
            bring = partial(_texture_at, filled, part, hole, spacing, None)
        elif predictor is None:
            bring = partial(_texture_at, filled, part, hole, spacing, _surface(filled, part, spacing))
        else:
            bring = partial(_beyond_told, filled, part, spacing, predictor, expected)
        taken: list[np.ndarray] = []
        for turn in random.permutation(len(found)):
            if len(taken) == samples:
                break
            if meter is not None:
                meter.check()
            brought = bring(found[turn])
            if brought is not None:
                taken.append(brought[part])
        result = np.mean(taken, axis=0) if taken else filled[part]
        if samples > 1 and told is not None:
            result = result + TOLD * (told - result)
        values[part] = result
        places += len(taken)
    return Filling(values, places, expected=tissue is not None)


def _closed(scan: np.ndarray, numbered: np.ndarray, count: int) -> np.ndarray:
    """The scan with the mean of its rim in each numbered part of a hole, until more is known."""
    from scipy.ndimage import grey_dilation, mean

    around = np.where(numbered == 0, grey_dilation(numbered, size=3), 0)
    means = np.nan_to_num(mean(scan, around, np.arange(count + 1)))
    return np.where(numbered > 0, means[numbered], scan).astype(np.float32)


def _predictor(
    scan: np.ndarray,
    part: np.ndarray,
    hole: np.ndarray,
    spacing: tuple[float, float, float],
    samples: int,
    random: np.random.Generator,
) -> RimPredictor | None:
    """What the rim tells; None of a large hole of which one sample is made, too."""
    if samples == 1 and diameter(part, spacing) > LARGEST_MM:
        return None
    return RimPredictor.learned(scan, part, hole, spacing, random)


def _filled_with(inside: np.ndarray, filled: np.ndarray, part: np.ndarray) -> np.ndarray:
    """``filled`` with other values (n,) in the part."""
    result = filled.copy()
    result[part] = inside
    return result


def _with_grain(
    brought: np.ndarray,
    expected: np.ndarray,
    part: np.ndarray,
    hole: np.ndarray,
    shift: np.ndarray,
    spacing: tuple[float, float, float],
) -> np.ndarray:
    """A filled scan with the grain that the place at ``shift`` left out, if the hole is large.

    Args:
        expected: the scan with smooth tissue in the hole, of which the grain is that of known tissue of like HU.
    """
    share = grain_share(diameter(part, spacing))
    if share == 0:
        return brought
    return brought + share * missing_grain(expected, brought - expected, part, hole, shift, spacing)


def _alike(
    filled: np.ndarray,
    part: np.ndarray,
    hole: np.ndarray,
    spacing: tuple[float, float, float],
    count: int,
    inside_weight: float,
    random: np.random.Generator,
) -> list[np.ndarray]:
    """Shifts (k, j, i) from the part to the places most like it, best first.

    Args:
        inside_weight: of the tissue inside beside the rim.
    """
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
    for most_voxels, kept in COMPARED:
        unlike = np.zeros(len(shifts), np.float32)
        for image, voxels, weight in ((seen, rim, 1.0), (smooth, inside, inside_weight)):
            voxels = voxels[random.permutation(len(voxels))[:most_voxels]]
            at = np.ravel_multi_index(tuple(voxels.T), hole.shape)
            there = at[None] + (shifts @ np.array([hole.shape[1] * hole.shape[2], hole.shape[2], 1]))[:, None]
            unlike += weight * np.abs(image.ravel()[there] - image.ravel()[at]).mean(1)
        shifts = shifts[np.argsort(unlike, kind="stable")[:kept]]
    return _apart(shifts, inside, hole, count)


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


def _beyond_told(
    told: np.ndarray,
    part: np.ndarray,
    spacing: tuple[float, float, float],
    predictor: RimPredictor,
    expected: np.ndarray | None,
    shift: np.ndarray,
) -> np.ndarray | None:
    """The scan with what its rim tells, and what lies at the shifted part beyond what the rim tells there.

    None where the place is not alike.

    Args:
        told: (D, H, W), the scan with what the rim tells in the part.
        expected: (n,), whose mean the filling gets; None for that of what the rim tells and the place adds.
    """
    here, there = boxes(part, shift, RIM)
    if _likeness(told[here], told[there], spacing)[part[here]].mean() < LEAST:
        return None
    offset = int(shift @ np.array([part.shape[1] * part.shape[2], part.shape[2], 1]))
    place = predictor.values[predictor.inside + offset]
    brought = told[part] + place - predictor.told(offset)
    if expected is not None:
        brought = _with_mean_of(expected, brought, part[here], spacing)
    limits = np.percentile(np.concatenate([predictor.values[predictor.at_rim], place]), EXTREMES)
    return _filled_with(np.clip(brought, *limits), told, part)


def _texture_at(
    filled: np.ndarray,
    part: np.ndarray,
    hole: np.ndarray,
    spacing: tuple[float, float, float],
    surface: np.ndarray | None,
    shift: np.ndarray,
) -> np.ndarray | None:
    """The scan with its part filled by what it brings from the shifted part, and the grain that this lacks.

    None where the place is not alike.

    Args:
        surface: of least bending through the part, onto which the scan's difference to its own is cloned, with the
            mean of what is expected; without it the expected tissue takes that difference where tissue is alike.
    """
    from scipy.ndimage import binary_dilation

    here, there = boxes(part, shift, RIM)
    scan, inside, expected = filled[there], part[here], filled[here]
    bent = _bent(scan, inside, spacing)
    alike = np.minimum(_likeness(expected, scan, spacing), _likeness(expected, bent, spacing))
    if alike[inside].mean() < LEAST:
        return None
    rim = expected[binary_dilation(inside, iterations=RIM) & ~hole[here]]
    limits = np.percentile(np.concatenate([rim, scan[inside]]), EXTREMES)
    if surface is None:
        brought = (expected + alike * (scan - bent))[inside]
    else:
        brought = _with_mean_of(expected[inside], (surface[here] + scan - bent)[inside], inside, spacing)
    result = _filled_with(np.clip(brought, *limits), filled, part)
    return _with_grain(result, filled, part, hole, shift, spacing)


def _with_mean_of(
    expected: np.ndarray, brought: np.ndarray, inside: np.ndarray, spacing: tuple[float, float, float]
) -> np.ndarray:
    """Values (n,) inside a hole (bool, d, h, w), moved to the mean of others, most in the middle."""
    deep = _depth(inside, spacing)[inside]
    return brought + deep * ((expected - brought).mean() / deep.mean())


def _depth(inside: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """From 0 at the rim to 1 half way to the deepest voxel, and on."""
    from scipy.ndimage import distance_transform_edt

    if inside.all():  # there is no rim
        return np.ones(inside.shape)
    distance = distance_transform_edt(inside, sampling=spacing[::-1])
    return np.minimum(2 * distance / distance.max(), 1)


def _surface(filled: np.ndarray, part: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """``filled`` with the surface of least bending in the part."""
    here, _ = boxes(part, np.zeros(3, int), RIM)
    surface = filled.copy()
    surface[here] = _bent(filled[here], part[here], spacing)
    return surface


def _bent(scan: np.ndarray, inside: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """``scan`` with the surface of least bending inside."""
    around = scan[~inside].mean() if not inside.all() else 0.0
    return biharmonic_interpolation(scan, inside, np.where(inside, around, scan), spacing)


def _likeness(expected: np.ndarray, scan: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """1 where both tissues are alike, falling to 0 where they differ."""
    from scipy.ndimage import gaussian_filter

    widths = [SMOOTHING_MM / edge for edge in reversed(spacing)]
    one, other = (gaussian_filter(np.clip(image, *COMPARED_HU), widths) for image in (expected, scan))
    return np.exp(-(((one - other) / LIKE_HU) ** 2))
