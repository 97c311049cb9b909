"""Vectors of what belongs together are drawn together, and of what is equal they are not pushed apart."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from MedDiffFMLib.multimodal.alignment import fit_of, info_nce
from MedDiffFMLib.multimodal.facts.grammar import statement
from MedDiffFMLib.multimodal.spoken_facts import items


def unit(*rows: tuple[float, ...]) -> torch.Tensor:
    return functional.normalize(torch.tensor(rows, dtype=torch.float64), dim=1)


def test_two_pairs_in_closed_form() -> None:
    """Two images 60 degrees apart, texts on top of them: cosines 1, 1/2, 1/2, 1."""
    vectors = unit((1, 0), (0.5, math.sqrt(3) / 2))
    assert float(info_nce(vectors, vectors, 4.0)) == pytest.approx(math.log(1 + math.exp(-2.0)))


def test_rows_and_columns_both_count() -> None:
    """Which text fits an image is another question than which image fits a text; each is asked."""
    texts, images = unit((1, 0), (1, 0.2)), unit((1, 0), (0, 1))
    cosines = 5 * texts @ images.T
    rows, columns = (functional.cross_entropy(logits, torch.arange(2)) for logits in (cosines, cosines.T))
    assert float(rows) != pytest.approx(float(columns), rel=0.1)
    assert float(info_nce(texts, images, 5.0)) == pytest.approx(float(rows + columns) / 2)


def test_soft_targets_are_hard_ones_where_nothing_is_shared() -> None:
    said = torch.eye(6)[:, torch.randperm(6, generator=torch.Generator().manual_seed(1))]
    first, second = (
        functional.normalize(torch.randn(6, 8, generator=torch.Generator().manual_seed(n))) for n in (2, 3)
    )
    assert torch.equal(info_nce(first, second, 9.0, fit_of(said, said)), info_nce(first, second, 9.0))


def test_equal_facts_are_not_pushed_apart() -> None:
    """Two boxes of which the same is true, and a third: the first two may have one vector, at no loss between them."""
    said = torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]])
    vectors = unit((1, 0), (1, 0), (0, 1)).requires_grad_()
    loss = info_nce(vectors, vectors.detach(), 50.0, fit_of(said, said))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    assert float(vectors.grad.abs().max()) < 1e-6
    hard = info_nce(vectors.detach(), vectors.detach(), 50.0)
    assert float(hard) == pytest.approx(2 / 3 * math.log(2))


def test_a_text_fits_as_far_as_it_is_true() -> None:
    """It need not tell all that there is, and numbers are true within a step."""
    bony, fat = statement("bone", share=5.0, volume=100), statement("fat", share=34, volume=1.2)
    near, far = statement("fat", share=35, volume=1.2), statement("fat", share=70, volume=1.2)
    said = torch.from_numpy(np.stack([items([fat]), items([bony, fat])]))
    true = torch.from_numpy(np.stack([items([near, bony]), items([far, bony])]))
    assert fit_of(said, true)[:, 1].tolist() == pytest.approx([0.5, 1.0])  # its own partner is always right
    assert fit_of(said, true)[1, 0] == pytest.approx(1.0)
