"""Batches of a fine-tuning run: this process' share of each global batch, in order, from any step on."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from ...core.errors import InputError
from ..loop import TrainingLoop
from .interface import ControlBatch, ControlCase, ControlTask


class SampleStream:
    """Draws, collates and moves samples; sample n of a run is the same in however many processes it runs.

    Args:
        batch: global batch size.
        workers: processes that draw samples; 0 draws them in the training process.

    Attributes:
        cases: names of the cases in the last batch, as far as the task's samples tell them.
    """

    def __init__(
        self, task: ControlTask, cases: Sequence[ControlCase], batch: int, seed: int, fabric: Any, workers: int
    ) -> None:
        if batch % fabric.world_size:
            raise InputError(
                f"A batch of {batch} cannot be divided among {fabric.world_size} processes.",
                f"Give a multiple of {fabric.world_size}.",
            )
        self.task, self.all_cases, self.batch, self.seed = task, cases, batch, seed
        self.fabric, self.workers = fabric, workers
        self.cases: list[str] = []
        self._iterator: Iterator[tuple[ControlBatch, list[str]]] = iter(())
        self._loop: TrainingLoop | None = None

    def start(self, loop: TrainingLoop) -> None:
        """Begin at the loop's step."""
        share = self.batch // self.fabric.world_size
        left = loop.config.steps - loop.step
        samples = self.task.samples(self.all_cases, self.seed, loop.step * self.batch, left * self.batch)
        first = self.fabric.global_rank * share
        mine = [list(range(step * self.batch + first, step * self.batch + first + share)) for step in range(left)]
        loader = DataLoader(
            samples,
            batch_sampler=mine,
            collate_fn=self._collate,
            num_workers=self.workers,
            prefetch_factor=4 if self.workers else None,
        )
        self._iterator, self._loop = iter(loader), loop

    def _collate(self, samples: list[dict[str, Any]]) -> tuple[ControlBatch, list[str]]:
        return self.task.collate(samples), [str(sample.get("case", "")) for sample in samples]

    def __getstate__(self) -> dict[str, Any]:
        """State that the drawing processes need."""
        return {"task": self.task}

    def loss(self, module: nn.Module, step: int) -> torch.Tensor:
        """Mean loss of this process' share of the next batch, which is that of global step ``step``."""
        waited = time.perf_counter()
        batch, self.cases = next(self._iterator)
        if self._loop is not None:
            self._loop.data_wait += time.perf_counter() - waited
        moved: list[Any] = [part.to(self.fabric.device) for part in batch]
        return module(type(batch)(*moved))
