"""Sliding-window prediction of segmentation methods, with the windows and the blending of the denoiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from ..conditioning.condition import EncodedCondition, stack
from ..core.progress import ProgressMeter
from ..imaging.volume import Box
from ..inference.window_plan import OVERLAP, extend, plan_windows, reflected_range
from .inputs import SegmentationInput
from .method import InferenceBudget


class Window(NamedTuple):
    """Windows of a CT that is segmented, on the device: as the fields of WindowBatch."""

    image: torch.Tensor
    body: torch.Tensor
    condition: EncodedCondition


def blend(
    inputs: SegmentationInput,
    budget: InferenceBudget,
    divisor: int,
    channels: int,
    predict: Callable[[Window, Sequence[Box]], torch.Tensor],
    meter: ProgressMeter | None = None,
    share: float = 1.0,
) -> torch.Tensor:
    """Estimates of overlapping windows, blended over the whole CT: (channels, D, H, W) float32.

    Args:
        divisor: window edges are multiples of it.
        predict: windows and where each lies in the (continued) CT -> (B, channels, d, h, w).
        share: of the meter's unit that this call advances.
    """
    plan = plan_windows(inputs.shape, budget.window, OVERLAP, divisor)
    total = torch.zeros((channels, *inputs.shape))
    for first in range(0, len(plan.boxes), budget.batch):
        boxes = plan.boxes[first : first + budget.batch]
        if meter is not None:
            meter.check()
        window = _windows(inputs, boxes, plan.window, budget.device)
        with budget.autocast():
            estimates = predict(window, boxes)
        for box, estimate in zip(boxes, estimates.float().cpu(), strict=True):
            (k, j, i), (in_k, in_j, in_i), weight = plan.placed(box, inputs.shape)
            total[:, k, j, i] += weight * estimate[:, in_k, in_j, in_i]
        if meter is not None:
            meter.advance(share * len(boxes) / len(plan.boxes))
    return total


def _windows(
    inputs: SegmentationInput, boxes: Sequence[Box], size: tuple[int, int, int], device: torch.device
) -> Window:
    images, bodies, conditions = [], [], []
    for box in boxes:
        k, j, i = (slice(part.start, min(part.stop, n)) for part, n in zip(box, inputs.shape, strict=True))
        inside = (k, j, i)
        images.append(extend(inputs.image(inside)[0], size))
        bodies.append(extend(inputs.body.window(inside), size))
        condition = inputs.condition.window(inside)
        if condition.coordinates is not None:
            lines = [
                line[torch.from_numpy(reflected_range(0, n, len(line)))]
                for line, n in zip(condition.coordinates, size, strict=True)
            ]
            condition = type(condition)(condition.spacing, (lines[0], lines[1], lines[2]), condition.region)
        conditions.append(condition.encode(size))
    return Window(torch.stack(images).to(device), torch.stack(bodies).to(device), stack(conditions).to(device))
