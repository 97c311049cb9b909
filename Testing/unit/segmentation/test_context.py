"""A second look at a head's map finds what only its surroundings tell, and travels with the head."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from MedDiffFMLib.segmentation import context
from MedDiffFMLib.segmentation.context import context_sample, train_context
from MedDiffFMLib.segmentation.inputs import dice
from MedDiffFMLib.segmentation.outline import outlined

SHAPE = (16, 40, 40)


def ball(center: np.ndarray) -> np.ndarray:
    return ((np.indices(SHAPE) - center[:, None, None, None]) ** 2).sum(0) <= 12


def scan(seed: int) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
    """HU, what a head that sees single points says, and the truth, of two balls that look alike and a landmark.

    The first class is the ball before the landmark, the second the landmark; the ball behind it is nothing.
    """
    rng = np.random.default_rng(seed)
    middle = np.array([8, 20, 20]) + rng.integers(-3, 4, 3)
    before, mark, behind = (ball(middle + np.array([0, step, 0])) for step in (-9, 0, 9))
    alike = (before | behind) * rng.uniform(0.3, 0.7, SHAPE)
    said = np.stack([alike, mark * 0.9]).astype(np.float32)
    voxels = (40 + 100 * (before | behind) + rng.normal(0, 20, SHAPE)).astype(np.int16)
    return voxels, torch.from_numpy(said), torch.from_numpy(np.stack([before, mark]).astype(np.float32))


@pytest.fixture(scope="module")
def head() -> context.ContextHead:
    """Of three cases."""
    samples = [context_sample(*scan(seed), (True, True), seed) for seed in range(3)]
    shares = torch.stack([scan(seed)[2].mean((1, 2, 3)) for seed in range(3)]).mean(0)
    return train_context(samples, shares)


def test_of_two_that_look_alike_the_surroundings_tell_the_one(head: context.ContextHead) -> None:
    for seed in (10, 11, 12):
        voxels, said, truth = scan(seed)
        alone, again = (dice(outlined(p), truth) for p in (said, head.refined(voxels, said)))
        assert alone[0] < 0.72 and again[0] > 0.9 and again[1] > 0.9


def test_a_class_that_one_case_alone_has_outlined_stays_as_it_is() -> None:
    samples = [context_sample(*scan(seed), (True, seed == 0), seed) for seed in range(2)]
    head = train_context(samples, torch.tensor([0.01, 0.01]))
    voxels, said, _ = scan(2)
    refined = head.refined(voxels, said)
    assert torch.equal(refined[1], said[1])
    assert (refined[0] != said[0]).any()


def test_slabs_give_what_the_whole_gives(head: context.ContextHead, monkeypatch: pytest.MonkeyPatch) -> None:
    voxels, said, truth = scan(1)
    whole, sample = head.refined(voxels, said), context_sample(voxels, said, truth, (True, True), 0)
    monkeypatch.setattr(context, "SLAB_VOXELS", 3 * SHAPE[1] * SHAPE[2])
    torch.testing.assert_close(head.refined(voxels, said), whole, atol=1e-5, rtol=1e-4)
    again = context_sample(voxels, said, truth, (True, True), 0)
    torch.testing.assert_close(again.features, sample.features, atol=1e-4, rtol=1e-4)
    assert torch.equal(again.target, sample.target) and float(sample.weight.sum()) == pytest.approx(said[0].numel())


def test_nothing_is_made_of_an_empty_map(head: context.ContextHead) -> None:
    voxels, said, _ = scan(1)
    assert not outlined(head.refined(np.zeros_like(voxels), torch.zeros_like(said))).any()
