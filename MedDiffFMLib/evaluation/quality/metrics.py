"""Figures of merit in Hounsfield units and over masks, and confidence intervals of their means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

WINDOW_HU = (-160.0, 240.0)
"""The window in which low-dose CT is compared (AAPM Mayo challenge)."""


def windowed(hounsfield: np.ndarray, window: tuple[float, float] = WINDOW_HU) -> np.ndarray:
    """HU cut to the window, float64."""
    return np.clip(np.asarray(hounsfield, dtype=np.float64), *window)


def psnr(image: np.ndarray, truth: np.ndarray, mask: np.ndarray, window: tuple[float, float] = WINDOW_HU) -> float:
    """Peak signal-to-noise ratio in dB inside the window and the mask; infinite for equal images."""
    error = windowed(image, window)[mask] - windowed(truth, window)[mask]
    mean_square = float(np.mean(error**2))
    if mean_square == 0:
        return float("inf")
    return float(10 * np.log10((window[1] - window[0]) ** 2 / mean_square))


def ssim(image: np.ndarray, truth: np.ndarray, mask: np.ndarray, window: tuple[float, float] = WINDOW_HU) -> float:
    """Structural similarity inside the window: axial slices, Gaussian weights of 1.5 pixels, mean over the mask."""
    from skimage.metrics import structural_similarity

    total = 0.0
    for k in np.flatnonzero(mask.any(axis=(1, 2))):
        _, similarity = structural_similarity(
            windowed(image[k], window),
            windowed(truth[k], window),
            data_range=window[1] - window[0],
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )
        total += float(similarity[mask[k]].sum())
    return total / int(mask.sum())


def mean_absolute_error(image: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """Mean absolute difference inside the mask, HU."""
    return float(np.mean(np.abs(np.asarray(image, np.float64)[mask] - np.asarray(truth, np.float64)[mask])))


def texture_ratio(image: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """Standard deviation inside the mask over the true one: 0 for a flat fill, 1 for tissue as lively as it was."""
    deviation = float(np.asarray(truth, np.float64)[mask].std())
    return float(np.asarray(image, np.float64)[mask].std()) / deviation if deviation > 0 else float("nan")


@dataclass(frozen=True)
class Ranking:
    """Quality of the order in which scores put voxels, exact (every distinct score is a threshold).

    Attributes:
        auroc: area under the ROC curve; chance is 0.5.
        average_precision: area under the precision-recall curve, as a sum of steps; chance is ``prevalence``.
        prevalence: share of positives.
    """

    auroc: float
    average_precision: float
    prevalence: float


def ranking(scores: np.ndarray, positives: np.ndarray) -> Ranking:
    """AUROC and average precision of any number of voxels; equal scores count as one threshold.

    Returns NaN where there are no positives or no negatives.
    """
    scores, positives = np.asarray(scores).ravel(), np.asarray(positives, dtype=bool).ravel()
    return rank_against(np.sort(scores[~positives]), scores[positives])


def rank_against(negatives: np.ndarray, positives: np.ndarray) -> Ranking:
    """The same from scores: ``negatives`` sorted, so that many small sets are ranked against the same million voxels.

    Recall changes only at the scores of positives, so these are all the thresholds that average precision has.
    """
    total, rest = positives.size, negatives.size
    if total == 0 or rest == 0:
        return Ranking(float("nan"), float("nan"), total / max(total + rest, 1))
    thresholds, counts = np.unique(positives, return_counts=True)
    below, upto = (np.searchsorted(negatives, thresholds, side) for side in ("left", "right"))
    area = float(np.sum(counts * (below + upto) / 2.0)) / (total * rest)
    hits = np.cumsum(counts[::-1])[::-1]
    precision = hits / (hits + rest - below)
    return Ranking(area, float(np.sum(counts * precision)) / total, total / (total + rest))


EARLY = 0.3
"""False positive rate up to which maps of anomalies are compared (MVTec AD, Bergmann et al. 2021, and Screener)."""


def false_positive_rates(
    negatives: np.ndarray, positives: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Share of the negatives that score above each positive, and share of those that score at least as high.

    Between the two the ROC curve is a straight line.

    Args:
        negatives: sorted.
        weights: of the negatives, in their order; equal ones when not given.
    """
    below, upto = (np.searchsorted(negatives, positives, side) for side in ("left", "right"))
    if weights is None:
        return 1 - upto / negatives.size, 1 - below / negatives.size
    sums = np.concatenate([[0.0], np.cumsum(weights, dtype=np.float64)])
    return 1 - sums[upto] / sums[-1], 1 - sums[below] / sums[-1]


def areas(above: np.ndarray, at_least: np.ndarray, limit: float = 1.0) -> np.ndarray:
    """Share of each positive in the ROC curve: its area up to a false positive rate of ``limit``, over the limit.

    The mean over all positives is the (partial) AUROC; the mean over lesions of the means over their voxels is the area
    under the per-region overlap (AUPRO), since a region's overlap rises where one of its voxels passes the threshold.
    Chance gives half the limit.

    Args:
        above, at_least: from :func:`false_positive_rates`.
    """
    width = np.maximum(at_least - above, 1e-12)
    cut = np.clip(limit - above, 0, None) ** 2 / (2 * width)
    return np.where(at_least <= limit, limit - (above + at_least) / 2, cut) / limit


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float
    count: int


def bootstrap(values: list[float], groups: list[str] | None = None, repeats: int = 2000, seed: int = 0) -> Interval:
    """Mean over cases and its 95 % percentile interval, by drawing cases with replacement.

    Args:
        values: one a case; NaN (nothing to measure) is left out.
        groups: patients; cases of one patient are drawn together.
    """
    groups = groups if groups is not None else [str(n) for n in range(len(values))]
    kept = [(v, g) for v, g in zip(values, groups, strict=True) if np.isfinite(v)]
    if not kept:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    numbers = np.array([v for v, _ in kept], dtype=np.float64)
    names, member = np.unique([g for _, g in kept], return_inverse=True)
    sums, sizes = np.bincount(member, numbers), np.bincount(member)
    drawn = np.random.default_rng(seed).integers(0, names.size, (repeats, names.size))
    low, high = np.percentile(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), [2.5, 97.5])
    return Interval(float(numbers.mean()), float(low), float(high), numbers.size)


def wins(values: list[float], others: list[float], higher_is_better: bool) -> tuple[int, int]:
    """Number of cases in which ``values`` are strictly better, and of those that both have."""
    sign = 1 if higher_is_better else -1
    pairs = [(a, b) for a, b in zip(values, others, strict=True) if np.isfinite(a) and np.isfinite(b)]
    return sum(sign * (a - b) > 0 for a, b in pairs), len(pairs)
