"""Weights of eight bits: what comes back, and files whose scales fit no tensor."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from MedDiffFMLib.core.errors import ModelError
from MedDiffFMLib.models.checkpoint import read_weights, write_weights
from MedDiffFMLib.models.eight_bits import LARGEST, SCALE


def test_weights_move_by_half_a_step_of_their_row(tmp_path: Path) -> None:
    chance = torch.Generator().manual_seed(0)
    kernels = torch.randn(12, 16, 3, 3, 3, generator=chance) * torch.logspace(-3, 2, 12).reshape(-1, 1, 1, 1, 1)
    kernels[3] = 0
    state = {"kernels": kernels, "bias": torch.randn(12, generator=chance), "count": torch.tensor([7])}
    write_weights(tmp_path / "half.safetensors", state, {})
    write_weights(tmp_path / "eight.safetensors", state, {}, eight_bits=True)
    back = read_weights(tmp_path / "eight.safetensors").state
    step = kernels.abs().flatten(1).amax(1) / LARGEST
    moved = (back["kernels"] - kernels).abs().flatten(1).amax(1)
    assert bool((moved <= 0.57 * step).all())  # half a step, and what rounding the scale does to the largest
    assert not back["kernels"][3].any()
    torch.testing.assert_close(back["bias"], state["bias"], rtol=1e-3, atol=1e-3)
    assert back["count"].tolist() == [7]
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("eight", "half")]
    assert sizes[0] < 0.6 * sizes[1]


def test_scales_that_fit_no_tensor_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "torn.safetensors"
    save_file({"kernels": torch.zeros(4, 8, dtype=torch.int8), f"kernels{SCALE}": torch.ones(3).half()}, path)
    with pytest.raises(ModelError, match="not a readable safetensors"):
        read_weights(path)
