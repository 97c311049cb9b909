"""A trained prior inside a larger network: the same function at first, with more to learn with.

After Chen, Goodfellow and Shlens 2016 (Net2Net, arXiv 1511.05641). Inputs that the network did not take so far get
weights of zero. A residual block that is new adds nothing: its second convolution is zero, and where it also takes a
skip connection, its 1x1 convolution hands on what comes from below.
"""

from __future__ import annotations

import re

import torch
from torch import nn

from ...core.errors import InputError
from ...networks.unet import NetworkConfig

_RESNET = re.compile(r"network\.unet\.(down|up)_blocks\.(\d+)\.resnets\.(\d+)\.(.+)")
_STEM = "network.unet.conv_in.conv.weight"


def check_growth(small: NetworkConfig, large: NetworkConfig) -> None:
    """Refuse to grow what would not stay the same function.

    Raises:
        InputError: other channels, attention or groups, or fewer blocks or inputs.
    """
    alike = all(list_of(getattr(small, n)) == list_of(getattr(large, n)) for n in ("channels", "attention", "groups"))
    pairs = zip(small.blocks_of_levels, large.blocks_of_levels, strict=False) if alike else ()
    more = all(a <= b for a, b in pairs) and small.tissue <= large.tissue
    if not (alike and more):
        raise InputError(
            "The weights to start from hold another network than the settings ask for.",
            "Leave those settings out, or start from random weights; more --blocks is what a network can grow by.",
        )


def list_of(value: object) -> object:
    """A sequence as a list, anything else as it is."""
    return list(value) if isinstance(value, (tuple, list)) else value


def grow(state: dict[str, torch.Tensor], small: NetworkConfig, large: NetworkConfig, module: nn.Module) -> None:
    """Load the weights of a network into a larger one.

    Args:
        state: of a denoiser with the network ``small``.
        module: denoiser with the network ``large``, fresh weights.

    Raises:
        InputError: see :func:`check_growth`.
    """
    check_growth(small, large)
    grown = {_new_name(name, small, large): tensor for name, tensor in state.items()}
    fresh = module.state_dict()
    missing = fresh[_STEM].shape[1] - grown[_STEM].shape[1]
    grown[_STEM] = nn.functional.pad(grown[_STEM], (0, 0) * 3 + (0, missing))
    for name in fresh.keys() - grown.keys():
        grown[name] = _adding_nothing(name, fresh[name])
    module.load_state_dict(grown)


def _new_name(name: str, small: NetworkConfig, large: NetworkConfig) -> str:
    """Name of a tensor in the larger network.

    The blocks of an encoder level come before the new ones. In a decoder level, the first block takes the last skip
    connection of the level and the last one that of the level above; the new ones stand between.
    """
    match = _RESNET.fullmatch(name)
    if match is None or match[1] == "down":
        return name
    levels = len(small.channels)
    level, block = levels - 1 - int(match[2]), int(match[3])
    before, after = small.blocks_of_levels[level], large.blocks_of_levels[level]
    if block == before:
        block = after
    return f"network.unet.up_blocks.{match[2]}.resnets.{block}.{match[4]}"


def _adding_nothing(name: str, fresh: torch.Tensor) -> torch.Tensor:
    """Weights of a new block with which it hands on what it is given."""
    if ".conv2." in name or name.endswith("skip_connection.conv.bias"):
        return torch.zeros_like(fresh)
    if name.endswith("skip_connection.conv.weight"):  # (C, C + C, 1, 1, 1): what comes from below, then the skip
        passed = torch.zeros_like(fresh)
        size = len(fresh)
        passed[:, :size, 0, 0, 0] = torch.eye(size)
        return passed
    return fresh
