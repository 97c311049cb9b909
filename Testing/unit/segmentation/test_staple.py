"""Fusion of several masks by STAPLE."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from MedDiffFMLib.core.errors import DependencyError
from MedDiffFMLib.segmentation.staple import staple

TRUTH = np.zeros((20, 22, 24), bool)
TRUTH[6:14, 7:15, 8:17] = True


def slip(mask: np.ndarray, share: float, seed: int) -> np.ndarray:
    """A rater who is wrong about a share of the voxels near the structure."""
    near = np.zeros(mask.shape, bool)
    near[4:16, 5:17, 6:19] = True
    return mask ^ (near & (np.random.default_rng(seed).random(mask.shape) < share))


@pytest.mark.parametrize("mask", [TRUTH, np.zeros_like(TRUTH), np.ones_like(TRUTH)])
def test_raters_who_agree_are_believed(mask: np.ndarray) -> None:
    pytest.importorskip("SimpleITK")
    np.testing.assert_array_equal(staple(np.stack([mask] * 3)).probability, mask)


def test_bad_rater_is_discounted() -> None:
    """A majority vote lets three bad raters win as often as three good ones; STAPLE finds out who they are."""
    pytest.importorskip("SimpleITK")
    good = [slip(TRUTH, 0.05, seed) for seed in range(3)]
    bad = [slip(TRUTH, 0.4, seed) for seed in range(10, 13)]
    found = staple(np.stack(good + bad))
    assert found.sensitivity[:3].min() > 0.85 > 0.7 > found.sensitivity[3:].max()
    assert found.specificity[:3].min() > found.specificity[3:].max()
    majority = np.mean(good + bad, axis=0) > 0.5
    wrong = ((found.probability > 0.5) != TRUTH).sum()
    assert wrong < (majority != TRUTH).sum() / 2


def test_air_around_does_not_matter() -> None:
    pytest.importorskip("SimpleITK")
    raters = np.stack([slip(TRUTH, share, n) for n, share in enumerate((0.1, 0.2, 0.3, 0.4))])
    wide = np.pad(raters, [(0, 0)] + [(20, 20)] * 3)
    inner = staple(wide).probability[20:-20, 20:-20, 20:-20]
    np.testing.assert_array_equal(inner, staple(raters).probability)


def test_raters_do_not_depend_on_their_order() -> None:
    pytest.importorskip("SimpleITK")
    raters = np.stack([slip(TRUTH, share, n) for n, share in enumerate((0.1, 0.2, 0.3))])
    np.testing.assert_allclose(staple(raters).probability, staple(raters[::-1]).probability, atol=1e-6)


def test_missing_package_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(DependencyError, match="pip install SimpleITK"):
        staple(np.stack([TRUTH, ~TRUTH]))
