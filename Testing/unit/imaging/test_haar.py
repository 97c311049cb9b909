"""The Haar stem loses nothing and keeps white noise white."""

import torch

from MedDiffFMLib.imaging.haar import haar_forward, haar_inverse


def test_inverse_restores_every_voxel():
    x = torch.randn(2, 1, 8, 6, 10, dtype=torch.float64)
    assert torch.allclose(haar_inverse(haar_forward(x)), x, atol=1e-12)


def test_energy_is_kept():
    x = torch.randn(1, 1, 8, 8, 8, dtype=torch.float64)
    assert torch.allclose(haar_forward(x).square().sum(), x.square().sum())


def test_autocast_does_not_round_the_bands():
    """A 1 HU step on bone must survive bfloat16 autocast; rounding x first would lose it."""
    x = torch.full((1, 1, 2, 2, 2), 0.9)
    x[..., 1] += 0.001
    with torch.autocast("cpu", torch.bfloat16):
        bands = haar_forward(x)
    assert torch.allclose(bands, haar_forward(x.double()).float(), atol=1e-6)
    assert bands[0, 1:].abs().max() > 1e-3
