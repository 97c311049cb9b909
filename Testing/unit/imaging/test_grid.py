"""There and back between input geometry and working grid, against float64 references."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.imaging.grid import Grid, from_grid, to_grid, working_grid
from MedDiffFMLib.imaging.volume import Volume

PROPERTY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
LPS = np.diag([-1.0, -1.0, 1.0])


def rotation(quaternion: tuple[float, float, float, float]) -> np.ndarray:
    """3x3 rotation; any non-zero quaternion."""
    w, x, y, z = np.array(quaternion) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


@st.composite
def geometries(draw: st.DrawFn, oblique: bool = True) -> Volume:
    """An empty volume: oblique (or exactly along the axes), flipped, permuted, anisotropic, translated."""
    shape = tuple(draw(st.integers(5, 16)) for _ in range(3))
    spacing = np.array([draw(st.floats(0.6, 5.0)) for _ in range(3)])
    signs = np.array([draw(st.sampled_from((-1.0, 1.0))) for _ in range(3)])
    directions = np.eye(3)[:, list(draw(st.permutations(range(3))))] * signs
    if oblique and draw(st.booleans()):
        unit = st.floats(-1.0, 1.0)
        quaternion = draw(st.tuples(unit, unit, unit, unit).filter(lambda q: np.linalg.norm(q) > 0.1))
        directions = rotation(quaternion) @ directions
    matrix = np.eye(4)
    matrix[:3, :3] = directions * spacing
    matrix[:3, 3] = [draw(st.floats(-500, 500)) for _ in range(3)]
    return Volume(np.zeros(shape, np.float32), matrix)


def slightly_tilted() -> Volume:
    """Nearly along the axes: 0.3 degrees off, as registered scans are."""
    matrix = np.diag([-1.0, -1.0, 2.5, 1.0])
    matrix[:3, :3] = rotation((1.0, 0.002, -0.001, 0.0015)) @ matrix[:3, :3]
    return Volume(np.zeros((12, 16, 16), np.float32), matrix)


def centers(shape: tuple[int, ...], matrix: np.ndarray) -> np.ndarray:
    """RAS mm of every voxel center, (k, j, i, 3), float64."""
    k, j, i = np.meshgrid(*(np.arange(n, dtype=float) for n in shape), indexing="ij")
    return np.stack([i, j, k], axis=-1) @ matrix[:3, :3].T + matrix[:3, 3]


def indices(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Continuous (i, j, k) index of RAS points."""
    inverse = np.linalg.inv(matrix)
    return points @ inverse[:3, :3].T + inverse[:3, 3]


def depth(points: np.ndarray, shape: tuple[int, ...], matrix: np.ndarray) -> np.ndarray:
    """How many voxels inside the outermost voxel centers a point lies, (i, j, k); negative outside."""
    index = indices(points, matrix)
    return np.minimum(index, np.array(shape[::-1]) - 1 - index)


def cell_reach(volume: Volume, spacing: float) -> np.ndarray:
    """Input voxels (i, j, k) by which the corners of a grid cell can stick out of the volume, smoothing included."""
    axes = np.abs(np.linalg.inv(volume.ijk_to_ras)[:3, :3]).sum(axis=1) * spacing
    factor = np.maximum(spacing / np.array(volume.spacing), 1)
    return axes + np.ceil(3 * np.sqrt(factor**2 - 1) / 2.3548 + 0.5) * (factor > 1.001)


@PROPERTY
@given(geometries(), st.integers(0, 2**31))
def test_acquisition_grid_round_trip_is_bit_exact(empty: Volume, seed: int) -> None:
    voxels = np.random.default_rng(seed).integers(-1024, 3072, empty.voxels.shape).astype(np.int16)
    volume = empty.with_voxels(voxels)
    grid = working_grid(volume, None)
    array = to_grid(volume, grid)
    assert array.dtype == np.float32 and array.shape == grid.shape
    back = from_grid(array, grid, volume)
    assert back.dtype == np.float32 and np.array_equal(back, voxels)
    # each value lies where it lay before
    index = np.rint(indices(centers(grid.shape, grid.ijk_to_ras), volume.ijk_to_ras)).astype(int)
    assert np.array_equal(array, voxels[index[..., 2], index[..., 1], index[..., 0]])


@pytest.mark.parametrize(("order", "signs"), list(product(permutations(range(3)), product((-1, 1), repeat=3))))
def test_acquisition_grid_axes_run_left_posterior_superior(order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    tilt = rotation((1.0, 0.12, -0.1, 0.15))  # about 25 degrees: still closest to the same patient axes
    matrix = np.eye(4)
    matrix[:3, :3] = tilt @ (np.eye(3)[:, list(order)] * np.array(signs) * (0.7, 1.1, 2.5))
    grid = working_grid(Volume(np.zeros((4, 5, 6), np.float32), matrix), None)
    axes = grid.ijk_to_ras[:3, :3] / np.linalg.norm(grid.ijk_to_ras[:3, :3], axis=0)
    assert np.all(np.diag(LPS @ axes) > 0.8)


@pytest.mark.slow
@PROPERTY
@given(geometries(), st.floats(0.7, 4.0), st.integers(0, 2**31))
@example(slightly_tilted(), 1.0, 0)
def test_linear_ramp_is_reproduced(empty: Volume, spacing: float, seed: int) -> None:
    """Linear interpolation is exact on linear functions, so a ramp in RAS mm proves every matrix."""
    gradient = np.random.default_rng(seed).uniform(-2, 2, 3)
    points = centers(empty.voxels.shape, empty.ijk_to_ras)
    middle = points.reshape(-1, 3).mean(axis=0)
    volume = empty.with_voxels(((points - middle) @ gradient).astype(np.float32))
    grid = working_grid(volume, spacing)
    assert np.allclose(grid.ijk_to_ras[:3, :3], spacing * LPS) and grid.spacing == pytest.approx((spacing,) * 3)
    on_grid = centers(grid.shape, grid.ijk_to_ras)
    tolerance = 1e-5 * (1 + float(np.abs(volume.voxels).max()))

    assert depth(points, grid.shape, grid.ijk_to_ras).min() > -1e-6, "the grid must cover every voxel center"
    back = from_grid(((on_grid - middle) @ gradient).astype(np.float32), grid, volume)
    assert back.shape == volume.voxels.shape
    assert np.abs(back - (points - middle) @ gradient).max() < tolerance

    array = to_grid(volume, grid)
    assert array.shape == grid.shape
    smoothed = cell_reach(volume, spacing) - np.abs(np.linalg.inv(volume.ijk_to_ras)[:3, :3]).sum(axis=1) * spacing
    inside = np.all(depth(on_grid, volume.voxels.shape, volume.ijk_to_ras) >= smoothed - 1e-9, axis=-1)
    assert np.abs(array - (on_grid - middle) @ gradient)[inside].max(initial=0) < tolerance


@pytest.mark.slow
@PROPERTY
@given(geometries(), st.floats(0.7, 3.0), st.integers(0, 2**31))
def test_smooth_volume_survives_the_round_trip(empty: Volume, spacing: float, seed: int) -> None:
    """A wave of 40 mm or longer comes back within the error bound of smoothing and two linear interpolations."""
    random = np.random.default_rng(seed)
    wave = random.normal(size=3)
    wave *= 2 * np.pi / random.uniform(40, 80) / np.linalg.norm(wave)
    points = centers(empty.voxels.shape, empty.ijk_to_ras)
    truth = 100 * np.cos(points @ wave + random.uniform(0, 6))
    volume = empty.with_voxels(truth.astype(np.float32))
    grid = working_grid(volume, spacing)
    back = from_grid(to_grid(volume, grid), grid, volume)
    assert back.shape == volume.voxels.shape and back.dtype == np.float32

    voxel = np.array(volume.spacing)
    blur = np.maximum(spacing**2 - voxel**2, 0) / 2.3548**2  # variance in mm2 of the smoothing along each axis
    curvature = 100 * float(wave @ wave)
    bound = curvature * ((voxel**2).sum() / 8 + 3 * spacing**2 / 8 + 1.1 * blur.sum() / 2) + 1e-3
    inside = np.all(depth(points, volume.voxels.shape, volume.ijk_to_ras) >= cell_reach(volume, spacing), axis=-1)
    assert np.abs(back - truth)[inside].max(initial=0) <= bound
    # up to the border the error stays within one grid cell's change: no air leaks in
    reach_mm = np.linalg.norm(cell_reach(volume, spacing) * voxel)
    assert np.abs(back - truth).max() <= bound + 100 * np.linalg.norm(wave) * reach_mm


@pytest.mark.slow
@PROPERTY
@given(geometries(), st.floats(0.7, 4.0))
def test_constant_volume_has_no_dark_rim(empty: Volume, spacing: float) -> None:
    volume = empty.with_voxels(np.full(empty.voxels.shape, 40, np.int16))
    grid = working_grid(volume, spacing)
    array = to_grid(volume, grid)
    assert np.allclose(from_grid(array, grid, volume), 40, atol=1e-3)
    assert np.all(np.isclose(array, 40, atol=1e-3) | (array == -1024))


def test_far_outside_an_oblique_volume_is_air() -> None:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation((1.0, 0.0, 0.0, 0.4142))
    volume = Volume(np.full((10, 40, 40), 40, np.int16), matrix)
    array = to_grid(volume, working_grid(volume, 1.0))
    assert array[5, 0, 0] == -1024 and array[5, array.shape[1] // 2, array.shape[2] // 2] == pytest.approx(40)
    assert 0.45 < np.mean(array == -1024) < 0.5  # a square turned by 45 degrees fills half of its box


def test_label_maps_keep_labels_and_type() -> None:
    matrix = np.diag([-0.7, -0.7, 2.5, 1.0])
    labels = np.zeros((12, 30, 30), np.uint8)
    labels[3:9, 8:20, 10:22] = 7
    volume = Volume(labels, matrix, "mask")
    grid = working_grid(volume, 0.5)
    array = to_grid(volume, grid, order=0, fill=0)
    assert set(np.unique(array)) == {0, 7}
    back = from_grid(array.astype(np.uint8), grid, volume, order=0)
    assert back.dtype == np.uint8 and np.array_equal(back, labels)
    inside = from_grid(array > 0, grid, volume, order=0)
    assert inside.dtype == bool and np.array_equal(inside, labels > 0)


def test_coarser_grid_does_not_alias() -> None:
    """A checkerboard finer than the grid turns gray; picking single voxels would keep its full contrast."""
    board = (np.indices((32, 32, 32)).sum(axis=0) % 2 * 200 - 100).astype(np.int16)
    volume = Volume(board, np.diag([-1.0, -1.0, 1.0, 1.0]))
    assert np.abs(to_grid(volume, working_grid(volume, 3.0))[2:-2, 2:-2, 2:-2]).max() < 1


def test_matching_isotropic_input_is_not_touched() -> None:
    voxels = np.random.default_rng(1).integers(-1024, 3000, (7, 8, 9)).astype(np.int16)
    volume = Volume(voxels, np.diag([1.5, -1.5, -1.5, 1.0]))
    grid = working_grid(volume, 1.5)
    assert np.array_equal(from_grid(to_grid(volume, grid), grid, volume), voxels)


def test_impossible_spacing_is_refused() -> None:
    volume = Volume(np.zeros((50, 50, 50), np.int16), np.eye(4))
    for spacing in (0.0, -1.0, float("nan"), 0.001):
        with pytest.raises(InputError, match="working spacing"):
            working_grid(volume, spacing)


def test_array_of_other_shape_is_refused() -> None:
    volume = Volume(np.zeros((5, 5, 5), np.int16), np.eye(4))
    with pytest.raises(ValueError, match="does not lie on a grid"):
        from_grid(np.zeros((4, 5, 5)), Grid((5, 5, 5), np.eye(4)), volume)
