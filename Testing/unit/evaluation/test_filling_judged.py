"""Texture of a filling and the classifier that judges it: equal tissue passes, every way to be wrong shows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from MedDiffFMLib.evaluation.quality import patch_classifier, texture
from MedDiffFMLib.evaluation.quality.protocols import Row
from MedDiffFMLib.evaluation.quality.tables import add_told_apart, mean_of

SPACING = (1.0, 1.0, 2.0)


def ball(diameter_mm: float = 24.0, shape: tuple[int, int, int] = (20, 48, 48)) -> np.ndarray:
    k, j, i = np.indices(shape) - (np.array(shape) // 2)[:, None, None, None]
    return np.sqrt((2 * k) ** 2 + j**2 + i**2) <= diameter_mm / 2


HOLE = ball()


def tissue(seed: int, width: float = 0.6, deviation: float = 20.0) -> np.ndarray:
    field = gaussian_filter(np.random.default_rng(seed).standard_normal(HOLE.shape), (0, width, width))
    return 50 + deviation * field / field.std()


@pytest.mark.slow
def test_power_of_equal_tissue_is_equal_and_of_twice_the_deviation_four_times():
    equal = [texture.spectrum_ratios(tissue(n), tissue(100 + n), HOLE, SPACING) for n in range(40)]
    assert np.exp(np.log(equal).mean(axis=0)) == pytest.approx([1, 1, 1], abs=0.12)
    truth = tissue(0)
    assert texture.spectrum_ratios(50 + 2 * (truth - 50), truth, HOLE, SPACING) == pytest.approx([4, 4, 4])
    assert texture.spectrum_distance(np.array([4.0, 4.0, 4.0])) == pytest.approx(2)
    assert texture.spectrum_ratios(truth, truth, HOLE, SPACING) == pytest.approx([1, 1, 1])


def test_power_of_white_noise_is_flat_and_its_variance():
    powers = np.mean([texture.band_powers(tissue(n, 0.0), HOLE, SPACING) for n in range(60)], axis=0)
    assert powers[1:] == pytest.approx([400, 400], rel=0.1)
    assert 250 < powers[0] < 400  # mean and slope are taken away, which lie there


def test_blurred_tissue_lacks_fine_power_and_a_flat_fill_all_of_it():
    truth = tissue(3)
    soft = texture.spectrum_ratios(gaussian_filter(truth, (0, 1, 1)), truth, HOLE, SPACING)
    assert 0.5 < soft[0] < 1 and soft[2] < 0.05 and soft[0] > soft[1] > soft[2]
    assert texture.spectrum_ratios(np.full(HOLE.shape, 7.0), truth, HOLE, SPACING) == pytest.approx([1e-3] * 3)


def test_a_slope_is_no_texture_and_narrow_holes_have_no_coarse_band():
    slope = np.broadcast_to(30.0 * np.arange(48), HOLE.shape)
    np.testing.assert_allclose(
        texture.band_powers(tissue(1) + slope, HOLE, SPACING), texture.band_powers(tissue(1), HOLE, SPACING), rtol=1e-6
    )
    small = texture.band_powers(tissue(1), ball(10.0), SPACING)
    assert np.isnan(small[0]) and np.isfinite(small[2])
    # The same voxels in millimeters twice as large: the bands are fractions of the Nyquist rate.
    wide = texture.band_powers(tissue(1), HOLE, (2.0, 2.0, 4.0))
    np.testing.assert_allclose(wide, texture.band_powers(tissue(1), HOLE, SPACING))


def test_ratios_are_averaged_so_that_half_and_twice_as_much_cancel():
    found = mean_of([0.5, 2.0, float("nan")], ["a", "b", "c"], ratio=True)
    assert found.mean == pytest.approx(1) and found.count == 2
    assert mean_of([0.5, 2.0], ["a", "b"], ratio=False).mean == pytest.approx(1.25)


def judged(fill, patients: int = 8) -> float:
    """AUC for a way to fill: ``fill(volume, seed)`` gives what is put into the hole."""
    filled, untouched, names = [], [], []
    for n in range(patients):
        for hole in range(2):
            truth = tissue(10 * n + hole)
            image = np.where(HOLE, fill(truth, 1000 + 10 * n + hole), truth)
            filled.append(patch_classifier.patches(image, HOLE))
            untouched.append(patch_classifier.patches(truth, HOLE))
            names.append(f"p{n}")
    return float(np.mean(list(patch_classifier.told_apart(filled, untouched, names).values())))


@pytest.mark.slow
def test_the_classifier_cannot_tell_tissue_of_the_same_kind_apart():
    """Drawn anew at the same place; the truth's neighbors go on, so that only the rim could tell."""

    def alike(truth, seed):
        white = np.random.default_rng(seed).standard_normal(HOLE.shape)
        return 50 + 20 * white

    filled, untouched, names = [], [], []
    for n in range(24):
        truth = 50 + 20 * np.random.default_rng(n).standard_normal(HOLE.shape)
        filled.append(patch_classifier.patches(np.where(HOLE, alike(truth, 500 + n), truth), HOLE))
        untouched.append(patch_classifier.patches(truth, HOLE))
        names.append(f"p{n}")
    found = np.mean(list(patch_classifier.told_apart(filled, untouched, names).values()))
    assert found == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    "name, fill",
    [
        ("constant", lambda truth, seed: np.full(truth.shape, truth[HOLE].mean())),
        ("smooth", lambda truth, seed: gaussian_filter(truth, (0, 1, 1))),
        ("too lively", lambda truth, seed: tissue(seed, deviation=40.0)),
        ("too white", lambda truth, seed: tissue(seed, width=0.0)),
        ("too dense", lambda truth, seed: truth + 60),
    ],
)
def test_the_classifier_sees_what_is_wrong(name, fill):
    assert judged(fill) > 0.95


def test_a_logistic_regression_is_at_its_minimum():
    rng = np.random.default_rng(0)
    terms = np.concatenate([rng.normal(size=(60, 3)), np.ones((60, 1))], axis=1)
    target = (terms[:, 0] + rng.normal(size=60) > 0.3).astype(float)
    share = rng.uniform(0.5, 1.5, 60)

    def loss(weights):
        logits = terms @ weights
        return (share * (np.logaddexp(0, logits) - target * logits)).sum() + 0.5 * (weights[:3] ** 2).sum()

    found = patch_classifier.logistic_weights(terms, target, share)
    for axis in range(4):
        for step in (1e-3, -1e-3):
            assert loss(found + step * np.eye(4)[axis]) > loss(found)


def test_the_figure_is_the_patients_and_needs_three():
    def rows(patients):
        made = []
        for n in range(patients):
            lists = {
                kind: (np.random.default_rng(n).normal(5 * (kind == "filled"), 1, (6, 4))).tolist()
                for kind in ("filled", "untouched")
            }
            made.append(Row("inpaint", f"c{n}", f"p{n}", "20 mm", "fill", {}, 0.0, {"patches": lists}))
        return made

    enough, few = rows(4), rows(2)
    add_told_apart(enough)
    add_told_apart(few)
    assert [row.values["told apart"] for row in enough] == pytest.approx([1] * 4)
    assert all("told apart" not in row.values for row in few)
