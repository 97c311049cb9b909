"""Reliability of probabilities, and errors among the most uncertain voxels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from MedDiffFMLib.evaluation.quality.uncertainty import SHARES, draw_calibration, errors_found, reliability

RNG = np.random.default_rng(0)


def test_probabilities_that_come_true_are_reliable() -> None:
    probability = RNG.random((40, 50, 60))
    truth = RNG.random(probability.shape) < probability
    curve = reliability(probability, truth)
    np.testing.assert_allclose(curve.predicted, curve.observed, atol=0.02)
    assert curve.error < 0.01
    assert curve.voxels.sum() == probability.size


def test_overconfidence_shows_by_its_size() -> None:
    """What is said to be certain comes true in eight of ten cases."""
    probability = (RNG.random(100_000) < 0.5).astype(float)
    truth = np.where(RNG.random(probability.size) < 0.8, probability, 1 - probability) > 0.5
    assert reliability(probability, truth).error == pytest.approx(0.2, abs=0.01)


def test_empty_bins_do_not_count() -> None:
    curve = reliability(np.full(10, 0.25), np.arange(10) < 5)
    assert curve.error == pytest.approx(0.25)
    assert np.isnan(curve.predicted).sum() == 9


def test_errors_among_the_most_uncertain_voxels() -> None:
    doubt = np.arange(100.0)
    assert errors_found(doubt, doubt >= 90) == 1
    assert errors_found(doubt, doubt >= 80) == 0.5
    assert errors_found(doubt, doubt < 50) == 0
    assert np.isnan(errors_found(doubt, doubt < 0))


def test_equal_doubt_is_as_good_as_chance() -> None:
    wrong = RNG.random(1000) < 0.3
    assert errors_found(np.zeros(1000), wrong, 0.1) == pytest.approx(0.1)
    partly = np.where(np.arange(1000) < 50, 1.0, 0.0)
    expected = (wrong[:50].sum() + wrong[50:].sum() * 50 / 950) / wrong.sum()
    assert errors_found(partly, wrong, 0.1) == pytest.approx(expected)


def test_order_of_doubt_counts_and_not_its_size() -> None:
    doubt, wrong = RNG.random(500), RNG.random(500) < 0.2
    assert errors_found(doubt**3, wrong, 0.2) == errors_found(doubt, wrong, 0.2)


@pytest.mark.slow
def test_picture_is_drawn(tmp_path: Path) -> None:
    from skimage.io import imread

    probability = RNG.random(1000)
    truth = RNG.random(1000) < probability
    found = [errors_found(probability * (1 - probability), (probability > 0.5) != truth, share) for share in SHARES]
    draw_calibration(tmp_path / "a.png", {"draws": reliability(probability, truth)}, {"draws": found}, "Sarcoma")
    picture = imread(tmp_path / "a.png")
    assert picture.shape[1] == 1200 and picture.std() > 5
