"""Body coordinates: what the network says of a scan becomes a place in the body."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from MedDiffFMLib.core.errors import ModelError
from MedDiffFMLib.imaging.grid import working_grid
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.networks.body_regressor import BodyRegressor
from MedDiffFMLib.preprocessing.body_coordinates import (
    CELL,
    FINE_MM,
    UNKNOWN,
    BodyField,
    BodyPosition,
    _slope,
    load_regressor,
    locate,
    save_regressor,
    shipped_regressor,
    spine_in_front,
    tissue_shares,
)
from MedDiffFMLib.training.pretrain.body_coordinates import BodyConfig, BodyScan, draw, order_loss, train_body
from Testing.unit.phantoms import whole_body


class Ruler(nn.Module):
    """Says of each cell the height that the share of bone in it spells, so that the truth is known."""

    def forward(self, shares: torch.Tensor) -> torch.Tensor:
        height = shares[:, 4:5].amax((3, 4), keepdim=True).expand(-1, 1, *shares.shape[2:])
        across = torch.linspace(-1, 1, shares.shape[4]).expand(1, 1, *shares.shape[2:])
        return torch.cat([height, torch.zeros_like(height), across], dim=1)


def ladder(first: int = 0, last: int = 40) -> Volume:
    """A trunk of soft tissue, 4 mm voxels, with a rod of bone whose part in slice k of 100 cells is k / 40."""
    voxels = np.full((160, 60, 60), -1000, np.int16)
    voxels[:, 8:52, 8:52] = 40
    for cell in range(40):
        voxels[4 * cell : 4 * cell + 4, 28:32, 28:32] = 40
        block = voxels[4 * cell : 4 * cell + 4, 28:32, 28:32].reshape(-1)
        block[: round(64 * cell / 40)] = 600
        voxels[4 * cell : 4 * cell + 4, 28:32, 28:32] = block.reshape(4, 4, 4)
    part = voxels[4 * first : 4 * last]
    matrix = np.diag([-4.0, -4.0, 4.0, 1.0])
    matrix[2, 3] = 16.0 * first
    return Volume(part, matrix)


def test_a_crop_has_the_coordinates_of_the_whole_and_a_flipped_scan_is_noticed() -> None:
    ruler = Ruler()
    whole, crop = locate(ladder(), ruler), locate(ladder(12, 28), ruler)  # type: ignore[arg-type]
    for place in (whole, crop):
        assert place.understood and place.flipped == ()
        assert 1e3 * place.slope[0] == pytest.approx(1000 / 640, rel=0.03)
        assert place.offset[0] + place.slope[0] * 320 == pytest.approx(0.5, abs=0.03)
    assert crop.span[0] > whole.span[0] + 0.2 and crop.span[1] < whole.span[1] - 0.2
    turned = locate(Volume(ladder().voxels[::-1], ladder().ijk_to_ras), ruler)  # type: ignore[arg-type]
    assert turned.flipped == ("head-feet",) and turned.region is None


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 64, 64), (3, 4, 5), (40, 2, 2)])
def test_a_scan_too_small_for_coordinates_is_no_error(shape: tuple[int, int, int]) -> None:
    """Every task looks at every input."""
    place = locate(Volume(np.full(shape, 40, np.int16), np.diag([-1.0, -1.0, 1.0, 1.0])), Ruler())  # type: ignore[arg-type]
    assert not place.understood and place.flipped == ()


def test_a_field_gives_each_voxel_its_coordinates() -> None:
    place = BodyPosition(np.array([0.1, 0, 0]), np.array([1e-3, 2e-3, 0]), np.zeros(3), (0.1, 0.5), (400, 200, 300))
    volume = Volume(np.zeros((10, 8, 8), np.int16), np.diag([-2.0, -2.0, 5.0, 1.0]))
    field = place.field(working_grid(volume, None))
    box = (slice(2, 6), slice(0, 4), slice(0, 4))
    torch.testing.assert_close(field.window(box)[0, :, 0, 0], torch.tensor([0.11, 0.115, 0.12, 0.125]))
    torch.testing.assert_close(field.window(box, 2)[0, :, 0, 0], torch.tensor([0.1125, 0.1225]))
    lost = BodyPosition(place.offset, place.slope, np.ones(3), place.span, place.sizes)
    assert not lost.understood and lost.field(working_grid(volume, None)) == UNKNOWN and lost.region is None
    assert place.region == "abdomen"


def test_tissues_add_up_to_the_body() -> None:
    image = whole_body(FINE_MM)
    shares, body = tissue_shares(image.voxels)
    assert shares.shape[1:] == body.shape == tuple(-(-n // CELL) for n in image.voxels.shape)
    assert np.all(shares >= 0) and np.all(shares.sum(0) <= body + 1e-5) and body.max() == 1


def scan() -> BodyScan:
    """A column whose bone grows from feet to head."""
    shares = np.zeros((5, 24, 14, 18), np.float32)
    shares[4] = np.linspace(0, 1, 24)[:, None, None]
    body = np.ones((24, 14, 18), np.float32)
    return BodyScan("a", shares, body, np.array([[0, 0], [13, 17]]), np.zeros(3), 0.1)


def test_windows_know_their_height_whatever_is_done_to_them() -> None:
    """In each window the height of a cell is what its bone says, also where it was tilted, resized or mirrored."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        shares, target, weight = draw(scan(), BodyConfig(), rng)
        inside = (weight[0] > 0.999) & (shares[4] > 0.05) & (shares[4] < 0.85)
        height = shares[4] * 23 * 0.016
        if inside.any():
            assert float((target[0] - height)[inside].abs().mean()) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("points", [3, 4, 17, 120])
def test_the_slope_of_a_scan_is_scipys_to_the_last_bit(points: int) -> None:
    from scipy.stats import theilslopes

    generator = np.random.default_rng(points)
    position = 9.0 * np.sort(generator.choice(3 * points, points, replace=False))
    level = (generator.normal(0, 0.1, points) - 1e-3 * position).astype(np.float32)
    assert _slope(position, level) == theilslopes(level, position)[0]
    assert _slope(position[:2], level[:2]) == 0


def test_slices_out_of_order_cost() -> None:
    place = torch.arange(8.0)[:, None, None].expand(8, 4, 4)
    ones = torch.ones_like(place)
    assert float(order_loss(place, place, ones)) == 0 and float(order_loss(-place, place, ones)) > 1


@pytest.mark.slow
def test_training_lowers_the_error_and_the_file_keeps_the_network(tmp_path: Path) -> None:
    lines: list[str] = []
    network, facts = train_body([scan()], BodyConfig(minutes=0.01), lines.append)
    assert facts["steps"] > 0
    path = tmp_path / "body.safetensors"
    save_regressor(path, network, facts)
    image = torch.from_numpy(scan().shares)[None]
    torch.testing.assert_close(load_regressor(path)(image), network(image), atol=0.02, rtol=0.02)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ModelError):
        load_regressor(path)


def test_shipped_weights_are_small_and_give_finite_coordinates() -> None:
    network = shipped_regressor()
    assert isinstance(network, BodyRegressor)
    place = locate(whole_body(5.0))
    assert np.isfinite([*place.offset, *place.slope, *place.stray]).all()
    field = place.field(working_grid(whole_body(5.0), None))
    assert isinstance(field, BodyField)


def test_a_trunk_with_front_and_back_exchanged_is_noticed() -> None:
    depth = np.arange(60)[:, None]
    trunk = np.full((40, 60, 90), -1000, np.float32)
    trunk[:, 5:55, 5:85] = 40
    trunk[:, (depth[:, 0] > 42) & (depth[:, 0] < 50), 42:48] = 500  # a spine
    assert not spine_in_front(trunk) and spine_in_front(trunk[:, ::-1])
    assert not spine_in_front(trunk[:, ::-1, 20:70]), "a leg"
    assert not spine_in_front(trunk[:10]) and not spine_in_front(trunk[:0]), "too little to tell"
