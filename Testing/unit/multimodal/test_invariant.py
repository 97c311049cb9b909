"""One anatomy has one vector however it was taken, and not all anatomies have the same."""

from __future__ import annotations

import pytest
import torch

from MedDiffFMLib.multimodal.acquisitions import another_ct, another_mr, another_xray
from MedDiffFMLib.multimodal.invariant import effective_rank, invariant_loss, sameness


def whitened(rows: int, d: int) -> torch.Tensor:
    """Vectors whose covariance is exactly the identity."""
    noise = torch.randn(rows, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    directions, _ = torch.linalg.qr(noise - noise.mean(0))
    return directions * rows**0.5


def test_no_loss_for_whitened_twins() -> None:
    vectors = whitened(2000, 16).float()
    assert float(invariant_loss(vectors, vectors)) == pytest.approx(0, abs=1e-5)
    assert float(invariant_loss(vectors.reshape(20, 100, 16), vectors.reshape(20, 100, 16))) < 1e-5


def test_unrelated_vectors_lose_one_a_dimension() -> None:
    vectors = whitened(4000, 32)
    assert float(invariant_loss(vectors[:, :16], vectors[:, 16:])) == pytest.approx(1, abs=0.01)


def test_collapse_costs_though_twins_are_the_same() -> None:
    """All dimensions tell the same: the cosine is 1, and the loss is not near 0."""
    line = whitened(2000, 16)[:, :1].float().expand(-1, 16)
    assert sameness(line, line) == pytest.approx(1)
    assert float(invariant_loss(line, line)) > 0.05


def test_effective_rank_counts_directions() -> None:
    vectors = whitened(2000, 16)
    assert effective_rank(vectors) == pytest.approx(16, rel=1e-6)
    vectors[:, 4:] = 0
    assert effective_rank(vectors) == pytest.approx(4, rel=1e-6)


@pytest.mark.parametrize(("another", "shape"), [
    (another_ct, (2, 1, 16, 16, 16)), (another_mr, (2, 1, 16, 16, 16)), (another_xray, (2, 1, 32, 32)),
])  # fmt: skip
def test_acquisitions_differ_in_looks_alone(another, shape) -> None:
    """The same draw gives the same picture; edges stay where they are; the range is kept."""
    image = torch.full(shape, -0.6)
    image[..., 4:12] = 0.4
    first, again, second = (another(image, torch.Generator().manual_seed(n)) for n in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, second)
    assert float(first.abs().max()) <= 1
    line = first.reshape(len(first), -1, first.shape[-1]).mean(1)
    inside, outside = line[:, 6:10].mean(1), line[:, [0, 1, -2, -1]].mean(1)
    assert bool((inside > outside + 0.2).all())
