"""BlendedDenoiser: a patch denoiser made into a denoiser of any size.

At every step overlapping windows are denoised in batches and their x0 estimates blended by a smooth weight, so that
samplers and tasks never see patches (the paper's per-step blending, arXiv 2410.15432, 1.5, as one object).

The network's Haar stem takes voxels in pairs, and its error is larger between pairs than within. From step to step the
windows therefore begin a voxel earlier or later, so that one step mends what the other leaves.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from ..conditioning.condition import Condition, EncodedCondition, stack
from .control import ProgressMeter
from .engine import Engine, is_out_of_memory
from .patches import Box, WindowPlan, extend, plan_windows, reflected_range

OVERLAP = 16


class BlendedDenoiser:
    """``denoise(x, sigma) -> x0`` for x of shape (S, 1, D, H, W), any D, H, W;
    S independent samples share the condition.

    Args:
        engine: the network.
        condition: condition of the whole box.
        shape: (D, H, W).
        meter: told after each batch of windows; also where a cancel is noticed.
        guidance: classifier-free guidance scale; 1 uses the conditional estimate alone, 0 ignores the conditions.
        overlap: voxels that neighbouring windows share.
        turn: number of the first step; the windows of odd steps are shifted by a voxel.
    """

    def __init__(
        self,
        engine: Engine,
        condition: Condition,
        shape: tuple[int, int, int],
        meter: ProgressMeter | None = None,
        guidance: float = 1.0,
        overlap: int = OVERLAP,
        turn: int = 0,
    ) -> None:
        self.engine, self.shape, self.meter = engine, shape, meter
        self.guidance, self.overlap, self.turn = guidance, overlap, turn
        self._condition = condition
        self._prepared: tuple[int, bool] | None = None
        self._prepare()

    def _prepare(self) -> None:
        """Lay the windows for the present turn and rung."""
        wanted = (self.engine.rung.window, self.turn % 2 == 1)
        if wanted == self._prepared:
            return
        self.plan: WindowPlan = plan_windows(self.shape, wanted[0], self.overlap, self.engine.divisor, wanted[1])
        self._extended = _extend_condition(self._condition, self.plan)
        self._prepared = wanted

    @property
    def windows(self) -> int:
        """Windows per sample and step."""
        return len(self.plan.boxes)

    def __call__(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        """One step; falls down the memory ladder instead of failing, x is never lost."""
        while True:
            try:
                self._prepare()
                x0 = self._blend(x, sigma)
                self.turn += 1
                return x0
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self.engine.step_down(error)

    def _blend(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        rung, plan = self.engine.rung, self.plan
        home = torch.device("cpu") if rung.host else rung.device
        padded = extend(x.to(home), plan.shape, plan.offset)
        total = torch.zeros_like(padded)
        weight = plan.weight().to(home)
        jobs = [(sample, box) for sample in range(len(x)) for box in plan.boxes]
        for first in range(0, len(jobs), rung.batch):
            batch = jobs[first : first + rung.batch]
            if self.meter is not None:
                self.meter.check()
            windows = torch.stack([padded[sample, 0][box][None] for sample, box in batch]).to(rung.device)
            estimate = self._guided(windows, sigma, [box for _, box in batch]).to(home)
            for (sample, box), x0 in zip(batch, estimate, strict=True):
                total[sample, 0][box] += weight * x0[0]
            if self.meter is not None:
                self.meter.advance(len(batch) / len(plan.boxes))
        k, j, i = (slice(first, first + n) for first, n in zip(plan.offset, self.shape, strict=True))
        return (total / plan.normaliser().to(home))[..., k, j, i].to(x.device)

    def _guided(self, windows: torch.Tensor, sigma: float, boxes: list[Box]) -> torch.Tensor:
        conditional = self._encode(boxes, self._extended)
        if self.guidance == 1.0:
            return self.engine.denoise(windows, sigma, conditional)
        free = self.engine.denoise(windows, sigma, self._encode(boxes, self._extended.without()))
        if self.guidance == 0.0:
            return free
        return free + self.guidance * (self.engine.denoise(windows, sigma, conditional) - free)

    def _encode(self, boxes: list[Box], condition: Condition) -> EncodedCondition:
        device = self.engine.device
        return stack([condition.window(box).encode(self.plan.window, device) for box in boxes])


def _extend_condition(condition: Condition, plan: WindowPlan) -> Condition:
    """Continue coordinates, anatomy and known voxels by reflection, as the image is."""
    coordinates = condition.coordinates
    if coordinates is not None:
        lines = []
        for axis, line in enumerate(coordinates):
            index = reflected_range(-plan.offset[axis], plan.shape[axis], len(line))
            lines.append(line[torch.from_numpy(index)])
        coordinates = (lines[0], lines[1], lines[2])
    return replace(condition, coordinates=coordinates).with_images(lambda image: extend(image, plan.shape, plan.offset))
