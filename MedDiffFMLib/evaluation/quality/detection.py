"""Lesion-wise detection: hits and false positives of a map's peaks."""

from __future__ import annotations

import numpy as np

from .regions import voxels_of

FALSE_POSITIVES = (1.0, 2.0, 4.0, 8.0)
"""False findings a case at which sensitivity is read."""


def peaks(score: np.ndarray, mask: np.ndarray, spacing: tuple[float, float, float], separation_mm: float = 10.0,
          most: int = 300) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Local maxima of a map inside ``mask``, the highest ``most``.

    Args:
        score: (k, j, i); spacing: (i, j, k) in mm.
        separation_mm: a peak is the highest voxel in a box of twice this edge.

    Returns:
        scores (n,) falling, and voxels (n, 3).
    """
    from scipy.ndimage import maximum_filter

    inside = np.where(mask, score, -np.inf).astype(np.float32)
    size = [2 * max(1, round(v)) + 1 for v in voxels_of(spacing, separation_mm)]
    found = np.argwhere(mask & (inside == maximum_filter(inside, size, mode="constant", cval=-np.inf)))
    heights = inside[tuple(found.T)]
    order = np.argsort(-heights, kind="stable")[:most]
    return heights[order], found[order]


def findings(score: np.ndarray, labels: np.ndarray, mask: np.ndarray,
             spacing: tuple[float, float, float]) -> tuple[list[float], list[float]]:  # fmt: skip
    """Scores of the false findings and, lesion by lesion, the score of the best finding in it (-inf when missed).

    Args:
        labels: lesions 1, 2, ... on the map's grid; a peak counts when it lies in one.
        mask: where findings count at all.
    """
    from monai.metrics.froc import compute_fp_tp_probs_nd

    heights, voxels = peaks(score, mask, spacing)
    numbers = [int(n) for n in np.unique(labels) if n > 0]
    if len(heights) == 0:
        return [], [float("-inf")] * len(numbers)
    hit = labels[tuple(voxels.T)]
    # MONAI marks a missed lesion by probability 0, so scores are moved above it and back.
    lift = 1.0 - float(heights.min())
    false, true, _ = compute_fp_tp_probs_nd(heights + lift, voxels, labels)
    best = [float(true[n - 1]) - lift if n in hit else float("-inf") for n in numbers]
    return (np.asarray(false, dtype=np.float64) - lift).tolist(), best


def sensitivity(false: list[list[float]], best: list[list[float]],
                rates: tuple[float, ...] = FALSE_POSITIVES) -> dict[float, float]:  # fmt: skip
    """Share of lesions found when the threshold allows so many false findings a case (FROC).

    Args:
        false: scores of the false findings, case by case.
        best: best score in each lesion, case by case.
    """
    pooled = np.sort(np.concatenate([np.asarray(f, dtype=np.float64) for f in false]))[::-1]
    lesions = np.concatenate([np.asarray(b, dtype=np.float64) for b in best])
    if lesions.size == 0:
        return {rate: float("nan") for rate in rates}
    found = {}
    for rate in rates:
        allowed = int(rate * len(false))
        threshold = pooled[allowed] if allowed < pooled.size else -np.inf
        found[rate] = float(np.mean(lesions > threshold))
    return found
