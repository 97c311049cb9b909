"""A hole to fill: the guess the network starts from, and that nothing of the hole's content reaches it."""

import numpy as np
import pytest
import torch

from MedDiffFMLib.conditioning.condition import CONTEXT_AT, Condition, stack
from MedDiffFMLib.conditioning.known_voxels import biharmonic_init, encode_context, push_pull_fill
from MedDiffFMLib.training.holes import random_hole


@pytest.mark.parametrize("shape", [(32, 32, 32), (17, 30, 9), (8, 1, 8)])
def test_guess_keeps_the_known_and_continues_a_constant(shape):
    hole = torch.zeros(shape)
    hole[tuple(slice(n // 4, n // 4 + max(n // 2, 1)) for n in shape)] = 1
    known = torch.where(hole > 0, 9.0, 0.25)
    if hole.all():
        pytest.skip("nothing is known")
    assert torch.allclose(push_pull_fill(known, hole), torch.full(shape, 0.25), atol=1e-5)


def test_guess_follows_a_ramp_far_better_than_the_mean():
    ramp = torch.linspace(-1, 1, 48).expand(48, 48, 48)
    hole = torch.zeros(48, 48, 48)
    hole[16:30, 16:30, 16:30] = 1
    inside = hole > 0
    error = (push_pull_fill(ramp, hole) - ramp)[inside].abs().mean()
    assert error < 0.2 * (ramp[inside] - ramp[~inside].mean()).abs().mean()


def test_the_bent_guess_continues_a_plane_in_anisotropic_voxels():
    """Bending is measured in mm, and the known voxels stay as they are."""
    k, j, i = (torch.linspace(-0.4, 0.4, n) for n in (8, 16, 16))
    plane = k[:, None, None] + 0.5 * j[None, :, None] - i[None, None]
    hole = torch.zeros(8, 16, 16)
    hole[3:6, 5:11, 5:11] = 1
    guess = biharmonic_init(torch.where(hole > 0, 9.0, plane), hole, (5.0, 1.0, 1.0))
    assert torch.equal(guess[hole == 0], plane[hole == 0])
    assert torch.allclose(guess, plane, atol=5e-3)


def test_a_sample_without_a_hole_keeps_its_place_in_a_batch():
    image, hole = torch.randn(8, 8, 8), torch.zeros(8, 8, 8)
    hole[2:5, 2:5, 2:5] = 1
    plain = Condition((1.0, 1.0, 1.0))
    batch = stack([part.encode((8, 8, 8)) for part in (plain, plain.filling(image, hole))])
    assert batch.has_hole().tolist() == [False, True]
    assert batch.hole[0].all() and torch.equal(batch.hole[1, 0], hole)
    assert torch.equal(batch.expected[1, 0][hole == 0], image[hole == 0])
    assert not batch.expected[0].any() and not batch.channels[0, CONTEXT_AT].any()
    alone = stack([plain.encode((8, 8, 8))])
    assert alone.hole is None and not alone.has_hole().any()
    assert stack([plain.encode((8, 8, 8))], holes=True).hole.all()


def test_what_lies_in_the_hole_does_not_reach_the_network():
    hole = torch.from_numpy(random_hole((16, 16, 16), np.random.default_rng(3))).float()
    image = torch.randn(16, 16, 16)
    other = torch.where(hole > 0, 100.0, image)
    encoded = [Condition((1.0, 1.0, 1.0)).filling(part, hole).encode((16, 16, 16)).channels for part in (image, other)]
    assert torch.equal(*encoded)
    assert encoded[0][:, CONTEXT_AT].any()


def test_share_of_known_voxels_tells_where_the_hole_is():
    hole = torch.zeros(8, 8, 8)
    hole[:, :, :3] = 1
    share = encode_context(torch.zeros(8, 8, 8), hole)[-1, 0, 0]
    assert share.tolist() == [0.0, 0.5, 1.0, 1.0]


def test_holes_are_of_many_sizes_and_never_empty_or_everything():
    shares = [random_hole((32, 32, 32), np.random.default_rng(n)).mean() for n in range(60)]
    assert min(shares) > 0 and max(shares) < 0.95
    assert np.quantile(shares, 0.2) < 0.03 and np.quantile(shares, 0.9) > 0.05
