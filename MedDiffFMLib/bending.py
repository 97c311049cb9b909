"""The surface of least bending through the voxels around a hole (biharmonic interpolation)."""

from __future__ import annotations

from typing import Any

import numpy as np


def bending_system(around: np.ndarray, hole: np.ndarray, spacing: tuple[float, float, float]) -> tuple[Any, np.ndarray]:
    """Matrix and right side whose solution minimizes the squared Laplacian in ``hole``, everything else fixed.

    Args:
        around: (k, j, i), float64.
        hole: bool of that shape.
        spacing: (i, j, k) in mm.
    """
    matrix, response = bending_response(hole, spacing)
    return matrix, response @ around.ravel()[~hole.ravel()]


def bending_response(hole: np.ndarray, spacing: tuple[float, float, float]) -> tuple[Any, Any]:
    """Sparse matrices M and R with M x = R y for the values x in ``hole`` of least bending, y those around it.

    Voxel edges enter the Laplacian, which scikit-image's ``inpaint_biharmonic`` takes as equal.

    Args:
        hole: bool (k, j, i).
        spacing: (i, j, k) in mm.
    """
    from scipy.sparse import csr_array, diags_array, eye_array, kron

    edges = spacing[::-1]
    laplacian = csr_array((hole.size, hole.size))
    for axis, (n, edge) in enumerate(zip(hole.shape, edges, strict=True)):
        line = diags_array([1.0, -2.0, 1.0], offsets=[-1, 0, 1], shape=(n, n)).tolil()
        line[0, 0] = line[-1, -1] = -1.0
        before, after = int(np.prod(hole.shape[:axis])), int(np.prod(hole.shape[axis + 1 :]))
        term = kron(kron(eye_array(before), line.tocsr()), eye_array(after), format="csr")
        laplacian = laplacian + term * (min(edges) / edge) ** 2
    unknown = hole.ravel()
    inside = laplacian[:, unknown]
    return (inside.T @ inside).tocsc(), -(inside.T @ laplacian[:, ~unknown])


def bend_through(
    image: np.ndarray, hole: np.ndarray, start: np.ndarray, spacing: tuple[float, float, float], iterations: int = 400
) -> np.ndarray:
    """``image`` with its hole bent through, in bounded time: conjugate gradients from a first guess.

    The result stays within the range of the voxels right around the hole, which bending would otherwise leave.

    Args:
        image: (k, j, i); what lies in the hole is ignored.
        start: first guess, same shape.
    """
    from scipy.ndimage import binary_dilation
    from scipy.sparse.linalg import cg

    filled = np.where(hole, start, image).astype(np.float64)
    if not hole.any() or hole.all():
        return filled
    margin = 3
    box = tuple(
        slice(max(edge.min() - margin, 0), edge.max() + margin + 1) for edge in (axis for axis in np.nonzero(hole))
    )
    part = hole[box]
    matrix, right = bending_system(filled[box], part, spacing)
    solved, _ = cg(matrix, right, x0=filled[box][part], rtol=1e-5, maxiter=iterations)
    ring = binary_dilation(part, iterations=2) & ~part
    low, high = np.percentile(filled[box][ring], [1, 99]) if ring.any() else (solved.min(), solved.max())
    filled[box][part] = np.clip(solved, low, high)
    return filled
