"""What holds a CT to X-rays: a closed form, exactness, bounds, pose, exposure and hull."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.imaging.grid import Grid
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.multimodal.beam import Beam
from MedDiffFMLib.multimodal.exposure import exposure
from MedDiffFMLib.multimodal.looks import render
from MedDiffFMLib.multimodal.names import COUNTS, FILM, PICTURE, parse_views
from MedDiffFMLib.multimodal.shadow_hull import Shadow, hull_of
from MedDiffFMLib.multimodal.views import from_angles
from MedDiffFMLib.multimodal.xray_consistency import XrayConsistency, XrayView, shadow_of
from MedDiffFMLib.multimodal.xray_pose import beam_of, binned, standing

MM = 8.0


def grid_around(shape: tuple[int, int, int]) -> Grid:
    matrix = np.diag([-MM, -MM, MM, 1.0])
    matrix[:3, 3] = -matrix[:3, :3] @ (np.array(shape[::-1]) - 1) / 2
    return Grid(shape, matrix)


def ellipsoid(grid: Grid) -> torch.Tensor:
    """Water with half axes of 90, 60 and 80 mm along i, j, k in air, network range."""
    k, j, i = (np.indices(grid.shape).T - (np.array(grid.shape) - 1) / 2).T * MM
    inside = (i / 90) ** 2 + (j / 60) ** 2 + (k / 80) ** 2 < 1
    return torch.from_numpy(inside.astype(np.float32) - 1)


def beam(view: str, rows: int = 32, columns: int = 36) -> Beam:
    angles = parse_views(view)[0]
    assert angles is not None
    picture = Volume(np.zeros((1, rows, columns), np.float32), np.eye(4))
    return standing(picture, from_angles(angles), 1500.0, 30.0, MM)


GRID = grid_around((24, 20, 28))


@pytest.fixture(scope="module")
def truth() -> torch.Tensor:
    return ellipsoid(GRID)


def views_of(image: torch.Tensor, names: str = "ap,lat") -> list[XrayView]:
    return [XrayView(beam(name), shadow_of(image, GRID, beam(name))) for name in names.split(",")]


def test_one_parallel_ray_a_column_has_the_closed_form() -> None:
    """With each voxel on one ray the least change is the missing integral divided by the length of the column."""
    shape = (6, 5, 7)
    grid = grid_around(shape)
    matrix = grid.ijk_to_ras[:, [0, 2, 1, 3]].copy()  # a detector in the first plane across j
    parallel = Beam(Grid((1, shape[0], shape[2]), matrix))
    wanted = torch.rand(shape, generator=torch.Generator().manual_seed(0)) - 0.9
    view = XrayView(parallel, shadow_of(wanted, grid, parallel))
    start = torch.full(shape, -0.6)
    found = XrayConsistency([view], grid, torch.ones(shape, dtype=torch.bool)).meet(start, 6)
    change = (wanted - start).mean(1, keepdim=True)
    assert torch.allclose(found, start + change, atol=2e-3)


def test_meets_the_xrays_and_comes_no_farther_from_the_truth(truth: torch.Tensor) -> None:
    room = torch.ones(GRID.shape, dtype=torch.bool)
    consistency = XrayConsistency(views_of(truth), GRID, room)
    start = (truth + 0.2 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))).clamp(-1, 1)
    found = consistency.meet(start, 4)
    assert max(consistency.relative(found)) < 0.005 < min(consistency.relative(start))
    assert (found - truth).norm() < (start - truth).norm()
    assert found.min() >= -1 and found.max() <= 1


def test_air_outside_the_room_stays_air(truth: torch.Tensor) -> None:
    room = truth > -1
    found = XrayConsistency(views_of(truth), GRID, room).meet(torch.zeros(GRID.shape), 2)
    assert (found[~room] == -1).all()


def test_a_batch_is_met_sample_by_sample(truth: torch.Tensor) -> None:
    consistency = XrayConsistency(views_of(truth), GRID, truth > -1, rounds=1)
    both = torch.stack([torch.full(GRID.shape, -0.2), torch.full(GRID.shape, -0.7)])[:, None]
    met = consistency(both, 1.0)
    assert torch.equal(met[1, 0], consistency.meet(both[1, 0], 1))


@pytest.mark.parametrize("names", ["ap,lat", "pa,rlat", "lao30,rao60"])
def test_hull_holds_the_body_and_little_else(truth: torch.Tensor, names: str) -> None:
    shadows = [Shadow(view.beam, (view.attenuation > 0.06).numpy()) for view in views_of(truth, names)]
    hull = hull_of(shadows, MM)
    matrix = np.linalg.inv(hull.grid.ijk_to_ras) @ GRID.ijk_to_ras
    k, j, i = np.nonzero(truth.numpy() > -1)
    index = np.rint((matrix @ np.stack([i, j, k, np.ones_like(i)]))[:3]).astype(int)
    assert hull.room[index[2], index[1], index[0]].mean() > 0.99
    assert hull.room.sum() < 2.2 * len(k)
    assert not hull.one_side


def test_xrays_of_nothing_in_common_are_refused(truth: torch.Tensor) -> None:
    views = views_of(truth)
    shadows = [Shadow(view.beam, (view.attenuation > 0.06).numpy()) for view in views]
    away = shadows[1].beam.detector.ijk_to_ras.copy()
    away[2, 3] += 900
    assert shadows[1].beam.source is not None
    moved = Beam(Grid(shadows[1].beam.detector.shape, away), shadows[1].beam.source + np.array([0, 0, 900.0]))
    with pytest.raises(InputError, match="in common"):
        hull_of([Shadow(moved, shadows[1].tissue), shadows[0]], MM)


def test_a_picture_at_its_detector_gives_its_beam_back() -> None:
    made = beam("lao30-cran20")
    assert made.source is not None
    picture = Volume(np.zeros(made.detector.shape, np.float32), made.picture_to_ras)
    again = beam_of(picture, tuple(made.source))
    assert np.allclose(again.normal, made.normal)
    assert np.allclose(again.pixels(), made.pixels())


def test_binned_pixels_lie_in_the_middle_of_what_they_are_made_of() -> None:
    fine = beam("ap", 40, 44)
    coarse, pixels = binned(fine, np.ones((40, 44)), 2 * MM)
    assert pixels.shape == (20, 22)
    assert np.allclose(coarse.pixels().mean(0), fine.pixels().mean(0))


def test_exposures_are_undone(truth: torch.Tensor) -> None:
    """Film, counts and a gray picture of known attenuation come back to it, where a usual body is the true one."""
    import MedDiffFMLib.multimodal.attenuation as physics
    from MedDiffFMLib.multimodal.projection import project

    areal = project(physics.densities(1000 * truth), GRID.ijk_to_ras, beam("ap")) / 10
    lost = physics.attenuation(areal).numpy()
    shown = {FILM: render(areal, FILM).pixels, COUNTS: 4000 * np.exp(-lost), PICTURE: 30 + 40 * lost}
    for kind, pixels in shown.items():
        read = exposure(pixels, kind)
        found = read.absolute(read.fit(lost))
        body = lost > 0.7
        assert np.abs(found - lost)[body].max() < 0.05 * lost.max(), kind
