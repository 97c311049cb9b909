"""Batches of a pre-training run, drawn on the CPU."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import nn

from ...core.errors import InputError
from ...datasets.prepared_cases import Case
from ...diffusion.kinds import EDM
from ..batches import Batch, ProcessShare, TrainingWindows, collate, leave_signals_to_the_loop
from ..loop import TrainingLoop
from ..noise import balance
from .config import PretrainConfig


class Batches:
    """This process' share of each global batch, in order, drawn ahead by worker processes if there are any."""

    def __init__(self, cases: list[Case], config: PretrainConfig, fabric: Any, workers: int) -> None:
        if config.batch % fabric.world_size:
            raise InputError(f"A batch of {config.batch} cannot be divided among {fabric.world_size} processes.")
        self.cases, self.config, self.fabric, self.workers = cases, config, fabric, workers
        self._iterator: Iterator[Batch] = iter(())
        self._loop: TrainingLoop | None = None

    @property
    def noise_seed(self) -> int:
        """The noise of sample n depends on this + n."""
        return self.config.seed * 1_000_003 * self.config.batch

    def start(self, step: int, loop: TrainingLoop | None) -> None:
        """Begin at an optimizer step of a loop, which learns how long it waits for data."""
        left = self.config.loop.steps - step
        windows = TrainingWindows(
            self.cases,
            self.config.windows,
            self.config.seed,
            step * self.config.batch,
            left * self.config.batch,
            self.config.noise,
            self.noise_seed,
        )
        mine = ProcessShare(self.config.batch, self.fabric.world_size, self.fabric.global_rank, left)
        loader = torch.utils.data.DataLoader(
            windows,
            batch_sampler=mine,
            collate_fn=collate,
            num_workers=self.workers,
            prefetch_factor=4 if self.workers else None,
            worker_init_fn=leave_signals_to_the_loop,
        )
        self._iterator = iter(loader)
        self._loop = loop

    def close(self) -> None:
        """End the worker processes, which do not listen to signals."""
        self._iterator = iter(())

    def loss(self, module: nn.Module, step: int) -> torch.Tensor:
        """Mean loss of this process' share of global step ``step``."""
        waited = time.perf_counter()
        x0, condition, _, sigma, noise = next(self._iterator)
        assert sigma is not None and noise is not None
        if self._loop is not None:
            self._loop.data_wait += time.perf_counter() - waited
        edm = self.config.denoiser == EDM  # the other loss is not weighted in the paper
        weights = balance(sigma, condition.has_hole()) if edm else torch.ones_like(sigma)
        parts = (condition.region, condition.channels, condition.expected, condition.hole)
        inputs = (x0, sigma, noise, *parts, weights)
        return module(*(cast(torch.Tensor, part).to(self.fabric.device) for part in inputs))
