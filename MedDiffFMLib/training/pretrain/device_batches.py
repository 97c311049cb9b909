"""Training batches that the device makes itself: windows, holes, conditions and noise.

The CPU draws plans of a few kilobytes (:mod:`training.window_plans`), in worker processes if there are any. A batch is
made while the device computes the step before, so that neither waits for the other. Sample n of a run shows what sample
n drawn on the CPU shows; noise, first guesses and rounding differ, so runs of the two kinds are different runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from ...conditioning.biharmonic_batch import Operator, bending
from ...conditioning.condition_batch import WindowConditions, encode_batch
from ...core.async_copy import upload_together
from ...datasets.prepared_cases import Case
from ...imaging.intensity import HU_LIMIT
from ..batches import Batch, ProcessShare, leave_signals_to_the_loop
from ..device_cache import DeviceCache, Places
from ..device_holes import hole_masks
from ..window_plans import PlanBatch, PlannedWindows, collate_plans, texture_of
from .batches import Batches
from .config import PretrainConfig

if TYPE_CHECKING:
    from ..loop import TrainingLoop


class WindowMaker:
    """Maker of windows of edge ``size`` out of plans, on the device of ``cache``.

    Args:
        operator: see :func:`conditioning.biharmonic_batch.bend_batch`.
    """

    def __init__(self, cache: DeviceCache, size: int, operator: Operator = bending) -> None:
        self.cache, self.size, self.operator = cache, size, operator
        self.device = cache.voxels.device
        self.generator = torch.Generator(self.device)

    @torch.no_grad()
    def make(self, plan: PlanBatch) -> Batch:
        """A batch on the device."""
        arrays = upload_together({**plan.arrays, "geometry": self.cache.geometry(plan.level)}, self.device)
        places = Places(
            plan.level,
            plan.crop,
            plan.reach,
            arrays["geometry"],
            arrays["positions"],
            arrays["step"],
            arrays["nearest"],
        )
        x0 = (self.cache.hounsfield(places) / HU_LIMIT).clamp(-1, 1)[:, None]
        conditions = WindowConditions(
            arrays["spacing"],
            arrays["coordinates"],
            arrays["position_known"],
            arrays["region"],
            self.cache.labels("anatomy", places),
            arrays["anatomy_known"],
            self.cache.labels("tissue", places),
            arrays["tissue_known"],
            arrays["holed"],
            hole_masks(arrays["lattice"], arrays["blobs"], self.size).float(),
        )
        noise = self._noise(plan, arrays)
        return Batch(x0, encode_batch(x0, conditions, self.operator), plan.purposes, arrays["sigma"], noise)

    def _noise(self, plan: PlanBatch, arrays: dict[str, torch.Tensor]) -> torch.Tensor:
        """(n, 1, S, S, S): white noise from each sample's own seed, however a batch is divided, and textures."""
        noise = torch.empty((len(plan.seeds), *(self.size,) * 3), device=self.device)
        for image, seed in zip(noise, plan.seeds, strict=True):
            self.generator.manual_seed(seed)
            image.normal_(generator=self.generator)
        if len(arrays["textured"]):
            noise[arrays["textured"]] = texture_of(arrays["texture"]).given_to(noise[arrays["textured"]])
        return noise[:, None]


class DeviceBatches(Batches):
    """Like :class:`.batches.Batches`, with windows drawn on the device.

    Args:
        compiled: fuse what is computed for the initialization of holes; takes some seconds at the first batch.

    Raises:
        DeviceError: the device does not hold the cases.
    """

    def __init__(
        self, cases: list[Case], config: PretrainConfig, fabric: Any, workers: int, compiled: bool = False
    ) -> None:
        super().__init__(cases, config, fabric, workers)
        operator: Operator = torch.compile(bending, dynamic=True) if compiled else bending
        self.maker = WindowMaker(DeviceCache(cases, fabric.device), config.windows.size, operator)
        self._plans: Iterator[PlanBatch] = iter(())
        self._ready: Batch | None = None

    def start(self, step: int, loop: TrainingLoop | None) -> None:
        left, batch = self.config.loop.steps - step, self.config.batch
        plans = PlannedWindows(
            self.cases,
            self.config.windows,
            self.config.noise,
            self.config.seed,
            self.noise_seed,
            step * batch,
            left * batch,
        )
        mine = ProcessShare(batch, self.fabric.world_size, self.fabric.global_rank, left)
        self._plans = iter(
            torch.utils.data.DataLoader(
                plans,
                batch_sampler=mine,
                collate_fn=collate_plans,
                num_workers=self.workers,
                prefetch_factor=4 if self.workers else None,
                worker_init_fn=leave_signals_to_the_loop,
            )
        )
        self._iterator = self._batches()
        self._loop = loop

    def close(self) -> None:
        super().close()
        self._plans, self._ready = iter(()), None

    def loss(self, module: torch.nn.Module, step: int) -> torch.Tensor:
        """Loss of a step; the next batch is queued behind it, and the device makes it before the backward pass."""
        loss = super().loss(module, step)
        self._ready = self._made()
        return loss

    def _batches(self) -> Iterator[Batch]:
        while (batch := self._ready or self._made()) is not None:
            self._ready = None
            yield batch

    def _made(self) -> Batch | None:
        """The next batch, None at the end."""
        waited = time.perf_counter()
        plan = next(self._plans, None)
        if self._loop is not None:
            self._loop.data_wait += time.perf_counter() - waited
        return None if plan is None else self.maker.make(plan)
