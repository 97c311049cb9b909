"""Lesion-wise detection: hits and false positives of a map's peaks.

The field's curve is FROC: share of lesions found against false findings a scan, one threshold for all scans. A reader
looks at the first findings of each scan instead, so that is measured too. Rules: a finding is a local maximum, the
highest voxel of a box that reaches 10 mm each way; findings of a scan are sorted by their score; in FROC a finding hits
the lesion that it lies in, among the first findings also one that is at most 3 mm away, a voxel of the map.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...core.lean_monai import lean_monai
from .metrics import Interval, bootstrap
from .regions import voxels_of

FALSE_POSITIVES = (1.0, 2.0, 4.0, 8.0)
"""False findings a case at which sensitivity is read."""
FIRST = (1, 2, 4, 8)
"""Findings of a scan among which a lesion is looked for."""
HIT_MM = 3.0
LARGE_MM = 8.0
"""Lesions of at least this diameter, that of the ball of equal volume, are counted apart."""
MOST = 300


def peaks(
    score: np.ndarray,
    mask: np.ndarray,
    spacing: tuple[float, float, float],
    separation_mm: float = 10.0,
    most: int = MOST,
) -> tuple[np.ndarray, np.ndarray]:
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
    places = np.argwhere(mask & (inside == maximum_filter(inside, size, mode="constant", cval=-np.inf)))
    heights = inside[tuple(places.T)]
    order = np.argsort(-heights, kind="stable")[:most]
    return heights[order], places[order]


def listed(
    score: np.ndarray, mask: np.ndarray, spacing: tuple[float, float, float], threshold: float, minimum_mm3: float
) -> np.ndarray:
    """Highest voxel (n, 3) of each finding above ``threshold``, highest first: the list that a user reads.

    Regions with several peaks are taken apart as in the task's list.

    Args:
        mask: findings whose highest voxel lies outside are left out.
        minimum_mm3: smaller ones are left out.
    """
    from scipy.ndimage import find_objects, label, maximum_position

    from ...tasks.anomaly.taken_apart import split

    labels, count = label(score > threshold, structure=np.ones((3, 3, 3)))
    for number, box in enumerate(find_objects(labels), start=1):
        region = labels[box] == number
        basins, parts = split(score[box], region, spacing[::-1])
        labels[box][region & (basins > 1)] = (basins + count - 1)[region & (basins > 1)]
        count += parts - 1
    sizes = np.bincount(labels.ravel(), minlength=count + 1) * float(np.prod(spacing))
    kept = [n for n in range(1, count + 1) if sizes[n] >= minimum_mm3]
    voxels = np.array(maximum_position(score, labels, kept) if kept else [], dtype=int).reshape(-1, 3)
    voxels = voxels[mask[tuple(voxels.T)]]
    return voxels[np.argsort(-score[tuple(voxels.T)], kind="stable")]


def ranks(voxels: np.ndarray, labels: np.ndarray, spacing: tuple[float, float, float]) -> list[int | None]:
    """For each lesion, in the order of its number, which finding is the first in it or within 3 mm; None for none.

    Args:
        voxels: (n, 3), most conspicuous first.
        labels: lesions 1, 2, ... on the same grid.
    """
    from scipy.spatial import cKDTree

    numbers = [int(n) for n in np.unique(labels) if n > 0]
    if not numbers or len(voxels) == 0:
        return [None] * len(numbers)
    size = np.array(spacing[::-1])
    lesion = np.argwhere(labels > 0)
    distance, nearest = cKDTree(lesion * size).query(voxels * size)
    hit = np.where(distance <= HIT_MM + 1e-6, labels[tuple(lesion[nearest].T)], 0)
    first = {int(n): int(np.flatnonzero(hit == n)[0]) + 1 for n in np.unique(hit) if n > 0}
    return [first.get(n) for n in numbers]


def diameters(labels: np.ndarray, spacing: tuple[float, float, float]) -> list[float]:
    """Diameter in mm of the ball of equal volume, lesion by lesion."""
    counts = np.bincount(labels.ravel())[1:]
    return [round(float(np.cbrt(6 / np.pi * n * np.prod(spacing))), 1) for n in counts if n]


def findings(
    score: np.ndarray, labels: np.ndarray, mask: np.ndarray, spacing: tuple[float, float, float]
) -> tuple[list[float], list[float]]:
    """Scores of the false findings and, lesion by lesion, the score of the best finding in it (-inf when missed).

    Args:
        labels: lesions 1, 2, ... on the map's grid; a peak counts when it lies in one.
        mask: where findings count at all.
    """
    return scored(*peaks(score, mask, spacing), labels)


def scored(heights: np.ndarray, voxels: np.ndarray, labels: np.ndarray) -> tuple[list[float], list[float]]:
    """The same from findings."""
    lean_monai()
    from monai.metrics.froc import compute_fp_tp_probs_nd

    numbers = [int(n) for n in np.unique(labels) if n > 0]
    if len(heights) == 0:
        return [], [float("-inf")] * len(numbers)
    hit = labels[tuple(voxels.T)]
    # MONAI marks a missed lesion by probability 0, so scores are moved above it and back.
    lift = 1.0 - float(heights.min())
    false, true, _ = compute_fp_tp_probs_nd(heights + lift, voxels, labels)
    best = [float(true[n - 1]) - lift if n in hit else float("-inf") for n in numbers]
    return (np.asarray(false, dtype=np.float64) - lift).tolist(), best


def sensitivity(
    false: list[list[float]], best: list[list[float]], rates: tuple[float, ...] = FALSE_POSITIVES
) -> dict[float, float]:
    """Share of lesions found when the threshold allows so many false findings a case (FROC).

    Args:
        false: scores of the false findings, case by case.
        best: best score in each lesion, case by case.
    """
    pooled = np.sort(np.concatenate([np.asarray(f, dtype=np.float64) for f in false]))[::-1]
    lesions = np.concatenate([np.asarray(b, dtype=np.float64) for b in best])
    if lesions.size == 0:
        return {rate: float("nan") for rate in rates}
    intervals = {}
    for rate in rates:
        allowed = int(rate * len(false))
        threshold = pooled[allowed] if allowed < pooled.size else -np.inf
        intervals[rate] = float(np.mean(lesions > threshold))
    return intervals


def among_first(
    ranks: Sequence[Sequence[int | None]],
    sizes: Sequence[Sequence[float]],
    patients: Sequence[str],
    least_mm: float = 0.0,
    first: Sequence[int] = FIRST,
) -> dict[int, Interval]:
    """Share of lesions hit by the first findings of their scan, with intervals from drawing patients.

    Args:
        ranks: from :func:`ranks`, case by case.
        sizes: diameters, case by case.
        least_mm: smaller lesions do not count.
    """
    lesions = [
        (rank, patient)
        for case, widths, patient in zip(ranks, sizes, patients, strict=True)
        for rank, width in zip(case, widths, strict=True)
        if width >= least_mm
    ]
    owners = [patient for _, patient in lesions]
    return {n: bootstrap([float(r is not None and r <= n) for r, _ in lesions], owners) for n in first}
