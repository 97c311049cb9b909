"""Inputs of segmentation methods: a CT on its working grid, and one with labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..conditioning.condition import Condition
from ..imaging.intensity import to_network
from ..imaging.volume import Box
from ..preprocessing.body_coordinates import BodyField


@dataclass(frozen=True)
class SegmentationInput:
    """One CT, or a part of it, to segment.

    Attributes:
        voxels: (D, H, W) HU, a memory map or an array; axes to superior, posterior, left.
        condition: for the whole box: region, position in the body box, voxel size.
        body: universal body coordinates.
        folder: of stored features; None for a CT that is computed on once.
    """

    voxels: np.ndarray
    condition: Condition
    body: BodyField
    folder: Path | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(D, H, W)."""
        d, h, w = self.voxels.shape
        return d, h, w

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size (k, j, i) in mm."""
        return self.condition.spacing

    def image(self, box: Box | None = None) -> torch.Tensor:
        """(1, 1, d, h, w) in the network's range, of a box or of everything."""
        part = self.voxels if box is None else self.voxels[box]
        return torch.from_numpy(to_network(np.asarray(part)))[None, None]


@dataclass(frozen=True)
class LabeledInput:
    """A prepared case with its labels.

    Attributes:
        inputs: the case, with a ``folder`` that stays.
        target: (D, H, W) uint8: 0, or 1 + index of the class.
        known: for each class whether this case has it outlined; where it has not, its absence means nothing.
    """

    name: str
    inputs: SegmentationInput
    target: np.ndarray
    known: tuple[bool, ...]

    def truth(self, box: Box | None = None) -> torch.Tensor:
        """(C, d, h, w) float32, 1 inside each class."""
        part = torch.from_numpy(np.array(self.target if box is None else self.target[box]))
        return torch.stack([(part == number + 1).float() for number in range(len(self.known))])


def mirrored(example: LabeledInput) -> LabeledInput:
    """The same case with left and right exchanged; each voxel keeps its body coordinates, as its organ does."""
    inputs = example.inputs
    offset, slope = inputs.body.offset, inputs.body.slope
    body = replace(
        inputs.body,
        offset=(offset[0], offset[1], offset[2] + slope[2] * (inputs.shape[2] - 1)),
        slope=(slope[0], slope[1], -slope[2]),
    )
    folder = None if inputs.folder is None else inputs.folder / "mirrored"
    voxels = np.asarray(inputs.voxels)[..., ::-1].copy()
    twin = replace(inputs, voxels=voxels, body=body, folder=folder)
    return replace(example, inputs=twin, target=np.asarray(example.target)[..., ::-1].copy())


def dice(predicted: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Dice of masks (C, ...), bool or 0 and 1; (C,), NaN where both are empty."""
    inside, real = (predicted > 0.5).flatten(1), (truth > 0.5).flatten(1)
    total = inside.sum(1) + real.sum(1)
    return torch.where(total > 0, 2 * (inside & real).sum(1) / total, torch.nan)


def class_shares(examples: Sequence[LabeledInput]) -> torch.Tensor:
    """(C,) mean share of the voxels that are inside each class, in the cases that know it; 0 where none does."""
    shares = torch.zeros(len(examples[0].known))
    for number in range(len(shares)):
        inside = [float(np.mean(e.target == number + 1)) for e in examples if e.known[number]]
        shares[number] = float(np.mean(inside)) if inside else 0.0
    return shares


def known_classes(examples: Sequence[LabeledInput]) -> list[int]:
    """Index of each class that some example has."""
    return [number for number in range(len(examples[0].known)) if any(e.known[number] for e in examples)]
