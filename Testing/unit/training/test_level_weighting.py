"""The learned weight of noise levels: it finds the logarithm of each level's loss, and gradients of equal size."""

from __future__ import annotations

import pytest
import torch

from MedDiffFMLib.training.level_weighting import LevelWeighting


def expected_loss(sigma: torch.Tensor, holed: torch.Tensor) -> torch.Tensor:
    """A loss that falls with the noise, and another one in holes."""
    return torch.where(holed, torch.full_like(sigma, 0.3), 0.02 + 0.5 / (1 + sigma / 0.05))


def test_before_any_training_the_loss_is_as_it_was():
    losses, sigma = torch.tensor([0.1, 2.0, 5.0]), torch.tensor([0.002, 0.3, 80.0])
    assert torch.equal(LevelWeighting()(losses, sigma, torch.tensor([True, False, True])), losses)


@pytest.mark.slow
def test_the_minimum_is_at_the_logarithm_of_each_levels_loss():
    torch.manual_seed(0)
    weighting = LevelWeighting()
    optimizer = torch.optim.Adam(weighting.parameters(), lr=0.02)
    for _ in range(1500):
        sigma, holed = torch.empty(256).uniform_(-6, 4).exp(), torch.rand(256) < 0.4
        optimizer.zero_grad()
        weighting(expected_loss(sigma, holed), sigma, holed).mean().backward()
        optimizer.step()
    for kind in (False, True):
        sigma = torch.tensor([0.01, 0.05, 0.2, 1.0, 10.0])
        holed = torch.full((5,), kind)
        expected = expected_loss(sigma, holed)
        assert weighting.uncertainty(sigma, holed).tolist() == pytest.approx(expected.log().tolist(), abs=0.1)
        share = torch.autograd.grad(weighting(expected.requires_grad_(), sigma, holed).sum(), expected)[0] * expected
        assert share.tolist() == pytest.approx([1.0] * 5, abs=0.12), "every level counts as much as any other"
