"""Sliding-window denoiser: a patch denoiser made into a denoiser of any size.

At every step overlapping windows are denoised in batches and their x0 estimates blended by a smooth weight, so that
samplers and tasks never see patches (the paper's per-step blending, arXiv 2410.15432, 1.5, as one object).

The network's Haar stem takes voxels in pairs, and its error is larger between pairs than within. From step to step the
windows therefore begin a voxel earlier or later, so that one step corrects what the other leaves.

Besides the image and its estimate nothing of the volume's size is held: windows are cut where they are needed, and
their weights are products of three lines that already sum to one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from ..conditioning.condition import Condition, EncodedCondition, stack
from ..core.async_copy import PendingTensor, upload
from ..core.progress import ProgressMeter
from ..imaging.volume import Box
from .engine import Engine
from .window_plan import OVERLAP, WindowPlan, cut, extend, inside, plan_windows, reflected_range

AIR = -1.0
"""Estimate, in network range, where none is needed."""
KEPT_CONDITIONS = 256 * 2**20
"""Bytes of encoded conditions that are kept from step to step; a larger volume encodes them anew at every step."""
KEPT_SHARE = 1 / 16
"""Of a GPU's free memory, how much they may take at most: they are not in the plan of a step."""

Job = tuple[int, Box]


class SlidingWindowDenoiser:
    """``denoise(x, sigma) -> x0`` for x of shape (S, 1, D, H, W), any D, H, W;
    S independent samples share the condition.

    Args:
        engine: the network.
        condition: condition of the whole box.
        shape: (D, H, W).
        meter: advanced after each batch of windows; also where a cancel is noticed.
        guidance: classifier-free guidance scale; 1 uses the conditional estimate alone, 0 ignores the conditions.
        overlap: voxels that neighboring windows share.
        turn: number of the first step; the windows of odd steps are shifted by a voxel.
        wanted: (D, H, W) bool, voxels whose estimate matters. Windows without any are not computed and taken as air;
            wanted voxels have the same estimate as without this. None for all.
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
        wanted: torch.Tensor | None = None,
    ) -> None:
        self.engine, self.shape, self.meter = engine, shape, meter
        self.guidance, self.overlap, self.turn = guidance, overlap, turn
        self._condition, self._wanted = condition, wanted
        self._prepared: tuple[int, torch.device, bool] | None = None
        self._encoded: dict[tuple[int, ...], EncodedCondition] = {}
        self._prepare()

    def _prepare(self) -> None:
        """Lay the windows for the present turn and memory level."""
        state = (self.engine.memory_level.window, self.engine.device, self.turn % 2 == 1)
        if state == self._prepared:
            return
        self.plan: WindowPlan = plan_windows(self.shape, state[0], self.overlap, self.engine.divisor, state[2])
        self._computed = [box for box in self.plan.boxes if self._is_wanted(box)]
        self._skipped = [box for box in self.plan.boxes if not self._is_wanted(box)]
        self._extended = _extend_condition(self._condition, self.plan)
        if self._prepared is not None and self._prepared[:2] != state[:2]:
            self._encoded.clear()
        free = self.engine.free_memory()
        self._room = KEPT_CONDITIONS if free is None else min(KEPT_CONDITIONS, KEPT_SHARE * free)
        self._prepared = state

    def _is_wanted(self, box: Box) -> bool:
        return self._wanted is None or bool(self._wanted[inside(box, self.plan.offset, self.shape)[0]].any())

    @property
    def windows(self) -> int:
        """Windows per sample and step."""
        return len(self._computed)

    def __call__(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        """One step; lowers the memory level instead of failing, x is never lost."""
        x0 = self.engine.retry_on_oom(lambda: self._blend(x, sigma))
        self.turn += 1
        return x0

    def _blend(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        self._prepare()
        home = self.engine.home(x.numel())
        source, plan = x.to(home), self.plan.to(home)
        total = torch.zeros_like(source)
        jobs = [(sample, box) for sample in range(len(x)) for box in self._computed]
        for batch, estimate in self._estimates(source, sigma, jobs):
            for (sample, box), x0 in zip(batch, estimate, strict=True):
                self._add(total[sample, 0], plan, box, x0[0])
        air = torch.full((), AIR, device=home).expand(plan.window)
        for box in self._skipped:
            for sample in range(len(x)):
                self._add(total[sample, 0], plan, box, air)
        if self.meter is not None and not jobs:
            self.meter.advance(len(x))
        return total.to(x.device)

    def _estimates(
        self, source: torch.Tensor, sigma: float, jobs: list[Job]
    ) -> Iterator[tuple[list[Job], torch.Tensor]]:
        """Estimates of batches of windows at the source's place, one batch late: a GPU computes the next while its last
        one is brought home and blended."""
        late: tuple[list[Job], PendingTensor] | None = None
        device, size = self.engine.device, self.engine.memory_level.batch
        for first in range(0, len(jobs), size):
            batch = jobs[first : first + size]
            if self.meter is not None:
                self.meter.check()
            windows = torch.stack([cut(source[sample, 0], box, self.plan.offset)[None] for sample, box in batch])
            estimate = self._guided(upload(windows, device), sigma, [box for _, box in batch])
            arrival = PendingTensor(estimate, source.device)
            if self.meter is not None:
                self.meter.advance(len(batch) / len(self._computed))
            if late is not None:
                yield late[0], late[1].wait()
            late = (batch, arrival)
        if late is not None:
            yield late[0], late[1].wait()

    def _add(self, total: torch.Tensor, plan: WindowPlan, box: Box, x0: torch.Tensor) -> None:
        """Add a window's share, as far as it lies in the volume; all at one place."""
        place, part, weight = plan.placed(box, self.shape)
        total[place].addcmul_(x0[part], weight)

    def _guided(self, windows: torch.Tensor, sigma: float, boxes: list[Box]) -> torch.Tensor:
        conditional = self._encode(boxes)
        if self.guidance == 1.0:
            return self.engine.denoise(windows, sigma, conditional)
        free = self.engine.denoise(windows, sigma, self._encode(boxes, free=True))
        if self.guidance == 0.0:
            return free
        return free + self.guidance * (self.engine.denoise(windows, sigma, conditional) - free)

    def _encode(self, boxes: list[Box], free: bool = False) -> EncodedCondition:
        return stack([self._encode_one(box, free) for box in boxes])

    def _encode_one(self, box: Box, free: bool) -> EncodedCondition:
        """From the last step where there was room to keep it."""
        key = (*(edge.start - before for edge, before in zip(box, self.plan.offset, strict=True)), free)
        if key in self._encoded:
            return self._encoded[key]
        condition = self._extended.without() if free else self._extended
        encoded = condition.window(box).encode(self.plan.window, self.engine.device)
        kinds = 2 * (1 + (self.guidance != 1.0))  # of either turn, and without conditions
        if kinds * self.windows * encoded.bytes <= self._room:
            self._encoded[key] = encoded
        return encoded


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
