"""Best checkpoint by the task's metric, early stopping, progress."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...core import devices
from ...core.progress import CancelToken
from ...runner.report import peak_main_memory
from ..loop import LoopConfig, Observer, rate_at
from .adapters import AdaptedModule
from .batches import SampleStream
from .interface import ControlTask
from .progress_log import STOP_FILE, Progress


def peak_memory() -> dict[str, int]:
    """Bytes by kind, as far as the system tells."""
    return {"main": peak_main_memory() or 0, **devices.peak_memory()}


class KeepBest(Observer):
    """See the module.

    Args:
        save: called with an improved denoiser and the facts of the training so far.
        patience: validations without improvement after which the training ends.
        cancel: asks to save and stop.

    Attributes:
        before: the metric before any training; NaN until known.
        best, best_step: the best validation so far; NaN and 0 until there is one.
        worse: validations since then.
        seconds: training time, earlier starts of the run included.
        memory: peak memory in bytes by kind, "main" and "cuda", of all starts of the run.
    """

    def __init__(
        self,
        task: ControlTask,
        stream: SampleStream,
        progress: Progress,
        folder: Path,
        loop: LoopConfig,
        patience: int,
        save: Callable[[nn.Module, dict[str, Any]], None],
        cancel: CancelToken | None = None,
    ) -> None:
        self.task, self.stream, self.progress, self.folder = task, stream, progress, folder
        self.config, self.patience, self.save, self.cancel = loop, patience, save, cancel
        self.module: AdaptedModule | None = None
        self.before = self.best = math.nan
        self.best_step = self.worse = 0
        self.memory: dict[str, int] = {}
        self._seconds_before = 0.0
        self._started = time.monotonic()
        self._pace: list[float] = []
        self._validation_seconds = 0.0

    @property
    def seconds(self) -> float:
        """Training time so far."""
        return self._seconds_before + time.monotonic() - self._started

    @property
    def finished(self) -> bool:
        """Whether patience is over."""
        return self.worse >= self.patience

    def stepped(self, row: dict[str, float]) -> None:
        self._pace = [*self._pace[-49:], row["seconds"]]
        step = int(row["step"])
        self.progress.emit_now_and_then(
            "training",
            step / self.config.steps,
            step=step,
            steps=self.config.steps,
            loss=row["loss"],
            learning_rate=rate_at(step - 1, self.config),
            seconds_left=self._seconds_left(step),
            best=self.best,
            best_step=self.best_step,
        )

    def timed(self, validate: Callable[[nn.Module], dict[str, float]]) -> Callable[[nn.Module], dict[str, float]]:
        """The same validation, whose time counts in the time left."""

        def measured(module: nn.Module) -> dict[str, float]:
            begin = time.monotonic()
            figures = validate(module)
            self._validation_seconds = time.monotonic() - begin
            return figures

        return measured

    def validated(self, step: int, figures: dict[str, float], module: nn.Module) -> bool:
        value = float(figures.get(self.task.metric, math.nan))
        if step == 0:
            self.before = value
        elif self._improved(value):
            self.best, self.best_step, self.worse = value, step, 0
            self.save(module, {**self.facts(), "steps": step, "figures": figures})
        else:
            self.worse += 1
        self.progress.emit(
            "validated",
            step / self.config.steps,
            step=step,
            steps=self.config.steps,
            metric=self.task.metric,
            value=value,
            figures=figures,
            best=self.best,
            best_step=self.best_step,
            seconds_left=self._seconds_left(step),
        )
        return self.finished

    def facts(self) -> dict[str, Any]:
        """Of the training, for the file and the card."""
        return {
            "metric": self.task.metric,
            "before": self.before,
            "value": self.best,
            "best_step": self.best_step,
            "seconds": round(self.seconds, 1),
        }

    def wants_stop(self) -> bool:
        return (self.folder / STOP_FILE).exists() or (self.cancel is not None and self.cancel.cancelled)

    def state(self) -> dict[str, Any]:
        self.memory = {kind: max(size, self.memory.get(kind, 0)) for kind, size in peak_memory().items()}
        return {
            "before": self.before,
            "best": self.best,
            "best_step": self.best_step,
            "worse": self.worse,
            "seconds": self.seconds,
            "memory": self.memory,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.before, self.best = state["before"], state["best"]
        self.best_step, self.worse, self._seconds_before = state["best_step"], state["worse"], state["seconds"]
        self.memory = state["memory"]

    def culprits(self, step: int) -> str:
        names = self.stream.cases
        if self.module is not None and len(self.module.losses) == len(names):
            bad = ~torch.isfinite(self.module.losses.cpu())
            names = [name for name, wrong in zip(names, bad, strict=True) if wrong] or names
        unique = sorted(set(names) - {""})
        return f"case{'s' if len(unique) > 1 else ''} {', '.join(unique)}" if unique else ""

    def _improved(self, value: float) -> bool:
        if math.isnan(self.best):
            return not math.isnan(value)
        return value > self.best if self.task.higher_is_better else value < self.best

    def _seconds_left(self, step: int) -> float | None:
        """At most, since patience may end the training earlier."""
        if not self._pace:
            return None
        left = self.config.steps - step
        validations = math.ceil(left / self.config.validate_every)
        return round(left * sum(self._pace) / len(self._pace) + validations * self._validation_seconds, 1)
