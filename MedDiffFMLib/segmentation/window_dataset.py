"""Training windows of segmentation methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from ..conditioning.condition import EncodedCondition, stack
from ..imaging.volume import Box
from ..inference.window_plan import extend, reflected_range
from .inputs import LabeledInput, class_shares

FOREGROUND_SHARE = 0.67
"""Share of windows around a voxel of a class; nnU-Net's third is for cases that show more than one structure."""

SHARE_WINDOWS, MOST_SHARE_WINDOWS = 16, 512
"""Windows a class or case, and in all, from which the classes' shares are taken."""


class WindowBatch(NamedTuple):
    """Input of one training step.

    Attributes:
        image: (B, 1, S, S, S) in the network's range.
        target: (B, C, S, S, S) float32, 1 inside each class.
        known: (B, C) float32, 0 where the case does not have the class outlined: leave it out of the loss.
        body: (B, 3, S, S, S) universal body coordinates.
        condition: encoded.
        seeds: (B,) int64: start for whatever is random about each sample, so that resumed runs see the same.
        number: (B,) int64: number of each sample in the run.
    """

    image: torch.Tensor
    target: torch.Tensor
    known: torch.Tensor
    body: torch.Tensor
    condition: EncodedCondition
    seeds: torch.Tensor
    number: torch.Tensor


class WindowSamples(Dataset):
    """Boxes of the examples, most of them around a voxel of a class drawn evenly.

    Args:
        size: edge in voxels; an image that is smaller is continued by reflection.
        flip: mirror left and right half of the time, for structures without a side.
    """

    def __init__(
        self, examples: Sequence[LabeledInput], size: int, seed: int, first: int, count: int, flip: bool = False
    ) -> None:
        self.examples, self.size, self.seed = list(examples), size, seed
        self.first, self.count, self.flip = first, count, flip

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        number = self.first + index
        rng = np.random.default_rng([self.seed, number])
        example = self.examples[rng.integers(len(self.examples))]
        box = draw_box(example, self.size, rng)
        sample = cut(example, box, self.size)
        if self.flip and rng.random() < 0.5:
            sample = {
                key: value.flip(-1) if key in ("image", "target", "body") else value for key, value in sample.items()
            }
        return {**sample, "case": example.name, "seed": int(rng.integers(2**62)), "number": number}


def draw_box(example: LabeledInput, size: int, rng: np.random.Generator) -> Box:
    """Box of a window, inside the image as far as that is large enough."""
    shape = np.array(example.target.shape)
    marked = [number + 1 for number, known in enumerate(example.known) if known]
    start = rng.integers(0, np.maximum(shape - size, 0) + 1)
    if marked and rng.random() < FOREGROUND_SHARE:
        voxels = np.argwhere(np.asarray(example.target) == marked[rng.integers(len(marked))])
        middle = voxels[rng.integers(len(voxels))] + rng.integers(-size // 4, size // 4 + 1, 3)
        start = np.clip(middle - size // 2, 0, np.maximum(shape - size, 0))
    k, j, i = (slice(int(s), int(min(s + size, n))) for s, n in zip(start, shape, strict=True))
    return k, j, i


def window_shares(examples: Sequence[LabeledInput], size: int) -> torch.Tensor:
    """How often each class is in training windows: (C,), 0 to 1, of the windows whose case has it outlined.

    More often than in whole scans, the smaller a window the more, since most windows are drawn around a class; never
    less, so that a class which the drawn windows happen to miss is not taken for one that hardly exists.

    Args:
        size: edge of a window in voxels.
    """
    rng = np.random.default_rng(0)
    classes = len(examples[0].known)
    inside, seen = np.zeros(classes), np.zeros(classes)
    for number in range(min(SHARE_WINDOWS * max(classes, len(examples)), MOST_SHARE_WINDOWS)):
        example = examples[number % len(examples)]
        target = np.asarray(example.target[draw_box(example, size, rng)])
        known = np.asarray(example.known, bool)
        inside += known * np.bincount(target.ravel(), minlength=classes + 1)[1 : classes + 1]
        seen += known * target.size
    return torch.from_numpy(inside / np.maximum(seen, 1)).float().maximum(class_shares(examples))


def cut(example: LabeledInput, box: Box, size: int) -> dict[str, Any]:
    """The tensors of a window, each (channels, size, size, size)."""
    edges = (size, size, size)
    indices = [torch.from_numpy(reflected_range(0, size, part.stop - part.start)) for part in box]
    coordinates = example.inputs.condition.window(box).coordinates
    condition = example.inputs.condition.window(box)
    if coordinates is not None:
        k, j, i = (line[index] for line, index in zip(coordinates, indices, strict=True))
        condition = type(condition)(condition.spacing, (k, j, i), condition.region)
    return {
        "image": extend(example.inputs.image(box)[0], edges),
        "target": extend(example.truth(box), edges),
        "body": extend(example.inputs.body.window(box), edges),
        "known": torch.tensor(example.known, dtype=torch.float32),
        "condition": condition,
    }


def collate_windows(samples: list[dict[str, Any]]) -> WindowBatch:
    """Samples -> a batch, on the CPU."""
    images = {key: torch.stack([sample[key] for sample in samples]) for key in ("image", "target", "known", "body")}
    size = tuple(images["image"].shape[2:])
    condition = stack([sample["condition"].encode(size) for sample in samples])
    seeds, number = (torch.tensor([sample[key] for sample in samples]) for key in ("seed", "number"))
    return WindowBatch(images["image"], images["target"], images["known"], images["body"], condition, seeds, number)
