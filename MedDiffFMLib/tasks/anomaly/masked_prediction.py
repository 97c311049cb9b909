"""Masked prediction: each voxel predicted from its surroundings alone.

The volume is covered with a lattice of cubes that are hidden, as many apart as they are wide, and the network says
what belongs into them; shifted lattices hide every voxel in turn. A lesion that fits into a cube is never seen while
its place is judged, whereas noising a whole volume, as MedDiff-FM does (arXiv 2410.15432, 1.6 b), has to blur all of
it to forget one lesion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from .cube_lattice import Triple, biharmonic_lattice, lattice_lines

if TYPE_CHECKING:
    import torch

    from ...core.progress import ProgressMeter
    from ...inference.engine import Engine
    from ...preprocessing.working_image import WorkingImage

SIGMA = 4.0
"""Noise in the hidden cubes, units of 1000 HU: nothing of the image is left, one network call gives its expectation."""
OVERLAP = 8
"""Voxels that windows share: the surroundings of a cube end where the next one begins."""
SETS = ((0.0, 0.0, 0.0), (0.5, 0.5, 0.5))
"""Shifts of the lattice in cube edges. In each set every voxel is hidden once; what lies at a face of a cube in one
lies in the middle of a cube in the other."""
EDGE_WIDTH_MM = 3.0
"""Standard deviation of the Gaussian before an expectation's edges are measured, see ``z_score``."""


@dataclass(frozen=True)
class MaskedPrediction:
    """Expectation with one size of hidden cubes.

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


def predict_masked(
    image: WorkingImage,
    engine: Engine,
    edge_mm: float,
    *,
    smoothing: float,
    sets: int = len(SETS),
    seed: int = 0,
    meter: ProgressMeter | None = None,
    wanted: np.ndarray | None = None,
) -> MaskedPrediction:
    """Hide every voxel in turn and ask the network for it.

    Args:
        edge_mm: edge of the hidden cubes, a little more than the largest lesion to be found.
        smoothing: standard deviation in mm of the Gaussian over the residual.
        sets: how many of ``SETS`` are averaged.
        wanted: (D, H, W) bool, where the answer matters; windows far from all of it are not computed and taken as air.
    """
    import torch
    from scipy.ndimage import gaussian_filter

    known = image.network_input()[0, 0]
    edge = (
        _voxels(edge_mm, image.spacing_kji[0]),
        _voxels(edge_mm, image.spacing_kji[1]),
        _voxels(edge_mm, image.spacing_kji[2]),
    )
    generator = torch.Generator().manual_seed(seed)
    near = None if wanted is None else torch.from_numpy(_surroundings(wanted, smoothing, image.spacing_kji))
    expected, weights = torch.zeros_like(known), torch.zeros_like(known)
    for shift in SETS[:sets]:
        for corner in product((0, 1), repeat=3):
            first = tuple(round((c + s) * e) for c, s, e in zip(corner, shift, edge, strict=True))
            lines = [torch.from_numpy(line) for line in lattice_lines(image.shape, edge, first)]
            hidden = _expect_hidden(image, engine, known, edge, first, generator, meter, near)
            _add_hidden(expected, weights, hidden, lines)
    expected /= weights
    del weights, hidden
    residual = ((known - expected) * 1000).numpy()
    gaussian_filter(residual, [smoothing / s for s in image.spacing_kji], output=residual)
    expected *= 1000
    return MaskedPrediction(edge_mm, expected.numpy(), residual)


def _expect_hidden(
    image: WorkingImage,
    engine: Engine,
    known: torch.Tensor,
    edge: Triple,
    first: tuple[int, ...],
    generator: torch.Generator,
    meter: ProgressMeter | None,
    near: torch.Tensor | None,
) -> torch.Tensor:
    """Expectation of the network where it sees the gaps of one lattice alone; (D, H, W), network range."""
    import torch

    from ...diffusion.samplers import noise_like
    from ...inference.sliding_window import SlidingWindowDenoiser

    k, j, i = ((torch.from_numpy(line) > 0).float() for line in lattice_lines(image.shape, edge, first))
    guess = torch.from_numpy(biharmonic_lattice(known.numpy(), edge, first, image.spacing_kji))
    condition = replace(image.condition, known=guess, hole=k[:, None, None] * j[:, None] * i)
    denoiser = SlidingWindowDenoiser(engine, condition, image.shape, meter, overlap=OVERLAP, wanted=near)
    noisy = noise_like(guess, generator).mul_(SIGMA).add_(guess)
    return denoiser(noisy[None, None], SIGMA)[0, 0]


def _add_hidden(
    total: torch.Tensor, weights: torch.Tensor, hidden: torch.Tensor, lines: Sequence[torch.Tensor]
) -> None:
    """Add what lies in cubes, weighted by the square of its depth; of a lattice that is an eighth of the volume."""
    k, j, i = (line.nonzero()[:, 0] for line in lines)
    depth = lines[0][k][:, None, None] * lines[1][j][:, None] * lines[2][i]
    cubes = (k[:, None, None], j[:, None], i)
    weights[cubes] += depth**2
    total[cubes] += depth**2 * hidden[cubes]


def _surroundings(wanted: np.ndarray, smoothing: float, spacing: tuple[float, float, float]) -> np.ndarray:
    """All voxels that the residual and the kind of tissue of the wanted ones are computed from."""
    from scipy.ndimage import maximum_filter

    reach = 4 * max(smoothing, EDGE_WIDTH_MM)  # SciPy's Gaussians end there
    return maximum_filter(wanted, [2 * int(np.ceil(reach / s) + 1) + 1 for s in spacing])


def _voxels(millimeters: float, spacing: float) -> int:
    """An even number of voxels, at least 4."""
    return max(4, 2 * round(millimeters / spacing / 2))
