"""Biharmonic interpolation: the surface of least bending through the voxels around a hole."""

from __future__ import annotations

from typing import Any

import numpy as np


def biharmonic_system(
    around: np.ndarray, hole: np.ndarray, spacing: tuple[float, float, float]
) -> tuple[Any, np.ndarray]:
    """Matrix and right side whose solution minimizes the squared Laplacian in ``hole``, everything else fixed.

    Args:
        around: (k, j, i), float64.
        hole: bool of that shape.
        spacing: (i, j, k) in mm.
    """
    matrix, response = biharmonic_response(hole, spacing)
    return matrix, response @ around.ravel()[~hole.ravel()]


def biharmonic_response(hole: np.ndarray, spacing: tuple[float, float, float]) -> tuple[Any, Any]:
    """Sparse matrices M and R with M x = R y for the values x in ``hole`` of least bending, y those around it.

    Voxel edges enter the Laplacian, which scikit-image's ``inpaint_biharmonic`` takes as equal.

    Args:
        hole: bool (k, j, i).
        spacing: (i, j, k) in mm.
    """
    unknown = hole.ravel()
    laplacian = _laplacian_near(hole, spacing)
    inside = laplacian[:, unknown]
    return (inside.T @ inside).tocsc(), -(inside.T @ laplacian[:, ~unknown])


def _laplacian_near(hole: np.ndarray, spacing: tuple[float, float, float]) -> Any:
    """Rows of the Laplacian, reflecting at the borders, of the voxels that are in ``hole`` or touch it by a face.

    The other rows look at no unknown voxel. With findings all over a scan they would be most of it, at 100 bytes each.
    """
    from scipy.ndimage import binary_dilation
    from scipy.sparse import csr_array

    near = np.flatnonzero(binary_dilation(hole))  # its default structure is the six faces
    place = np.unravel_index(near, hole.shape)
    rows = np.arange(len(near))
    laplacian = csr_array((len(near), hole.size))
    edges, stride = spacing[::-1], hole.size
    for index, n, edge in zip(place, hole.shape, edges, strict=True):
        stride //= n
        lower, upper = index > 0, index < n - 1
        entries = np.concatenate([-1.0 * lower - upper, np.ones(lower.sum() + upper.sum())])
        columns = np.concatenate([near, near[lower] - stride, near[upper] + stride])
        line = csr_array((entries, (np.concatenate([rows, rows[lower], rows[upper]]), columns)), shape=laplacian.shape)
        laplacian = laplacian + line * (min(edges) / edge) ** 2
    return laplacian


def conjugate_gradients(matrix: Any, right: np.ndarray, x: np.ndarray, rtol: float, iterations: int) -> np.ndarray:
    """Solution of ``matrix @ x = right``, symmetric and positive, from a first guess, in bounded time.

    SciPy's ``cg`` takes its inner products from the BLAS, whose threads wait for each other at every one: on two busy
    cores that costs sixteen times the processor time of the rest.
    """
    residual = right - matrix @ x
    direction, energy = residual.copy(), _inner(residual, residual)
    enough = rtol**2 * _inner(right, right)
    for _ in range(iterations):
        if energy <= enough:
            break
        image = matrix @ direction
        step = energy / _inner(direction, image)
        x = x + step * direction
        residual -= step * image
        energy, before = _inner(residual, residual), energy
        direction = residual + (energy / before) * direction
    return x


def _inner(a: np.ndarray, b: np.ndarray) -> float:
    """Inner product without the BLAS."""
    return float(np.einsum("i,i->", a, b))


def biharmonic_interpolation(
    image: np.ndarray, hole: np.ndarray, start: np.ndarray, spacing: tuple[float, float, float], iterations: int = 400
) -> np.ndarray:
    """``image`` with its hole bent through, in bounded time: conjugate gradients from a first guess.

    The result stays within the range of the voxels right around the hole, which bending would otherwise leave.

    Args:
        image: (k, j, i); what lies in the hole is ignored.
        start: first guess, same shape.
    """
    from scipy.ndimage import binary_dilation

    filled = np.where(hole, start, image).astype(np.float64)
    if not hole.any() or hole.all():
        return filled
    margin = 3
    box = tuple(
        slice(max(edge.min() - margin, 0), edge.max() + margin + 1) for edge in (axis for axis in np.nonzero(hole))
    )
    part = hole[box]
    matrix, right = biharmonic_system(filled[box], part, spacing)
    solved = conjugate_gradients(matrix, right, filled[box][part], 1e-5, iterations)
    ring = binary_dilation(part, iterations=2) & ~part
    low, high = np.percentile(filled[box][ring], [1, 99]) if ring.any() else (solved.min(), solved.max())
    filled[box][part] = np.clip(solved, low, high)
    return filled
