"""Guidance by facts: what is asked for is met by a small change, and nothing else moves."""

from __future__ import annotations

import pytest
import torch

from MedDiffFMLib.multimodal.fact_guidance import FactGuidance, TissueWish

SHAPE = (20, 24, 22)


@pytest.fixture
def body() -> torch.Tensor:
    """A ball of soft tissue with a smooth-edged ball of lung in it, (1, 1, k, j, i)."""
    axes = [torch.linspace(-1, 1, n) for n in SHAPE]
    k, j, i = torch.meshgrid(*axes, indexing="ij")
    radius = (k**2 + j**2 + i**2).sqrt()
    image = 0.04 - 0.85 * torch.sigmoid((0.5 - radius) / 0.08)
    return torch.where(radius < 0.9, image, -1.0)[None, None]


@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_volume_asked_for_is_met(body: torch.Tensor, factor: float) -> None:
    lung = TissueWish(-0.97, -0.5, 0.02)
    where = (body[0, 0] > -1).float()
    before = float(lung.measure(body, where))
    wish = TissueWish(-0.97, -0.5, 0.02, voxels=factor * before)
    guided = FactGuidance([wish], where)
    found = body
    for _ in range(3):  # three noise levels
        found = guided(found, 1.0)
    assert float(wish.measure(found, where)) == pytest.approx(factor * before, rel=0.03)
    assert (found[body == -1] == -1).all()
    assert (found - body).abs().mean() < 0.1


def test_first_step_is_the_least_change_to_first_order(body: torch.Tensor) -> None:
    """In a band so wide that V is linear, one step of any other direction that meets V is longer."""
    where = torch.ones(SHAPE)
    wish = TissueWish(-1.0, 9.0, 3.0)
    before = float(wish.measure(body, where))
    wish = TissueWish(-1.0, 9.0, 3.0, voxels=before + 1)
    change = FactGuidance([wish], where)._step(body, wish) - body
    assert float(wish.measure(body + change, where)) == pytest.approx(before + 1, abs=0.02)
    even = torch.ones_like(change)
    even *= (before + 1 - before) / float(wish.measure(body + 1e-2 * even, where) - before) * 1e-2
    assert change.norm() <= even.norm() * 1.001


def test_share_counts_the_body_only(body: torch.Tensor) -> None:
    where = (body[0, 0] > -1).float()
    wish = TissueWish(0.2, 2.0, 0.04, share=0.1)
    assert wish.target(body, where) == pytest.approx(0.1 * float(where.sum()))
