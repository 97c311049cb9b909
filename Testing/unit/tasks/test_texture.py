"""Texture of a filling: as lively as the scan, without a seam, never from what was hidden."""

import numpy as np
import pytest
from scipy import ndimage

from MedDiffFMLib.core.errors import Cancelled
from MedDiffFMLib.core.progress import CancelToken, ProgressMeter
from MedDiffFMLib.tasks.inpaint.grain import diameter, grain_share, missing_grain
from MedDiffFMLib.tasks.inpaint.texture import filled_from_scan

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
    expected = np.where(hole, TISSUE, scan).astype(np.float32)
    filling = filled_from_scan(hidden(scan, hole), hole, lambda: expected.copy(), SPACING, samples, seed, meter)
    return filling.values, filling


def hidden(scan, hole):
    """With what no filling may look at: NaN would spread."""
    return np.where(hole, np.float32(np.nan), scan).astype(np.float32)


def asked_in_vain():
    raise AssertionError("the rim tells enough")


def test_texture_is_that_of_the_tissue_and_leaves_no_step_at_the_rim(scan):
    hole = ball((24, 24, 24))
    result, texture = filled(scan, hole)
    assert texture.places == 1 and not texture.expected
    assert np.array_equal(result[~hole], scan[~hole])
    assert 0.7 < result[hole].std() / scan[hole].std() < 1.3
    assert 150 < result[hole].mean() < 250
    across = hole[..., 1:] != hole[..., :-1]
    assert 0.7 < np.abs(np.diff(result))[across].mean() / np.abs(np.diff(scan))[across].mean() < 1.3


def test_structures_that_enter_the_hole_go_on_where_the_scan_shows_how():
    """Plates of 400 HU more every twelve voxels: what is expected, their mean, knows none of them."""
    plates = np.broadcast_to(np.where(np.arange(96) % 12 < 4, 400, 0), (48, 48, 96)).astype(np.float32)
    hole = ball((24, 24, 48), 8)
    result = filled_from_scan(hidden(plates, hole), hole, asked_in_vain, SPACING, 1, 0).values
    assert np.abs(result - plates)[hole].mean() < 10
    assert np.abs(130 - plates)[hole].mean() > 150


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


def test_the_expected_tissue_is_asked_for_once_where_a_rim_tells_nothing(scan):
    """A ball of 36 mm and two that touch each other's rims, beside one whose rim is known."""
    known, asked = ball((24, 24, 12)), []
    hole = known | ball((24, 24, 77), 18) | ball((8, 24, 36), 4) | ball((17, 24, 36), 4)

    def expect():
        asked.append(1)
        return np.where(hole, TISSUE, scan).astype(np.float32)

    result = filled_from_scan(hidden(scan, hole), hole, expect, SPACING, 1, 0)
    assert result.expected and len(asked) == 1 and np.isfinite(result.values).all()
    alone = filled_from_scan(hidden(scan, known), known, asked_in_vain, SPACING, 1, 0)
    assert not alone.expected and np.abs(alone.values - TISSUE)[known].mean() < 60


def test_the_rim_of_a_large_lesion_does_not_make_the_filling_dense(scan, monkeypatch):
    """A shell of 150 HU more around a ball of 28 mm in even tissue: the filling has the mean of the expected tissue."""
    even = scan - TISSUE
    hole, shell = ball((24, 24, 48), 14), ball((24, 24, 48), 17)
    lesion = np.where(shell & ~hole, even + 150, even).astype(np.float32)

    def mean_inside():
        expected = np.where(hole, 0, lesion)
        filling = filled_from_scan(hidden(lesion, hole), hole, lambda: expected, SPACING, 1, 0)
        return filling.values[hole].mean()

    assert abs(mean_inside()) < 15
    monkeypatch.setattr("MedDiffFMLib.tasks.inpaint.texture.TRUSTED_MM", 99)
    assert mean_inside() > 40


def test_nothing_is_copied_where_there_is_no_room(scan):
    hole = np.ones(scan.shape, bool)
    hole[:4] = False
    result, texture = filled(scan, hole)
    assert texture.places == 0 and texture.expected
    assert np.array_equal(result, np.where(hole, TISSUE, scan))


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
