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
    place_in_planes,
    regression_input,
    save_regression,
    shipped_regression,
)
from MedDiffFMLib.tasks.reconstruct.expected_image import _mixed, taken_for_body
from Testing.experiments.xray_regression import CHANNELS, inside_of, mirrored, train_inside, xrays_of


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


def test_outputs_for_body_and_air_learn_a_round_body_in_its_box() -> None:
    """A rod of tissue in a square hull: after training its corners are air, and the rod is as dense as it is."""
    torch.manual_seed(0)
    j, i = ((torch.arange(n) - (n - 1) / 2) / (n / 2) for n in (14, 18))
    rod = (j[:, None].square() + i.square() < 1).float().expand(8, 14, 18)
    row = torch.zeros(CHANNELS + 2, 8, 14, 18)
    row[0] = rod - 1 - 0.25 * torch.rand(rod.shape)  # a poor image to begin with
    row[3] = 1
    row[CHANNELS] = rod - 1
    row[CHANNELS + 1] = 0.7 + 0.3 * rod
    assert torch.allclose(inside_of(row), rod)
    network = XrayRegression()
    kept = {name: value.clone() for name, value in network.state_dict().items() if not name.startswith("inside")}
    train_inside(network, [row], steps=300)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in kept.items())
    with torch.no_grad():
        image, logit = network.within(row[None, :CHANNELS])
    body = rod > 0
    assert float((logit[0, 0].sigmoid() - rod).square().mean()) < 0.02
    assert float((image[0, 0] - row[CHANNELS])[body].square().mean().sqrt()) < 0.05
    assert float((row[0] - row[CHANNELS])[body].square().mean().sqrt()) > 0.1
