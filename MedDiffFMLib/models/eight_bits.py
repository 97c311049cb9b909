"""Weights of eight bits: half the size of a file where its network does not notice.

Each row of a matrix or of a convolution's kernels is stored as whole numbers from -127 to 127 and one scale, so that a
weight moves by at most 0.4 % of the largest in its row (0.2 on average).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

LARGEST = 127
FEWEST = 2048
"""Numbers of a tensor from which it is worth while; biases and norms stay as they are."""
SCALE = ".eight-bit scale"
"""What the name of a tensor's scales ends in."""


def to_eight_bits(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Large tensors as int8 with their scales (rows,) in half precision beside them, all others as they are."""
    import torch

    stored = {}
    for name, tensor in state.items():
        if not tensor.is_floating_point() or tensor.dim() < 2 or tensor.numel() < FEWEST:
            stored[name] = tensor
            continue
        rows = tensor.float().flatten(1)
        scale = (rows.abs().amax(1) / LARGEST).to(torch.float16)
        # What is stored belongs to the scale as halves round it, which is never 0: 2^-24 is the least of them.
        exact = scale.float().clamp_min(2.0**-24)
        whole = (rows / exact[:, None]).round().clamp(-LARGEST, LARGEST).to(torch.int8)
        stored[name], stored[name + SCALE] = whole.reshape(tensor.shape), exact.to(torch.float16)
    return stored


def from_eight_bits(stored: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a file, float32; raises ValueError where scales fit no tensor."""
    import torch

    state = {name: tensor.float() for name, tensor in stored.items() if not name.endswith(SCALE)}
    for name, scale in stored.items():
        if name.endswith(SCALE):
            tensor = stored.get(name.removesuffix(SCALE))
            if tensor is None or tensor.dtype != torch.int8 or tensor.shape[:1] != scale.shape:
                raise ValueError(f"the scales {name!r} fit no tensor")
            rows = tensor.float().flatten(1) * scale.float()[:, None]
            state[name.removesuffix(SCALE)] = rows.reshape(tensor.shape)
    return state
