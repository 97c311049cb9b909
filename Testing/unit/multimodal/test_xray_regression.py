"""Regression of chest X-rays: it corrects a consistent image, knows its views, and comes back from its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from MedDiffFMLib.core.errors import ModelError
from MedDiffFMLib.imaging.grid import to_grid
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.multimodal.xray_consistency import XrayConsistency
from MedDiffFMLib.multimodal.xray_regression import (
    ExpectedChest,
    XrayRegression,
    expected_chest,
    frontal_and_lateral,
    load_regression,
    mirrored,
    place_in_planes,
    refined,
    regression_input,
    save_regression,
    shipped_regression,
)
from MedDiffFMLib.tasks.reconstruct.expected_image import _mixed, taken_for_body
from Testing.experiments.xray_planes import least_change
from Testing.experiments.xray_regression import CHANNELS, inside_of, losses, train, with_body, xrays_of


@pytest.fixture(scope="module")
def trunk() -> Volume:
    """An elliptic trunk with two lungs on voxels of 6 mm."""
    k, j, i = (6.0 * (np.arange(n) - (n - 1) / 2) for n in (46, 40, 58))
    s, a, r = k[:, None, None], j[None, :, None], i[None, None]
    voxels = np.where((r / 150) ** 2 + (a / 100) ** 2 + 0 * s < 1, 20.0, -1000.0)
    for side in (-65, 65):
        voxels[((r - side) / 50) ** 2 + (a / 65) ** 2 + (s / 110) ** 2 < 1] = -850
    return Volume(voxels.astype(np.float32), np.diag([-6.0, -6.0, 6.0, 1.0]))


@pytest.mark.slow
def test_xrays_laid_back_show_the_lungs(trunk: Volume) -> None:
    hull, consistency = xrays_of(trunk)
    assert frontal_and_lateral(consistency) == (0, 1)
    swapped = XrayConsistency(consistency.views[::-1], hull.grid, consistency.support)
    assert frontal_and_lateral(swapped) == (1, 0)
    one = XrayConsistency(consistency.views[:1], hull.grid, consistency.support)
    assert frontal_and_lateral(one) is None and expected_chest(XrayRegression(), hull, one) is None

    known, other = (regression_input(hull, c, v)[0] for c, v in ((consistency, (0, 1)), (swapped, (1, 0))))
    assert torch.allclose(known, other, atol=1e-3)  # the order in which X-rays are given does not matter
    k, j, i = (n // 2 for n in known.shape[1:])
    lung = i - round(65 / 8)
    frontal, lateral = known[1], known[2]
    assert float(frontal[k, j, lung]) < 0.6 * float(frontal[k, j, i])  # a ray beside the spine passes a lung
    assert abs(float(lateral[k, j, lung]) - float(lateral[k, j, i])) < 0.1  # one from the side passes both
    begun = expected_chest(XrayRegression(), hull, consistency)
    assert begun is not None and begun.image.shape == begun.body.shape == hull.grid.shape
    outside = ~consistency.support
    assert float(begun.image[outside].max()) == -1 and float(begun.body[outside].max()) == 0


@pytest.mark.slow
def test_a_mirrored_input_is_that_of_the_mirrored_scene(trunk: Volume) -> None:
    """Body and X-rays change sides, the lines that tell the place do not."""
    known = regression_input(*xrays_of(trunk, 8.0), (0, 1))
    turned = mirrored(known)
    assert torch.equal(mirrored(turned), known)
    assert torch.equal(turned[:, :6], known[:, :6].flip(-1))
    step = known.diff(dim=-1)[:, -1]
    assert torch.allclose(turned.diff(dim=-1)[:, -1], step, atol=1e-4) and float(step.min()) > 0


def test_weights_come_back_and_others_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = XrayRegression()
    torch.nn.init.normal_(network.out.weight)
    path = tmp_path / "xrays.safetensors"
    digest = save_regression(path, network, {"steps": 3})
    known = torch.randn(1, 7, 6, 9, 11)
    with torch.no_grad():
        assert torch.allclose(load_regression(path, digest)(known), network(known), atol=0.05)
    with pytest.raises(ModelError):
        load_regression(Path(shipped_path("anomaly-detector")))


def shipped_path(name: str) -> Path:
    from MedDiffFMLib.models.catalogue import resolve

    return resolve(name)[1]


@pytest.mark.slow
def test_shipped_weights_put_lungs_where_lungs_are(trunk: Volume) -> None:
    hull, consistency = xrays_of(trunk)
    found = expected_chest(shipped_regression(), hull, consistency)
    assert found is not None
    k, j, i = (n // 2 for n in found.image.shape)
    lung = i - round(65 / 4)
    assert float(found.image[k, j, lung]) < float(found.image[k, j, i]) - 0.3
    # what lies between the lungs belongs to the body; the corners of the hull, which two shadows cannot tell, do not
    assert float(found.body[k, j, i]) > 0.6
    away = place_in_planes(torch.from_numpy(hull.room[None]).float())[0, :, k].abs().amin(0)
    corners = (away > 0.75) & torch.from_numpy(hull.room[k])
    assert corners.sum() > 10 and float(found.body[k][corners].mean()) < 0.2


def test_a_plane_of_the_room_is_its_own_frame() -> None:
    room = torch.zeros(1, 3, 6, 9)
    room[0, 0, 1:5, 2:7] = 1
    room[0, 1, 2:4, 4:5] = 1
    place = place_in_planes(room)
    assert torch.allclose(place[0, 0, 0, 1:5, 3], torch.tensor([-0.75, -0.25, 0.25, 0.75]))
    assert torch.allclose(place[0, 1, 0, 2, 2:7], torch.tensor([-0.8, -0.4, 0.0, 0.4, 0.8]))
    assert float(place[0, 1, 1, 2, 4]) == 0 and place.abs().max() <= 1.5
    assert torch.isfinite(place).all()  # the last plane has no room
    turned = place_in_planes(room.flip(-1)).flip(-1)
    assert torch.allclose(turned[:, 0], place[:, 0]) and torch.allclose(turned[:, 1, :2], -place[:, 1, :2])


def test_taken_for_body_undoes_the_mean_with_air() -> None:
    tissue = torch.tensor([-0.85, -0.1, 0.03])
    for share in (0.4, 0.7, 1.0):
        mean = share * tissue + (1 - share) * -1.0
        assert torch.allclose(taken_for_body(mean, torch.full((3,), share)), tissue, atol=1e-6)
    dense = torch.tensor([0.6, -0.2])
    assert torch.allclose(taken_for_body(dense, torch.tensor([0.5, 0.05])), torch.tensor([0.6, 0.05]))


@pytest.mark.slow
def test_what_is_probably_air_gives_way_and_the_body_does_not(trunk: Volume) -> None:
    """A body that is too thin as the mean with air becomes denser at the air's cost; the usual weights stay."""
    hull, consistency = xrays_of(trunk, 8.0)
    truth = torch.from_numpy(to_grid(trunk, hull.grid, fill=-1000)).float() / 1000
    k, j, i = np.indices(hull.grid.shape)
    places = np.stack([i, j, k, np.ones_like(i)]).reshape(4, -1)
    right, front, _, _ = (hull.grid.ijk_to_ras @ places).reshape(4, *hull.grid.shape)
    middle = trunk.ijk_to_ras @ [*((np.array(trunk.voxels.shape[::-1]) - 1) / 2), 1]
    round_body = ((right - middle[0]) / 150) ** 2 + ((front - middle[1]) / 100) ** 2 < 1
    inside = torch.from_numpy(round_body) & consistency.support
    chance = torch.where(inside, 0.8, 0.3) * consistency.support
    mean = torch.where(inside, 0.8 * truth - 0.2, -0.7)
    guess = ExpectedChest(torch.where(inside, truth, 0.0), chance)
    usual = consistency.weight
    plain = consistency.meet((mean + chance * guess.image + chance - 1) / 2, 4)
    mixed = _mixed(mean, guess, consistency)
    assert consistency.weight is usual
    shown = torch.zeros_like(inside)
    shown[hull.shown] = True
    errors = [float((image - truth)[shown & inside].square().mean().sqrt()) for image in (plain, mixed)]
    assert errors[1] < 0.9 * errors[0]
    thin = [float((image - truth)[shown & inside].mean()) for image in (plain, mixed)]
    assert thin[0] < thin[1] - 0.01 < 0
    assert max(consistency.relative(mixed)) < 0.03


def test_what_is_found_of_the_mirrored_scene_is_the_mirror_image() -> None:
    """With a consistency that knows no sides; and a refinement that learned nothing yet changes nothing."""
    torch.manual_seed(0)
    network = XrayRegression()
    known = torch.randn(1, CHANNELS, 6, 9, 11)

    def met(image: torch.Tensor, body: torch.Tensor) -> torch.Tensor:
        return image + body - image.mean()

    with torch.no_grad():
        plain = refined(network, known, lambda image, body: torch.full_like(image, 7.0))
        assert all(torch.equal(a, b) for a, b in zip(plain, refined(network, known, met), strict=True))
        torch.nn.init.normal_(network.refine.out.weight, std=0.3)
        found, turned = refined(network, known, met), refined(network, mirrored(known), met)
    for before, one, other in zip(plain, found, turned, strict=True):
        assert torch.allclose(one, other.flip(-1), atol=1e-5)
        assert not torch.allclose(one, before, atol=1e-2)


def test_parallel_rays_are_met_by_the_least_change() -> None:
    """Against the pseudoinverse in double precision; what moves ten times as easily takes most of it."""
    chance = torch.Generator().manual_seed(0)
    weight = torch.rand((2, 5, 7), generator=chance) + 0.5
    weight[:, :, 3] = 10
    wanted = torch.randn((2, 5, 7), generator=chance)
    change = least_change(wanted.sum(1), wanted.sum(2), weight)
    for plane, part, seen in zip(weight.double(), change.double(), wanted.double(), strict=True):
        sums = torch.cat([torch.eye(7).repeat(1, 5), torch.eye(5).repeat_interleave(7, 1)]).double()
        root = plane.flatten().sqrt()
        exact = root * (torch.linalg.pinv(sums * root) @ (sums @ seen.flatten()))
        assert float((part.flatten() - exact).norm() / exact.norm()) < 0.03  # the damping


def test_training_draws_a_round_body_in_its_box() -> None:
    """A rod of tissue in a square hull: its corners become air, and the rod is closer to itself once X-rays are met."""
    torch.manual_seed(0)
    j, i = ((torch.arange(n) - (n - 1) / 2) / (n / 2) for n in (10, 12))
    rod = (j[:, None].square() + i.square() < 1).float().expand(20, 10, 12)
    row = torch.zeros(CHANNELS + 2, 20, 10, 12)
    row[0] = -0.3 - 0.2 * torch.rand(rod.shape)  # an image that knows nothing of the rod
    row[3] = 1
    row[CHANNELS] = rod - 1
    row[CHANNELS + 1] = 0.7 + 0.3 * rod
    assert torch.allclose(inside_of(row), rod) and torch.allclose(with_body(row)[-1], rod)
    network = XrayRegression()
    batch = with_body(row)[None]
    before = losses(network, batch).detach()
    after = losses(train(network, [row], steps=40, rate=1e-2), batch).detach()
    assert float(after[0]) < 0.7 * float(before[0])  # the error in the body after X-rays were met
    assert float(after[0]) < float(after[1])  # which the refinement lessens
    assert float(after[5]) < 0.8 * float(before[5])  # what body is and what air
