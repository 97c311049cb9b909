"""The noise's strength by band: closed forms for white and for blurred noise, and what the network does with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from MedDiffFMLib.conditioning.condition import CONDITION_CHANNELS, EncodedCondition
from MedDiffFMLib.conditioning.noise_signature import (
    BLUR_WIDTHS,
    DETAIL_BANDS,
    signature_of,
    unknown_signature,
)
from MedDiffFMLib.networks.unet import NetworkConfig, PriorUNet

TINY = NetworkConfig(channels=(8, 32), attention=(False, False))


def test_white_noise_is_equally_strong_in_all_bands():
    noise = torch.randn(2, 1, 64, 64, 64, generator=torch.Generator().manual_seed(0))
    signature = signature_of(noise)
    assert signature.shape == (2, DETAIL_BANDS)
    assert signature[:, :7].flatten().tolist() == pytest.approx([1.0] * 14, abs=0.02)
    for n, width in enumerate(BLUR_WIDTHS):  # a box takes its own mean, which holds one part in as many voxels
        assert signature[0, 7 + n].item() == pytest.approx((1 - 1 / np.prod(width)) ** 0.5, abs=0.02)


def test_blurred_noise_has_the_bands_that_the_blur_leaves():
    """A mean of two neighbors along i: the detail along i keeps (1 - 1/2), the one along k all, in variance."""
    white = torch.randn(1, 1, 64, 64, 65, generator=torch.Generator().manual_seed(1))
    blurred = (white[..., 1:] + white[..., :-1]) / 2**0.5
    signature = signature_of(blurred)[0]
    along_i, along_k = signature[0], signature[3]  # bands in the order of 2x2x2 signs, i first
    assert along_i.item() == pytest.approx(0.5**0.5, abs=0.02)
    assert along_k.item() == pytest.approx(1.5**0.5, abs=0.02)


def test_a_network_sees_details_in_units_of_their_own_noise():
    torch.manual_seed(0)
    network = PriorUNet(replace(TINY, signature=True)).eval()
    x, noise, time = torch.randn(1, 1, 16, 16, 16), torch.tensor([0.1]), torch.tensor([300.0])
    condition = EncodedCondition(torch.zeros(1, dtype=torch.long), torch.zeros(1, CONDITION_CHANNELS, 8, 8, 8))
    told = replace(condition, signature=torch.linspace(0.2, 2, DETAIL_BANDS)[None])
    bands, both = network.stem(x, noise, condition), network.stem(x, noise, told)
    assert torch.equal(bands[:, :8], both[:, :8])
    ratio = torch.atanh(both[:, 8:20].clamp(-0.999, 0.999)) / torch.atanh(bands[:, 8:20].clamp(-0.999, 0.999))
    clear = (both[:, 8:20].abs() < 0.9) & (bands[:, 8:20].abs() < 0.9) & (bands[:, 8:20].abs() > 0.01)
    for band in range(DETAIL_BANDS):
        found = ratio[:, band][clear[:, band]]
        assert found.median().item() == pytest.approx(1 / told.signature[0, band].item(), rel=0.05)
    level = replace(condition, signature=unknown_signature(1))
    assert torch.equal(network(x, noise, time, level), network(x, noise, time, condition))


def test_networks_of_before_do_not_look_at_it():
    torch.manual_seed(0)
    network = PriorUNet(TINY).eval()
    x, noise = torch.randn(1, 1, 16, 16, 16), torch.tensor([0.1])
    condition = EncodedCondition(torch.zeros(1, dtype=torch.long), torch.zeros(1, CONDITION_CHANNELS, 8, 8, 8))
    told = replace(condition, signature=torch.full((1, DETAIL_BANDS), 0.3))
    assert torch.equal(network.stem(x, noise, condition), network.stem(x, noise, told))
