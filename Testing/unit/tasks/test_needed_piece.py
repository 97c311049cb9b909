"""A run on the neighborhood of the mask gives the same voxels as one on the whole CT."""

import numpy as np
import pytest

from MedDiffFMLib.imaging.volume import Volume, check_ct, thinned
from MedDiffFMLib.models.checkpoint import load_model
from MedDiffFMLib.preprocessing.body_localization import localize_body
from MedDiffFMLib.preprocessing.mask_crop import crop
from MedDiffFMLib.tasks.anomaly.spec import Anomaly
from MedDiffFMLib.tasks.base import Case, Run
from MedDiffFMLib.tasks.generate_lesion.spec import GenerateLesion
from MedDiffFMLib.tasks.inpaint.spec import Inpaint
from Testing.unit.tasks.test_generate_lesion import control  # noqa: F401  # a fixture


@pytest.fixture(scope="module")
def model(tiny_model_file):
    return load_model(str(tiny_model_file), device="cpu", precision="float32")


@pytest.fixture(scope="module")
def chest():
    """Voxels of 0.8 x 0.8 x 2 mm, oblique and flipped, larger than a window in each direction."""
    k, j, i = np.mgrid[:70, :110, :120]
    body = ((k - 35) / 40) ** 2 + ((j - 55) / 50) ** 2 + ((i - 60) / 55) ** 2 < 1
    lung = ((k - 35) / 25) ** 2 + ((j - 55) / 25) ** 2 + ((i - 40) / 18) ** 2 < 1
    noise = np.random.default_rng(3).normal(0, 10, body.shape)
    voxels = np.where(lung, -850, np.where(body, 40, -1000)) + noise
    angle = np.deg2rad(10)
    matrix = np.diag([-0.8, -0.8, 2.0, 1.0])
    matrix[1:3] = [
        [0, -0.8 * np.cos(angle), 2 * np.sin(angle), 30],
        [0, 0.8 * np.sin(angle), 2 * np.cos(angle), -400],
    ]
    return Volume(voxels.astype(np.int16), matrix)


def ball(shape, center, radius):
    k, j, i = (axis - c for axis, c in zip(np.indices(shape), center, strict=True))
    return k**2 + j**2 + i**2 <= radius**2


@pytest.mark.slow
@pytest.mark.parametrize("center", [(35, 60, 50), (66, 5, 116)])
def test_filling_a_piece_is_filling_the_whole(model, chest, center):
    mask = ball(chest.voxels.shape, center, 4)
    parameters = Inpaint(samples=1)
    box = parameters.needed_piece(chest, mask)
    piece = crop(chest, box)
    whole = parameters.run(Case(chest, mask=mask), Run(model, seed=5)).volumes["inpainted"]
    part = parameters.run(Case(piece, mask=mask[box]), Run(model, seed=5)).volumes["inpainted"]
    assert np.array_equal(part, whole[box])
    assert np.array_equal(part[~mask[box]], chest.voxels[box][~mask[box]])
    assert piece.voxels.size < 0.5 * chest.voxels.size


@pytest.mark.slow
def test_a_lesion_in_a_piece_is_the_lesion_in_the_whole(model, control, chest):  # noqa: F811
    mask = ball(chest.voxels.shape, (35, 60, 50), 6)
    parameters = GenerateLesion(control=control, steps=1, kind="solid", diameter=6.0, rim=2)
    box = parameters.needed_piece(chest, mask)
    piece = crop(chest, box)
    whole = parameters.run(Case(chest, mask=mask), Run(model, seed=5)).volumes
    part = parameters.run(Case(piece, mask=mask[box]), Run(model, seed=5)).volumes
    assert whole["lesion"].any()
    for name in ("with_lesion", "lesion"):
        assert np.array_equal(part[name], whole[name][box])
    outside = np.ones(mask.shape, bool)
    outside[box] = False
    assert not whole["lesion"][outside].any()
    assert np.array_equal(whole["with_lesion"][outside], chest.voxels[outside])


def test_a_piece_is_judged_by_the_whole(chest):
    """Body box and region are those of the whole; a piece of solid tissue alone passes as CT."""
    box = Inpaint().needed_piece(chest, ball(chest.voxels.shape, (35, 60, 85), 3))
    piece, found = crop(chest, box), localize_body(chest)
    again = localize_body(piece)
    assert np.array_equal(again.low, found.low) and np.array_equal(again.high, found.high)
    assert again.guessed == found.guessed
    assert np.array_equal(thinned(piece.whole).voxels, piece.whole.voxels)
    check_ct(piece)


def test_what_needs_the_whole_gets_it(chest):
    mask = ball(chest.voxels.shape, (35, 60, 50), 4)
    assert Anomaly().needed_piece(chest, mask) is None
    assert Inpaint(spacing=1.5).needed_piece(chest, mask) is None
    large = ball(chest.voxels.shape, (35, 60, 50), 24)
    assert GenerateLesion().needed_piece(chest, large) is None
