"""Figures of merit against brute force and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from MedDiffFMLib.evaluation.quality import metrics
from MedDiffFMLib.evaluation.quality.detection import findings, peaks, sensitivity


def test_psnr_of_a_known_error():
    truth = np.zeros((3, 8, 8))
    mask = np.zeros(truth.shape, bool)
    mask[:, 2:6, 2:6] = True
    image = np.where(mask, truth + 40.0, 999.0)
    assert metrics.psnr(image, truth, mask) == pytest.approx(20.0)
    # Beyond the window nothing counts: both are white on the screen.
    assert metrics.psnr(np.full(truth.shape, 900.0), np.full(truth.shape, 300.0), mask) == float("inf")


def test_ssim_is_one_for_equal_and_falls_with_noise():
    rng = np.random.default_rng(0)
    truth = rng.normal(50, 40, (4, 32, 32))
    mask = np.ones(truth.shape, bool)
    values = [metrics.ssim(truth + rng.normal(0, s, truth.shape), truth, mask) for s in (0, 10, 40)]
    assert values[0] == pytest.approx(1.0)
    assert 1 > values[1] > values[2] > 0


def test_ssim_looks_at_the_mask_only():
    rng = np.random.default_rng(1)
    truth = rng.normal(50, 40, (2, 40, 40))
    image = truth.copy()
    image[:, :10] += 100
    mask = np.zeros(truth.shape, bool)
    mask[:, 20:] = True
    assert metrics.ssim(image, truth, mask) == pytest.approx(1.0)
    assert metrics.ssim(image, truth, ~mask) < 0.9


def brute_auroc(scores, positives):
    wins = [float(p > n) + 0.5 * float(p == n) for p in scores[positives] for n in scores[~positives]]
    return float(np.mean(wins))


def brute_average_precision(scores, positives):
    area, recall = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        chosen = scores >= threshold
        hits = int((chosen & positives).sum())
        area += (hits / positives.sum() - recall) * hits / chosen.sum()
        recall = hits / positives.sum()
    return area


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=30))
def test_ranking_is_exact_with_ties(pairs):
    scores = np.array([s for s, _ in pairs], float)
    positives = np.array([p for _, p in pairs])
    found = metrics.ranking(scores, positives)
    if positives.all() or not positives.any():
        assert np.isnan(found.auroc)
        return
    assert found.auroc == pytest.approx(brute_auroc(scores, positives))
    assert found.average_precision == pytest.approx(brute_average_precision(scores, positives))


def test_ranking_of_gaussian_scores_has_the_closed_form():
    from scipy.stats import norm

    rng = np.random.default_rng(0)
    positives = rng.random(400_000) < 0.05
    scores = rng.normal(0, 1, positives.size).astype(np.float32) + 1.5 * positives
    found = metrics.ranking(scores, positives)
    assert found.auroc == pytest.approx(norm.cdf(1.5 / np.sqrt(2)), abs=0.005)
    assert found.prevalence == pytest.approx(0.05, abs=0.002)
    chance = metrics.ranking(rng.random(positives.size), positives)
    assert chance.average_precision == pytest.approx(chance.prevalence, rel=0.05)


def test_bootstrap_interval_of_normal_values_is_the_textbook_one():
    values = np.random.default_rng(0).normal(10, 2, 200).tolist()
    found = metrics.bootstrap([*values, float("nan")])
    half = 1.96 * np.std(values) / np.sqrt(200)
    assert found.count == 200
    assert found.mean == pytest.approx(np.mean(values))
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.15)


def test_bootstrap_draws_a_patients_cases_together():
    values = np.random.default_rng(0).normal(0, 1, 20)
    alone = metrics.bootstrap(values.tolist())
    doubled = metrics.bootstrap(np.repeat(values, 4).tolist(), [str(n // 4) for n in range(80)])
    believed = metrics.bootstrap(np.repeat(values, 4).tolist())
    assert doubled.high - doubled.low == pytest.approx(alone.high - alone.low, rel=0.05)
    assert believed.high - believed.low < 0.7 * (alone.high - alone.low)


def test_wins_leave_out_what_cannot_be_compared():
    nan = float("nan")
    assert metrics.wins([1, 2, 3, nan], [0, 2, 4, 1], higher_is_better=True) == (1, 3)
    assert metrics.wins([1, 2, 3], [0, 2, 4], higher_is_better=False) == (1, 3)


def test_texture_and_absolute_error():
    truth = np.random.default_rng(0).normal(0, 10, (5, 5, 5))
    mask = np.ones(truth.shape, bool)
    assert metrics.texture_ratio(np.full(truth.shape, 3.0), truth, mask) == 0
    assert metrics.texture_ratio(2 * truth, truth, mask) == pytest.approx(2)
    assert metrics.mean_absolute_error(truth + 7, truth, mask) == pytest.approx(7)


@pytest.fixture
def scene():
    """Two lesions; the map peaks in the first (score 9), misses the second, and peaks at 7 and 5 elsewhere."""
    labels = np.zeros((20, 60, 60), np.uint8)
    labels[8:12, 8:14, 8:14], labels[8:12, 40:46, 40:46] = 1, 2
    score = np.zeros(labels.shape, np.float32)
    score[10, 10, 10], score[10, 10, 50], score[10, 50, 10] = 9, 7, 5
    return score, labels, np.ones(labels.shape, bool)


def test_peaks_are_apart_and_in_order(scene):
    score, _, mask = scene
    score[10, 10, 12] = 8.5
    falling = -1.0 - np.arange(score.size).reshape(score.shape)
    heights, voxels = peaks(np.where(score > 0, score, falling), mask, (1, 1, 1))
    assert heights[:3].tolist() == [9, 7, 5]
    assert voxels[0].tolist() == [10, 10, 10]


def test_findings_and_sensitivity_of_a_known_scene(scene):
    score, labels, mask = scene
    false, best = findings(score, labels, score > 0, (1, 1, 1))
    assert sorted(false) == [5, 7]
    assert best[0] == pytest.approx(9) and best[1] == float("-inf")
    assert sensitivity([false], [best], (0, 1, 2)) == {0: 0.5, 1: 0.5, 2: 0.5}
    # The second lesion scores 6: below the false finding of 7, so one must be allowed.
    assert sensitivity([false], [[9.0, 6.0]], (0, 1)) == {0: 0.5, 1: 1.0}
