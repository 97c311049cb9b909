"""Distances between sets of feature vectors. All sets are (samples, features) arrays."""

from __future__ import annotations

import numpy as np

NEIGHBORS = 3


def polynomial_kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(x . y / features + 1)^3, the kernel of KID (Binkowski et al. 2018, arXiv 1801.01401)."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    return (x @ y.T / x.shape[1] + 1) ** 3


def mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Squared maximum mean discrepancy under the kernel of KID, unbiased (Gretton et al. 2012, equation 3).

    0 on average for two samples of one distribution, so that it may fall below 0. MONAI's has a linear kernel, which
    sees means only.

    Raises:
        ValueError: fewer than two samples in a set.
    """
    if min(len(x), len(y)) < 2:
        raise ValueError("a discrepancy needs two samples in each set")
    return _within(x) + _within(y) - 2 * float(polynomial_kernel(x, y).mean())


def _within(x: np.ndarray) -> float:
    """Mean of the kernel over pairs of different samples."""
    kernel = polynomial_kernel(x, x)
    return float(kernel.sum() - np.trace(kernel)) / (len(x) * (len(x) - 1))


def coverage(samples: np.ndarray, manifold: np.ndarray, neighbors: int = NEIGHBORS) -> float:
    """Share of ``samples`` that lie on the manifold that a set of other samples spans.

    The manifold is the union of balls around its samples that reach to their third nearest neighbor. Precision is the
    coverage of synthetic samples by the real manifold, recall that of real ones by the synthetic manifold
    (Kynkaanniemi et al. 2019, arXiv 1904.06991).
    """
    from scipy.spatial.distance import cdist

    nearest = min(neighbors, len(manifold) - 1)
    radii = np.partition(cdist(manifold, manifold), nearest, axis=1)[:, nearest]
    return float((cdist(samples, manifold) <= radii).any(axis=1).mean())


def frechet(x: np.ndarray, y: np.ndarray) -> float:
    """Frechet distance of the normal distributions of two sets (Heusel et al. 2017); too large for few samples.

    As MONAI's ``FIDMetric``, which calls SciPy in a way that its next version refuses. Both sets are first turned into
    the space that they span together, which changes no distance and spares matrices with thousands of rows; the root
    of the product is taken through a symmetric matrix, so that no covariance is too singular.
    """
    together = np.concatenate([x, y]).astype(np.float64)
    middle = together.mean(axis=0)
    axes = np.linalg.svd(together - middle, full_matrices=False)[2]
    first, second = ((np.asarray(part, dtype=np.float64) - middle) @ axes.T for part in (x, y))
    moved = first.mean(axis=0) - second.mean(axis=0)
    covariances = [np.cov(part, rowvar=False).reshape(len(axes), -1) for part in (first, second)]
    values, vectors = np.linalg.eigh(covariances[0])
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    common = np.sqrt(np.linalg.eigvalsh(root @ covariances[1] @ root).clip(0)).sum()
    return float(moved @ moved + sum(np.trace(c) for c in covariances) - 2 * common)
