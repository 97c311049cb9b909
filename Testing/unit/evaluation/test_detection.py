"""Free response and areas under curves on hand-made cases, against float64 references."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from MedDiffFMLib.evaluation.quality import detection, metrics
from MedDiffFMLib.evaluation.quality.protocols import Row
from MedDiffFMLib.evaluation.quality.tables import summary

SPACING = (1.0, 1.0, 1.0)


def partial_area(scores: np.ndarray, positives: np.ndarray, limit: float) -> float:
    """Area under the ROC polygon up to ``limit``, over it, threshold by threshold."""
    points = [(0.0, 0.0)]
    for threshold in sorted(set(scores.tolist()), reverse=True):
        chosen = scores >= threshold
        points.append((np.mean(chosen[~positives]), np.mean(chosen[positives])))
    area = 0.0
    for (x0, y0), (x1, y1) in zip(points[:-1], points[1:], strict=True):
        end = min(x1, limit)
        if x1 > x0 and end > x0:
            y = y0 + (y1 - y0) * (end - x0) / (x1 - x0)
            area += (end - x0) * (y0 + y) / 2
    return area / limit


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=30), st.sampled_from([0.1, 0.3, 1.0]))
def test_areas_are_those_under_the_curve_also_with_ties(pairs, limit):
    scores = np.array([s for s, _ in pairs], float)
    positives = np.array([p for _, p in pairs])
    if positives.all() or not positives.any():
        return
    rates = metrics.false_positive_rates(np.sort(scores[~positives]), scores[positives])
    assert metrics.areas(*rates, limit).mean() == pytest.approx(partial_area(scores, positives, limit))
    if limit == 1:
        assert metrics.areas(*rates).mean() == pytest.approx(metrics.ranking(scores, positives).auroc)


def test_weights_count_as_copies_do():
    rng = np.random.default_rng(0)
    negatives, positives, times = np.sort(rng.normal(size=20)), rng.normal(1, 1, 9), rng.integers(1, 5, 20)
    weighted = metrics.false_positive_rates(negatives, positives, times.astype(float))
    copied = metrics.false_positive_rates(np.repeat(negatives, times), positives)
    np.testing.assert_allclose(weighted, copied)


def test_chance_up_to_a_limit_is_half_of_it():
    rng = np.random.default_rng(0)
    rates = metrics.false_positive_rates(np.sort(rng.normal(size=20_000)), rng.normal(size=5_000))
    assert metrics.areas(*rates, 0.3).mean() == pytest.approx(0.15, abs=0.01)


@pytest.fixture
def scene():
    """Three lesions and the map's peaks, by height: 9 in none, 8 beside the first, 7 in the second, 6 and 5 in none."""
    labels = np.zeros((20, 80, 80), np.uint8)
    labels[8:12, 8:14, 8:14], labels[8:12, 40:46, 40:46], labels[8:12, 64:70, 8:14] = 1, 2, 4
    score = np.zeros(labels.shape, np.float32)
    for height, j, i in ((9, 70, 70), (8, 16, 10), (7, 42, 42), (6, 30, 70), (5, 10, 30)):
        score[10, j, i] = height
    return score, labels


def test_ranks_of_a_known_scene(scene):
    score, labels = scene
    heights, voxels = detection.peaks(score, score > 0, SPACING)
    assert heights.tolist() == [9, 8, 7, 6, 5]
    # The second finding is 3 mm beside the first lesion's last row, 13; that still hits.
    assert detection.ranks(voxels, labels, SPACING) == [2, 3, None]
    assert detection.ranks(voxels, labels, (1.0, 2.0, 1.0)) == [None, 3, None]
    assert detection.diameters(labels, SPACING) == pytest.approx([np.cbrt(6 / np.pi * 144)] * 3, abs=0.06)
    assert detection.ranks(voxels[:0], labels, SPACING) == [None] * 3


def test_share_among_the_first_findings_and_its_interval(scene):
    ranks, sizes = [[2, 3, None], [1]], [[9.0, 7.0, 20.0], [8.0]]
    found = detection.among_first(ranks, sizes, ["p", "q"])
    assert [found[n].mean for n in (1, 2, 4, 8)] == [0.25, 0.5, 0.75, 0.75]
    assert found[4].count == 4 and found[4].low == pytest.approx(2 / 3) and found[4].high == 1
    large = detection.among_first(ranks, sizes, ["p", "q"], least_mm=8.0)
    assert large[2].mean == pytest.approx(2 / 3) and large[2].count == 3


def test_a_list_is_of_regions_by_their_peak(scene):
    score, _ = scene
    score[10, 42, 43:60] = 6.5  # one region with the peak of 7
    voxels = detection.listed(score, np.ones(score.shape, bool), SPACING, 5.5, 1.0)
    assert voxels.tolist() == [[10, 70, 70], [10, 16, 10], [10, 42, 42], [10, 30, 70]]
    assert detection.listed(score, np.ones(score.shape, bool), SPACING, 5.5, 10.0).tolist() == [[10, 42, 42]]
    away = np.ones(score.shape, bool)
    away[:, 70:] = False
    assert len(detection.listed(score, away, SPACING, 5.5, 1.0)) == 3


def test_cases_are_ranked_together_voxel_by_voxel():
    def row(case, normal, lesion, voxels):
        details = {
            "scores": {"normal": normal, "lesion": lesion, "voxels": voxels},
            "false": [],
            "best": [1.0],
            "ranks": [1],
            "diameters": [9.0],
        }
        return Row("anomaly", case, case, "real lesions", "map", {"AUROC": 1.0}, 0.0, details)

    # Each case alone is ranked without error; together, the second's normal voxels lie above the first's lesions.
    rows = [row("a", [0.0], [1.0], [10, 30]), row("b", [2.0], [3.0], [30, 10])]
    found = summary(rows)["anomaly"]["real lesions"]["pooled"]["map"]["AUROC"]
    assert found["mean"] == pytest.approx((30 * 0.25 + 10 * 1) / 40)
    assert found["low"] <= found["mean"] <= found["high"] == 1
