"""Outlines promise the largest overlap that probabilities allow, and nothing where nothing is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from MedDiffFMLib.segmentation import outline
from MedDiffFMLib.segmentation.features import smoothed
from MedDiffFMLib.segmentation.inputs import dice
from MedDiffFMLib.segmentation.outline import HALF, best_threshold, outlined


@pytest.mark.parametrize("center", [-6.0, -3.0, -1.0])
def test_no_threshold_overlaps_more_and_it_is_half_of_the_dice(center: float) -> None:
    """The theorem of Lipton et al., on masks drawn from the probabilities."""
    rng = np.random.default_rng(0)
    probability = 1 / (1 + np.exp(-rng.normal(center, 2, (1, 60, 70, 70))))
    truth = torch.from_numpy(rng.random(probability.shape) < probability)
    overlap = {t: float(dice(torch.from_numpy(probability >= t), truth)) for t in np.arange(0.1, 0.501, 0.02)}
    reached = float(dice(outlined(torch.from_numpy(probability)), truth))
    assert reached > max(overlap.values()) - 0.005
    assert best_threshold(probability) == pytest.approx(max(reached / 2, outline.LOWEST), abs=0.03)


def test_what_is_not_in_the_scan_is_not_outlined() -> None:
    faint = gaussian_filter(np.random.default_rng(0).random((20, 30, 30)), 2)
    for probability in (np.zeros((4, 5, 6), np.float32), 0.09 * faint / faint.max()):
        assert not outlined(torch.from_numpy(probability)[None]).any()
    assert outlined(torch.ones(2, 3, 4, 5)).all()
    assert torch.equal(outlined(torch.tensor([[[[0.49, 0.5]]]]), HALF), torch.tensor([[[[False, True]]]]))


def test_a_large_scan_is_counted_slab_by_slab(monkeypatch: pytest.MonkeyPatch) -> None:
    probability = np.random.default_rng(1).beta(0.3, 2, (30, 20, 20)).astype(np.float32)
    whole = best_threshold(probability)
    monkeypatch.setattr(outline, "SLAB_VOXELS", 1234)
    assert best_threshold(probability) == whole


def test_grain_goes_and_what_is_even_stays() -> None:
    probability = torch.zeros(2, 12, 14, 16)
    probability[0, 6, 7, 8] = 1.0
    probability[1] = 0.3
    before = probability.clone()
    calm = smoothed(probability)
    assert torch.equal(probability, before)
    torch.testing.assert_close(calm[1], before[1])
    assert float(calm[0].sum()) == pytest.approx(1.0, abs=1e-5) and 0.1 < float(calm[0].max()) < 0.2
    spread = (calm[0].sum((0, 1)) * (torch.arange(16) - 8.0) ** 2).sum() ** 0.5
    assert float(spread) == pytest.approx(0.75, abs=0.05)
