"""Can a small classifier tell filled patches from untouched ones? 0.5 means that it cannot.

The patches are slices through a hole with what lies around it, once as a method filled it, once as it was. Each becomes
a few numbers a reader could point at: deviation at three scales inside and over that of a ring outside, gradient across
the rim, likeness of neighboring pixels and slices, difference of the means. A logistic regression on them and their
squares is trained on all patients but one and judged on that one's patches, in turn; the figure is the area under its
ROC curve. It is a weak judge: what it cannot tell apart, a network may.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .metrics import ranking

SLICES = 5
"""Patches of a hole at most, evenly spread over the slices that cut at least half of its widest section."""
RING_PIXELS = 4
SCALES = (0.7, 1.4, 2.8)
"""Widths in pixels between which the deviation is taken."""
FLOOR_HU = 0.5
PENALTY = 1.0
"""Of the squared weights, beside one unit for each patient's mean loss."""
FEWEST_PATIENTS = 3


def patches(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """(patches, features) of one hole.

    Args:
        image: HU (k, j, i), filled or untouched.
        hole: bool (k, j, i), one connected part.
    """
    areas = hole.sum(axis=(1, 2))
    wide = np.flatnonzero(areas >= areas.max() / 2)
    chosen = wide[np.unique(np.linspace(0, len(wide) - 1, min(SLICES, len(wide))).round().astype(int))]
    rows, columns = (np.flatnonzero(hole.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    reach = 2 * RING_PIXELS + int(3 * SCALES[-1])
    j, i = (slice(max(int(line[0]) - reach, 0), int(line[-1]) + reach + 1) for line in (rows, columns))
    planes = np.asarray(image[:, j, i], dtype=np.float64)
    return np.array([_features(planes, int(k), hole[k, j, i]) for k in chosen])


def _features(planes: np.ndarray, k: int, inside: np.ndarray) -> np.ndarray:
    """Numbers of one patch; see the top of this file."""
    from scipy.ndimage import binary_dilation, gaussian_filter

    ring = binary_dilation(inside, iterations=RING_PIXELS) & ~inside
    smooth = [planes[k], *(gaussian_filter(planes[k], width) for width in SCALES)]
    bands = [a - b for a, b in zip(smooth[:-1], smooth[1:], strict=True)]
    between = planes[k] - (planes[max(k - 1, 0)] + planes[min(k + 1, len(planes) - 1)]) / 2
    numbers = []
    for band in (planes[k], *bands, between):
        within, without = _deviation(band[inside]), _deviation(band[ring])
        numbers += [np.log10(within), np.log10(within / without)]
    step = (planes[k][inside].mean() - planes[k][ring].mean()) / 100
    fine = planes[k] - smooth[2]
    numbers += [
        step,
        abs(step),
        _rim(planes[k], inside, ring),
        _likeness(fine, inside),
        _likeness(fine, inside) - _likeness(fine, ring),
    ]
    return np.array(numbers)


def _deviation(values: np.ndarray) -> float:
    return float(values.std()) + FLOOR_HU if values.size else FLOOR_HU


def _rim(plane: np.ndarray, inside: np.ndarray, ring: np.ndarray) -> float:
    """Logarithm of the mean step between neighbors across the rim over that between other neighbors."""
    across, beside = [], []
    for axis in (0, 1):
        steps = np.abs(np.diff(plane, axis=axis))
        first, second = (np.take(inside, range(n, inside.shape[axis] - 1 + n), axis) for n in (0, 1))
        near = [np.take(inside | ring, range(n, ring.shape[axis] - 1 + n), axis) for n in (0, 1)]
        across.append(steps[first != second])
        beside.append(steps[(first == second) & near[0] & near[1]])
    return float(np.log10((np.concatenate(across).mean() + FLOOR_HU) / (np.concatenate(beside).mean() + FLOOR_HU)))


def _likeness(fine: np.ndarray, mask: np.ndarray) -> float:
    """Correlation of neighboring pixels of a mask."""
    likeness = []
    for axis in (0, 1):
        first, second = (np.take(fine, range(n, fine.shape[axis] - 1 + n), axis) for n in (0, 1))
        both = np.take(mask, range(0, mask.shape[axis] - 1), axis) & np.take(mask, range(1, mask.shape[axis]), axis)
        likeness.append(np.stack([first[both], second[both]]))
    pairs = np.concatenate(likeness, axis=1)
    power = float((pairs**2).mean()) + FLOOR_HU**2
    return float((pairs[0] * pairs[1]).mean()) / power if pairs.size else 0.0


def told_apart(
    filled: Sequence[np.ndarray], untouched: Sequence[np.ndarray], patients: Sequence[str]
) -> dict[str, float]:
    """Patient -> AUC of a classifier that was trained on all the others; NaN for all with fewer than three patients.

    Args:
        filled, untouched: (patches, features) of each case; patients: of each case.
    """
    names = list(dict.fromkeys(patients))
    if len(names) < FEWEST_PATIENTS:
        return dict.fromkeys(names, float("nan"))
    features = np.concatenate([*filled, *untouched])
    target = np.repeat([1.0, 0.0], [sum(map(len, filled)), sum(map(len, untouched))])
    owner = np.concatenate(
        [np.full(len(x), names.index(p)) for part in (filled, untouched) for x, p in zip(part, patients, strict=True)]
    )
    share = 1 / np.bincount(owner, minlength=len(names))[owner]
    areas = {}
    for number, name in enumerate(names):
        others = owner != number
        middle, width = features[others].mean(axis=0), features[others].std(axis=0) + 1e-9
        scaled = np.clip((features - middle) / width, -5, 5)
        terms = np.concatenate([scaled, scaled**2 - 1, np.ones((len(scaled), 1))], axis=1)
        weights = logistic_weights(terms[others], target[others], share[others])
        scores = (terms @ weights)[~others]
        areas[name] = ranking(scores, target[~others] > 0).auroc
    return areas


def logistic_weights(terms: np.ndarray, target: np.ndarray, share: np.ndarray, penalty: float = PENALTY) -> np.ndarray:
    """Weights of a logistic regression by Newton's method; the last term is the constant, which is not penalized.

    Args:
        terms: (samples, terms); target: 0 or 1; share: weight of each sample.
    """
    ridge = np.full(terms.shape[1], penalty)
    ridge[-1] = 1e-6
    weights = np.zeros(terms.shape[1])
    for _ in range(50):
        probability = 1 / (1 + np.exp(-np.clip(terms @ weights, -30, 30)))
        slope = terms.T @ (share * (probability - target)) + ridge * weights
        curvature = (terms * (share * probability * (1 - probability))[:, None]).T @ terms + np.diag(ridge)
        step = np.linalg.solve(curvature, slope)
        weights -= step
        if np.abs(step).max() < 1e-8:
            break
    return weights
