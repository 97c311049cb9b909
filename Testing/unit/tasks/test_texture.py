"""Texture of a filling: as lively as the scan, without a seam, never from what was hidden."""

import numpy as np
import pytest
from scipy import ndimage

from MedDiffFMLib.core.errors import Cancelled
from MedDiffFMLib.core.progress import CancelToken, ProgressMeter
from MedDiffFMLib.tasks.inpaint.grain import diameter, grain_share, missing_grain
from MedDiffFMLib.tasks.inpaint.texture import texture_of_scan

SPACING = (1.0, 1.0, 1.0)
TISSUE = np.where(np.arange(96) < 48, 200, 0)


@pytest.fixture(scope="module")
def scan():
    """Coarse texture of 30 HU on two tissues, the left one brighter by 200 HU."""
    noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((48, 48, 96)), 1.2)
    return (30 * noise / noise.std() + TISSUE).astype(np.float32)


def ball(center, radius=6):
    return sum((axis - c) ** 2 for axis, c in zip(np.indices((48, 48, 96)), center, strict=True)) <= radius**2


def filled(scan, hole, samples=1, seed=0, meter=None):
    """With the mean of the tissue as the expected one."""
    known = np.where(hole, TISSUE, scan).astype(np.float32)
    texture = texture_of_scan(known, hole, SPACING, samples, seed, meter)
    return known + texture.values, texture


def test_texture_is_that_of_the_tissue_and_leaves_no_step_at_the_rim(scan):
    hole = ball((24, 24, 24))
    result, texture = filled(scan, hole)
    assert texture.places == 1
    assert np.array_equal(texture.values != 0, hole & (texture.values != 0))
    assert 0.7 < result[hole].std() / scan[hole].std() < 1.3
    assert 150 < result[hole].mean() < 250
    across = hole[..., 1:] != hole[..., :-1]
    assert 0.7 < np.abs(np.diff(result))[across].mean() / np.abs(np.diff(scan))[across].mean() < 1.3


def test_structures_that_enter_the_hole_go_on_where_the_scan_shows_how():
    """Plates of 400 HU more every twelve voxels: what is expected, their mean, knows none of them."""
    plates = np.broadcast_to(np.where(np.arange(96) % 12 < 4, 400, 0), (48, 48, 96)).astype(np.float32)
    hole = ball((24, 24, 48), 8)
    known = np.where(hole, 130, plates).astype(np.float32)
    result = known + texture_of_scan(known, hole, SPACING, 1, 0).values
    assert np.abs(result - plates)[hole].mean() < 10
    assert np.abs(known - plates)[hole].mean() > 150


def test_seeds_choose_places_and_the_mean_of_many_is_smoother(scan):
    hole = ball((24, 24, 70))
    one, again, other = (filled(scan, hole, seed=seed)[0] for seed in (1, 1, 2))
    assert np.array_equal(one, again) and not np.array_equal(one, other)
    mean, texture = filled(scan, hole, samples=9)
    assert texture.places == 9 and mean[hole].std() < 0.6 * one[hole].std()


def test_parts_of_a_mask_have_their_own_places(scan):
    result, texture = filled(scan, ball((24, 24, 20)) | ball((24, 24, 76)))
    assert texture.places == 2
    for center, mean in (((24, 24, 20), 200), ((24, 24, 76), 0)):
        assert 15 < (result - mean)[ball(center, 4)].std() < 60


def test_nothing_is_copied_where_there_is_no_room(scan):
    hole = np.ones(scan.shape, bool)
    hole[:4] = False
    _, texture = filled(scan, hole)
    assert texture.places == 0 and not texture.values.any()


def test_grain_that_a_calm_place_lacks_is_restored_and_no_more():
    """Noise of 10 HU with a calm band, from which texture is taken: it comes to the noise around the hole."""
    noise = 10 * np.random.default_rng(2).standard_normal((48, 48, 96)).astype(np.float32)
    noise[:, :, 60:84] /= 5
    hole, shift = ball((24, 24, 24)), np.array([0, 0, 48])
    scan = np.where(hole, 0, noise)
    calm = np.where(hole, np.roll(noise, -48, 2), 0)
    added = missing_grain(scan, calm, hole, hole, shift, SPACING)
    inner = ball((24, 24, 24), 5)
    assert np.array_equal(added != 0, hole & (added != 0))
    assert calm[inner].std() < 3 and 6.5 < (calm + added)[inner].std() < 11
    assert np.corrcoef(added[inner], calm[inner])[0, 1] > 0.8  # the place's own grain, stronger
    full = np.where(hole, np.roll(noise, 7, 0), 0)
    assert np.abs(missing_grain(scan, full, hole, hole, shift, SPACING)).mean() < 1.5
    assert grain_share(20) == 0 and grain_share(25) == pytest.approx(0.5) and grain_share(30) == 1
    assert diameter(ball((24, 24, 24), 10), (2.0, 2.0, 2.0)) == pytest.approx(40, rel=0.02)


def test_it_can_be_cancelled(scan):
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        filled(scan, ball((24, 24, 24)), meter=ProgressMeter(1, None, token))
