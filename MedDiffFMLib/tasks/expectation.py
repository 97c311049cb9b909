"""What the model expects of each voxel when it sees only what is around it.

The volume is covered with a lattice of cubes that are hidden, as many apart as they are wide, and the network says
what belongs into them; shifted lattices hide every voxel in turn. A lesion that fits into a cube is never seen while
its place is judged, whereas noising a whole volume, as MedDiff-FM does (arXiv 2410.15432, 1.6 b), has to blur all of
it to forget one lesion.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..inference.control import ProgressMeter
    from ..inference.engine import Engine
    from .working import WorkingImage

SIGMA = 4.0
"""Noise in the hidden cubes, units of 1000 HU: nothing of the image is left, one network call gives its expectation."""
OVERLAP = 8
"""Voxels that windows share: the surroundings of a cube end where the next one begins."""
MARGIN = 3
"""Known voxels around a cube that the surface of least bending runs through."""
SETS = ((0.0, 0.0, 0.0), (0.5, 0.5, 0.5))
"""Shifts of the lattice in cube edges. In each set every voxel is hidden once; what lies at a face of a cube in one
lies in the middle of a cube in the other."""


@dataclass(frozen=True)
class Expectation:
    """What was expected with one size of hidden cubes.

    Attributes:
        edge_mm: edge of the cubes.
        expected: (D, H, W) HU.
        residual: (D, H, W) HU, image minus expectation, smoothed.
    """

    edge_mm: float
    expected: np.ndarray
    residual: np.ndarray


def lattices(sets: int = len(SETS)) -> int:
    """Number of shifted lattices, each of which costs one network evaluation."""
    return 8 * sets


def expect(
    image: WorkingImage,
    engine: Engine,
    edge_mm: float,
    *,
    smoothing: float,
    sets: int = len(SETS),
    seed: int = 0,
    meter: ProgressMeter | None = None,
    wanted: np.ndarray | None = None,
) -> Expectation:
    """Hide every voxel in turn and ask the network for it.

    Args:
        edge_mm: edge of the hidden cubes, a little more than the largest lesion to be found.
        smoothing: standard deviation in mm of the Gaussian over the residual.
        sets: how many of ``SETS`` are averaged.
        wanted: (D, H, W) bool, where the answer matters; windows far from all of it are not computed and taken as air.
    """
    import torch
    from scipy.ndimage import gaussian_filter

    from ..diffusion.sampler import noise_like
    from ..inference.blended import BlendedDenoiser

    known = image.network_input()[0, 0]
    edge = (_voxels(edge_mm, image.spacing_kji[0]), _voxels(edge_mm, image.spacing_kji[1]),
            _voxels(edge_mm, image.spacing_kji[2]))  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    total, weights = torch.zeros_like(known), torch.zeros_like(known)
    near = None if wanted is None else torch.from_numpy(_surroundings(wanted, smoothing, image.spacing_kji))
    for shift in SETS[:sets]:
        for corner in product((0, 1), repeat=3):
            first = tuple(round((c + s) * e) for c, s, e in zip(corner, shift, edge, strict=True))
            depth = torch.from_numpy(lattice_depth(image.shape, edge, first))
            hole = (depth > 0).float()
            guess = torch.from_numpy(bend_lattice(known.numpy(), edge, first, image.spacing_kji))
            condition = replace(image.condition, known=guess, hole=hole)
            denoiser = BlendedDenoiser(engine, condition, image.shape, meter, overlap=OVERLAP, wanted=near)
            noisy = guess + SIGMA * noise_like(guess, generator)
            total += depth**2 * denoiser(noisy[None, None], SIGMA)[0, 0]
            weights += depth**2
    expected = total / weights
    width = [smoothing / s for s in image.spacing_kji]
    residual = gaussian_filter((known - expected).numpy() * 1000, width)
    return Expectation(edge_mm, expected.numpy() * 1000, residual)


def _surroundings(wanted: np.ndarray, smoothing: float, spacing: tuple[float, float, float]) -> np.ndarray:
    """All voxels that the residual and the kind of tissue of the wanted ones are computed from."""
    from scipy.ndimage import maximum_filter

    from .residual import EDGE_WIDTH_MM

    reach = 4 * max(smoothing, EDGE_WIDTH_MM)  # SciPy's Gaussians end there
    return maximum_filter(wanted, [2 * int(np.ceil(reach / s) + 1) + 1 for s in spacing])


def _voxels(millimeters: float, spacing: float) -> int:
    """An even number of voxels, at least 4."""
    return max(4, 2 * round(millimeters / spacing / 2))


def lattice_depth(shape: tuple[int, int, int], edge: tuple[int, int, int], first: tuple[int, ...]) -> np.ndarray:
    """How deep each voxel lies in its cube, 0 outside of cubes and near 1 in the middle; float32.

    The product of a tent along each axis: the deeper a voxel, the less its surroundings betray of it.

    Args:
        edge: of the cubes, in voxels; the gaps are as wide.
        first: first voxel of a cube.
    """
    lines = []
    for n, e, f in zip(shape, edge, first, strict=True):
        position = np.mod(np.arange(n) - f, 2 * e)
        tent = np.minimum(position + 0.5, e - position - 0.5) / (e / 2)
        lines.append(np.where(position < e, tent, 0).astype(np.float32))
    return lines[0][:, None, None] * lines[1][None, :, None] * lines[2][None, None, :]


def bend_lattice(
    image: np.ndarray, edge: tuple[int, int, int], first: tuple[int, ...], spacing: tuple[float, float, float]
) -> np.ndarray:
    """``image`` (k, j, i) with the surface of least bending in every cube of a lattice.

    All cubes are alike, so one matrix from a cube's surroundings to its content serves them all. Beyond its borders
    the image is continued by reflection.
    """
    import torch

    response, inside = _bending_response(edge, spacing)
    block = tuple(e + 2 * MARGIN for e in edge)
    before = [2 * e + MARGIN for e in edge]  # room for a cube that begins before the image
    padded = np.pad(image, [(b, 2 * b) for b in before], mode="symmetric").astype(np.float32)
    start = [b + f % (2 * e) - 2 * e - MARGIN for b, f, e in zip(before, first, edge, strict=True)]
    every = tuple(slice(s, None, 2 * e) for s, e in zip(start, edge, strict=True))
    views = np.lib.stride_tricks.sliding_window_view(padded, block, writeable=True)[every]  # type: ignore[call-overload]
    around = views.reshape(-1, *block)[:, ~inside]
    # Not NumPy's product: the threads of its BLAS spin between calls, on the cores that the network needs.
    content = (torch.from_numpy(around) @ torch.from_numpy(response)).numpy()
    filled = views[..., MARGIN:-MARGIN, MARGIN:-MARGIN, MARGIN:-MARGIN]
    filled[...] = content.reshape(filled.shape)
    return padded[tuple(slice(b, b + n) for b, n in zip(before, image.shape, strict=True))].copy()


@lru_cache(maxsize=8)
def _bending_response(edge: tuple[int, int, int], spacing: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Matrix (surroundings, content) of one cube, float32, and which voxels of its block are content."""
    from scipy.sparse.linalg import splu

    from ..bending import bending_response

    block = tuple(e + 2 * MARGIN for e in edge)
    inside = np.zeros(block, dtype=bool)
    inside[MARGIN:-MARGIN, MARGIN:-MARGIN, MARGIN:-MARGIN] = True
    k, j, i = spacing
    matrix, right = bending_response(inside, (i, j, k))
    # The block is its own mirror image along each axis: one octant of the surroundings answers for all of them.
    halves = tuple(slice(-(-n // 2)) for n in block)
    number = np.full(block, -1)
    number[~inside] = np.arange(np.count_nonzero(~inside))
    asked = number[halves][~inside[halves]]
    factors = splu(matrix, permc_spec="MMD_AT_PLUS_A")
    solved = factors.solve(right[:, asked].toarray()).astype(np.float32).reshape(*edge, -1)
    response = np.empty((np.count_nonzero(~inside), *edge), np.float32)
    for mirrored in product((1, -1), repeat=3):
        turn = tuple(slice(None, None, step) for step in mirrored)
        response[number[turn][halves][~inside[halves]]] = np.moveaxis(solved[turn], -1, 0)
    return response.reshape(len(response), -1), inside
