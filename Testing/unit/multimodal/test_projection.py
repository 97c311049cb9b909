"""Line integrals against closed forms; the adjoint; geometry of any orientation."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
import torch

from MedDiffFMLib.imaging.grid import Grid
from MedDiffFMLib.multimodal.beam import Beam
from MedDiffFMLib.multimodal.projection import back_project, project

TURN = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])
"""A rotation by a large angle about no axis of the patient."""


def beam(ahead: tuple[float, ...], pixels: tuple[int, int], pixel: float, distance: float | None = 900.0) -> Beam:
    """Beam through the origin, its detector 300 mm behind it."""
    n = np.asarray(ahead, float) / np.linalg.norm(ahead)
    right = np.cross(n, [0.1, 0.2, 1.0])
    right /= np.linalg.norm(right)
    matrix = np.eye(4)
    matrix[:3, :3] = np.column_stack([pixel * right, pixel * np.cross(n, right), n])
    matrix[:3, 3] = 300 * n - matrix[:3, :2] @ (np.array(pixels) - 1) / 2
    return Beam(Grid((1, pixels[1], pixels[0]), matrix), None if distance is None else (300 - distance) * n)


def geometry(shape: tuple[int, int, int], spacing: tuple[float, ...], axes: np.ndarray) -> np.ndarray:
    """Matrix of a volume (k, j, i) around the origin with the given directions of (i, j, k)."""
    matrix = np.eye(4)
    matrix[:3, :3] = axes * np.array(spacing)
    matrix[:3, 3] = -matrix[:3, :3] @ (np.array(shape[::-1]) - 1) / 2
    return matrix


def centers(shape: tuple[int, ...], matrix: np.ndarray, parts: int = 1) -> np.ndarray:
    """RAS mm of the centers of ``parts``^3 parts of each voxel, (parts * k, parts * j, parts * i, 3)."""
    k, j, i = (np.arange(n * parts) / parts - (parts - 1) / (2 * parts) for n in shape)
    grid = np.stack(np.meshgrid(k, j, i, indexing="ij")[::-1], -1)
    return grid @ matrix[:3, :3].T + matrix[:3, 3]


FORM = np.diag([1 / 70, 1 / 50, 1 / 60]) @ TURN.T
"""Ellipsoid |FORM x| <= 1 with half axes of 70, 50 and 60 mm."""
DIRECTIONS = [(0, 1, 0), (1, 0.9, 0.3), (-0.2, 0.3, 1)]


def crossings(rays: Beam) -> tuple[np.ndarray, np.ndarray]:
    """Coefficient a of the square, and discriminant b^2 - ac, of |FORM x|^2 - 1 along each ray (j, i), mm."""
    ends = rays.pixels()
    along = rays.directions(ends)
    along = along / np.linalg.norm(along, axis=1, keepdims=True)
    p, d = ends @ FORM.T, along @ FORM.T
    a, b, c = (d * d).sum(1), (p * d).sum(1), (p * p).sum(1) - 1
    shape = rays.detector.shape[1:]
    return a.reshape(shape), np.maximum(b * b - a * c, 0).reshape(shape)


@pytest.mark.parametrize("distance", [None, 900.0])
@pytest.mark.parametrize("ahead", DIRECTIONS)
def test_smooth_ellipsoid_within_half_a_percent(ahead: tuple[float, ...], distance: float | None) -> None:
    shape = (60, 110, 120)
    matrix = geometry(shape, (1.5, 1.5, 2.5), TURN @ TURN)
    rays = beam(ahead, (40, 30), 5.0, distance)
    squares = ((centers(shape, matrix) @ FORM.T) ** 2).sum(-1)
    a, discriminant = crossings(rays)
    truth = 4 * discriminant**1.5 / (3 * a * a)  # of 1 - |FORM x|^2, between its zeros
    found = project(torch.from_numpy(np.maximum(1 - squares, 0))[None], matrix, rays)[0].numpy()
    assert np.abs(found - truth).max() < 0.005 * truth.max()


@pytest.mark.slow
def test_solid_ellipsoid_within_half_a_percent() -> None:
    shape, parts = (60, 110, 120), 3
    matrix = geometry(shape, (1.5, 1.5, 2.5), TURN @ TURN)
    inside = np.linalg.norm(centers(shape, matrix, parts) @ FORM.T, axis=-1) <= 1
    shares = inside.reshape(60, parts, 110, parts, 120, parts).mean((1, 3, 5))  # of each voxel
    for ahead in DIRECTIONS:
        rays = beam(ahead, (40, 30), 5.0)
        a, discriminant = crossings(rays)
        truth = 2 * np.sqrt(discriminant) / a
        error = project(torch.from_numpy(shares)[None], matrix, rays)[0].numpy() - truth
        assert abs(error.sum()) < 0.001 * truth.sum()
        thick = truth > 0.5 * truth.max()  # at the edge a voxel is longer than the chord
        assert np.sqrt((error[thick] ** 2).mean()) < 0.005 * truth.max()


def test_box_is_as_long_as_its_voxels() -> None:
    matrix = geometry((8, 10, 12), (1.0, 2.0, 3.0), np.diag([-1.0, 1.0, -1.0]))
    rays = beam((0, 1, 0), (3, 3), 1.0, None)
    assert project(torch.ones(1, 8, 10, 12), matrix, rays).numpy() == pytest.approx(20.0)


@pytest.mark.parametrize("distance", [None, 900.0])
def test_back_projection_is_the_adjoint(distance: float | None) -> None:
    generator = torch.Generator().manual_seed(3)
    matrix = geometry((9, 17, 13), (2.0, 3.0, 5.0), TURN)
    rays = beam((1, 1, 0.5), (23, 31), 4.0, distance)  # all three axes are steepest somewhere
    volume = torch.rand(2, 9, 17, 13, generator=generator, dtype=torch.float64)
    picture = torch.rand(2, 31, 23, generator=generator, dtype=torch.float64)
    forth = project(volume, matrix, rays)
    back = back_project(picture, (9, 17, 13), matrix, rays)
    assert float((forth * picture).sum()) == pytest.approx(float((volume * back).sum()), rel=1e-12)


@pytest.mark.slow
def test_gradients_of_voxels_and_pixels() -> None:
    matrix = geometry((2, 4, 3), (9.0, 7.0, 6.0), TURN)
    rays = beam((0.3, 1, -0.4), (3, 4), 9.0)
    volume = torch.rand(1, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    picture = torch.rand(1, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: project(v, matrix, rays) ** 2, volume)
    assert torch.autograd.gradgradcheck(lambda v: project(v, matrix, rays) ** 2, volume)
    assert torch.autograd.gradcheck(lambda p: back_project(p, (2, 4, 3), matrix, rays), picture)


def test_the_same_picture_for_every_order_of_the_axes() -> None:
    volume = torch.rand(1, 12, 14, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix = geometry((12, 14, 16), (2.0, 3.0, 4.0), np.eye(3))
    rays = beam((0.7, 1, 0.4), (20, 24), 3.0)
    truth = project(volume, matrix, rays)
    for order, flips in product(permutations(range(3)), product((False, True), repeat=3)):
        index = np.eye(4)
        index[:3, :3] = np.eye(3)[:, order]  # of the reordered volume to that of the original
        turned = volume[0].permute([2 - order[2 - axis] for axis in range(3)])
        for axis, flip in enumerate(flips):
            if flip:
                turned = turned.flip(2 - axis)
                index[:3, 3] += index[:3, axis] * (turned.shape[2 - axis] - 1)
                index[:3, axis] *= -1
        found = project(turned[None], matrix @ index, rays)
        assert torch.allclose(found, truth, rtol=1e-9, atol=1e-9), (order, flips)


def test_points_throw_their_shadows_where_the_beam_says() -> None:
    shape = (50, 50, 50)
    matrix = geometry(shape, (2.0, 2.0, 2.0), TURN)
    points = np.array([[0, 0, 0], [30, -10, 5], [-22, 17, -28], [8, 25, 31]], float)
    rays = beam((0.5, 1, -0.3), (120, 130), 1.5)
    for point in points:
        distance = np.linalg.norm(centers(shape, matrix) - point, axis=-1)
        picture = project(torch.from_numpy(np.exp(-((distance / 4) ** 2)))[None], matrix, rays)[0].numpy()
        rows, columns = np.indices(picture.shape)
        shadow = np.array([(picture * columns).sum(), (picture * rows).sum()]) / picture.sum()
        assert np.abs(shadow - rays.shadows(point[None])[0]).max() < 0.2  # pixels


def test_single_precision_is_enough() -> None:
    matrix = geometry((30, 40, 50), (1.0, 1.0, 2.0), TURN)
    rays = beam((0.5, 1, -0.3), (40, 40), 2.0)
    volume = torch.rand(1, 30, 40, 50, dtype=torch.float64)
    exact = project(volume, matrix, rays)
    assert torch.allclose(project(volume.float(), matrix, rays).double(), exact, atol=1e-4 * float(exact.max()))


def test_an_empty_volume_has_an_empty_picture() -> None:
    matrix = geometry((20, 20, 20), (10.0, 10.0, 10.0), np.eye(3))
    assert not project(torch.zeros(2, 20, 20, 20), matrix, beam((0, 1, 0), (20, 21), 5.0)).any()
