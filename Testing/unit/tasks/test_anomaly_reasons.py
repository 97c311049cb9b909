"""Reasons of findings: what was put into even tissue is named as what it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from MedDiffFMLib.tasks.anomaly.detector import Detector, Member, rarity_z, shipped_detector
from MedDiffFMLib.tasks.anomaly.local_features import NAMES, feature_table
from MedDiffFMLib.tasks.anomaly.reasons import KINDS, integrated_gradients, loudest, reasons

SPACING = (3.0, 3.0, 3.0)
BODY = np.ones((48, 48, 48), bool)
BALL = (((np.indices(BODY.shape) - 24) ** 2).sum(0) < 16).astype(np.int32)


def tissue(seed: int = 0) -> np.ndarray:
    """Even soft tissue with a little noise."""
    return 40 + np.random.default_rng(seed).normal(0, 10, BODY.shape).astype(np.float32)


@pytest.mark.parametrize(("added", "words"), [(200, "denser than expected (+200 HU)"), (-120, "less dense than exp")])
def test_a_lump_is_told_by_how_far_it_is_from_expected_tissue(added: float, words: str) -> None:
    change = np.where(BALL > 0, -added, 0).astype(np.float32)
    (why,) = reasons(shipped_detector(), tissue() - change, change, BODY, BALL, SPACING).values()
    assert why.startswith(words) and why.count(";") <= 1 and "than around" not in why.split(";")[0]
    assert reasons(None, tissue() - change, change, BODY, BALL, SPACING)[1].startswith(words)


def test_fluid_in_rough_tissue_is_told_by_its_evenness() -> None:
    """As dense as what is around it, so that nothing is said of density."""
    rough = 40 + np.random.default_rng(1).normal(0, 150, BODY.shape)
    fluid = np.where(BALL > 0, 40, rough).astype(np.float32)
    words = reasons(shipped_detector(), fluid, np.zeros(BODY.shape, np.float32), BODY, BALL, SPACING)[1]
    assert "more even than around" in words and "dense" not in words and words.count(";") <= 1


def test_the_network_with_the_larger_z_is_asked() -> None:
    """Whichever it is: of both orders of the two the same one."""
    detector = shipped_detector()
    turned = replace(detector, members=detector.members[::-1])
    for added in (200, -120, 20):
        table = feature_table(tissue() + added * BALL, BODY, SPACING, BALL > 0)
        member = loudest(detector, table)
        other = next(one for one in detector.members if one is not member)
        z = {id(one): rarity_z(detector_odds.mean(), one.quantiles) for one, detector_odds in _odds(detector, table)}
        assert z[id(member)] > z[id(other)] and loudest(turned, table) is member


def _odds(detector: Detector, table: np.ndarray) -> list[tuple[Member, np.ndarray]]:
    return list(zip(detector.members, detector.odds(table), strict=True))


def test_shares_add_up_and_each_feature_is_of_one_kind() -> None:
    detector = shipped_detector()
    lump = tissue() + 200 * BALL
    rows = torch.from_numpy(feature_table(lump, BODY, SPACING, BALL > 0).astype(np.float32))
    start, end = rows.min(0).values, rows.mean(0)
    odds = detector.odds(torch.stack([start, end]).numpy())
    assert len(odds) == 2
    for member, own in zip(detector.members, odds, strict=True):
        shares = integrated_gradients(detector, member, start, end)
        assert shares.sum() == pytest.approx(float(own[1] - own[0]), rel=0.05, abs=0.05)
    kinds = [sum(name.rstrip("0123456789") in beginnings for beginnings in KINDS.values()) for name in NAMES]
    assert kinds == [1] * len(NAMES)
