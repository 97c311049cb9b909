"""Mutual information of two images, normalized: 1 where they have nothing in common, 2 where one tells the other."""

from __future__ import annotations

import numpy as np

BINS = 64


def normalized_mutual_information(first: np.ndarray, second: np.ndarray, bins: int = BINS) -> float:
    """(H(a) + H(b)) / H(a, b) of two images of the same voxels (Studholme et al. 1999).

    Args:
        first, second: (n,), any unit; bins are of equal width between the 0.5th and the 99.5th percentile.
    """
    places = []
    for values in (first, second):
        low, high = np.percentile(values, (0.5, 99.5))
        places.append(np.clip((np.asarray(values, float) - low) / max(high - low, 1e-9), 0, 1) * (bins - 1e-9))
    joint = np.bincount((places[0].astype(int) * bins + places[1].astype(int)), minlength=bins * bins)
    table = joint.reshape(bins, bins) / joint.sum()
    return float((_entropy(table.sum(0)) + _entropy(table.sum(1))) / _entropy(table))


def _entropy(shares: np.ndarray) -> float:
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())
