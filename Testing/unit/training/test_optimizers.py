"""Muon: orthogonal updates for the body's kernels, AdamW for all else, and a run that continues on the same bits."""

from __future__ import annotations

import copy

import pytest
import torch

from MedDiffFMLib.networks.unet import NetworkConfig, PriorUNet
from MedDiffFMLib.training.optimizers import body_kernels, make_optimizer, orthogonalized


@pytest.mark.parametrize("shape", [(16, 432), (40, 9)])
def test_an_update_keeps_its_directions_and_makes_them_equally_long(shape: tuple[int, int]):
    torch.manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(shape, dtype=torch.float64), full_matrices=False)
    lengths = torch.logspace(0, -2, min(shape), dtype=torch.float64)
    update = orthogonalized(left @ torch.diag(lengths) @ right)

    inside = left.T @ update @ right.T
    assert torch.diag(inside).min() > 0.67
    assert torch.diag(inside).max() < 1.21
    assert (inside - torch.diag(torch.diag(inside))).abs().max() < 1e-9


def network() -> PriorUNet:
    torch.manual_seed(1)
    return PriorUNet(NetworkConfig(channels=(32, 32), attention=(False, False)))


def test_only_kernels_of_the_body_are_orthogonalized():
    module = network()
    kernels, others = body_kernels(module)
    assert {id(p) for p in kernels} | {id(p) for p in others} == {id(p) for p in module.parameters()}
    first, last = module.unet.conv_in.conv.weight, module.unet.out[-1].conv.weight
    assert all(any(p is outer for p in others) for outer in (first, last))
    assert {p.ndim for p in kernels} == {5}


def learn(module: PriorUNet, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for parameter in module.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


def test_a_continued_run_makes_the_same_steps():
    whole, halved = network(), network()
    learn(whole, make_optimizer(whole, "muon", 1e-3, 0.01), range(4))

    first = make_optimizer(halved, "muon", 1e-3, 0.01)
    learn(halved, first, range(2))
    second = make_optimizer(halved, "muon", 1e-3, 0.01)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    learn(halved, second, range(2, 4))
    for one, other in zip(whole.parameters(), halved.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_kernel_moves_as_far_as_adam_would_move_it():
    module = network()
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    learn(module, make_optimizer(module, "muon", 1e-3, 0.0), range(1))
    kernels = {id(p) for p in body_kernels(module)[0]}
    for name, parameter in module.named_parameters():
        if id(parameter) in kernels:
            moved = (parameter - before[name]).detach().square().mean().sqrt()
            assert 0.1e-3 < moved < 0.3e-3, "a fifth of the learning rate, AdamW's usual step"
