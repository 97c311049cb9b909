"""Encoded conditions of many windows at once, on any device; equal to :meth:`.condition.Condition.encode` of each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as functional

from ..imaging.haar import haar_forward
from .anatomy import ANATOMY_CHANNELS, BITS
from .biharmonic_batch import Operator, bend_batch, bending
from .condition import EncodedCondition
from .known_voxels import CONTEXT_CHANNELS
from .position import POSITION_CHANNELS, encode_axis, encode_spacing
from .tissue import TISSUE_CHANNELS


@dataclass(frozen=True)
class WindowConditions:
    """Conditions of n windows of edge S; all on one device.

    Attributes:
        spacing: (n, 3) float32 mm, order (k, j, i).
        coordinates: (n, 3, S) position in the body box, [-1, 1].
        position_known: (n,) bool; coordinates of the others are not looked at.
        region: (n,) class index.
        anatomy: (n, S, S, S) uint8 labels.
        anatomy_known: (n,) bool.
        tissue: (n, S, S, S) uint8 classes.
        tissue_known: (n,) bool.
        holed: (m,) numbers of the windows with a hole.
        holes: (m, S, S, S) float, 1 where the image is hidden.
    """

    spacing: torch.Tensor
    coordinates: torch.Tensor
    position_known: torch.Tensor
    region: torch.Tensor
    anatomy: torch.Tensor
    anatomy_known: torch.Tensor
    tissue: torch.Tensor
    tissue_known: torch.Tensor
    holed: torch.Tensor
    holes: torch.Tensor


def encode_batch(x0: torch.Tensor, conditions: WindowConditions, operator: Operator = bending) -> EncodedCondition:
    """Encode; x0 (n, 1, S, S, S) clean windows in the network's range, of which the holes are hidden.

    Args:
        operator: see :func:`.biharmonic_batch.bend_batch`.
    """
    known = x0.new_zeros(x0.shape)
    hole = x0.new_ones(x0.shape)
    n, half = len(x0), x0.shape[-1] // 2
    context = x0.new_zeros(n, CONTEXT_CHANNELS, half, half, half)
    if len(conditions.holed):
        image = x0[conditions.holed, 0]
        guess = bend_batch(image, conditions.holes, conditions.spacing[conditions.holed], operator=operator)[:, None]
        known[conditions.holed], hole[conditions.holed] = guess, conditions.holes[:, None]
        share = functional.avg_pool3d(1 - conditions.holes[:, None], 2)
        context[conditions.holed] = torch.cat([haar_forward(guess), share], dim=1)
    scale = encode_spacing(conditions.spacing)[:, :, None, None, None].expand(-1, -1, half, half, half)
    parts = [_position(conditions, half), scale, _anatomy(conditions), context, _tissue(conditions)]
    return EncodedCondition(conditions.region, torch.cat(parts, dim=1), known, hole)


def _position(conditions: WindowConditions, half: int) -> torch.Tensor:
    """(n, 27, S/2, S/2, S/2), zeros where the position is not known."""
    n = len(conditions.spacing)
    centers = conditions.coordinates.reshape(n, 3, half, 2).mean(-1)
    lines = encode_axis(centers.reshape(-1)).reshape(-1, n, 3, half)  # (9, n, 3, half)
    lines = lines * conditions.position_known[:, None, None]
    axes = []
    for axis in range(3):
        shape = [n, -1, 1, 1, 1]
        shape[axis + 2] = half
        axes.append(lines[:, :, axis].transpose(0, 1).reshape(shape).expand(-1, -1, half, half, half))
    position = torch.cat(axes, dim=1)
    assert position.shape[1] == POSITION_CHANNELS
    return position


def _anatomy(conditions: WindowConditions) -> torch.Tensor:
    """(n, 8, S/2, S/2, S/2): seven averaged bits and "mask is known", zeros where it is not."""
    blocks = _blocks(conditions.anatomy)
    bits = [((blocks >> bit) & 1).sum(dim=(2, 4, 6), dtype=torch.float32) / 8 for bit in range(BITS)]
    channels = torch.stack([*bits, torch.ones_like(bits[0])], dim=1)
    assert channels.shape[1] == ANATOMY_CHANNELS
    return channels * conditions.anatomy_known[:, None, None, None, None]


def _tissue(conditions: WindowConditions) -> torch.Tensor:
    """(n, 7, S/2, S/2, S/2): share of each class, zeros where it is not known."""
    blocks = _blocks(conditions.tissue)
    shares = [(blocks == n + 1).sum(dim=(2, 4, 6), dtype=torch.float32) / 8 for n in range(TISSUE_CHANNELS)]
    return torch.stack(shares, dim=1) * conditions.tissue_known[:, None, None, None, None]


def _blocks(labels: torch.Tensor) -> torch.Tensor:
    """(n, S, S, S) -> (n, S/2, 2, S/2, 2, S/2, 2): dimensions 2, 4 and 6 run through the voxels of a block."""
    n, half = len(labels), labels.shape[-1] // 2
    return labels.reshape(n, half, 2, half, 2, half, 2)
