"""Throughput of a run: windows a second, time spent waiting for data, memory, share of the matrix rate."""

from __future__ import annotations

import csv
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..conditioning.condition import CONDITION_CHANNELS
from ..core.devices import is_accelerator, peak_memory
from ..core.progress import CancelToken
from ..runner.report import peak_main_memory
from .loop import LoopConfig, Observer
from .loss_plot import draw_curves

STARVED = 0.2
"""Share of the time spent waiting for windows above which the user is warned."""


@dataclass(frozen=True)
class Pace:
    """The last steps of a run in numbers.

    Attributes:
        loss: mean.
        windows_per_second: of all processes.
        data_wait: share of the time that the process which waits most for windows does so.
        peak_memory: bytes, of the GPU where there is one, else of the process.
        flops_per_second: of one device.
        matrix_rate: the same of a large matrix product on that device in the same precision.
        seconds_left: to the end of the training, validations not counted.
    """

    step: int
    steps: int
    loss: float
    windows_per_second: float
    data_wait: float
    peak_memory: int
    flops_per_second: float
    matrix_rate: float
    seconds_left: float

    @property
    def utilisation(self) -> float:
        """Share of the matrix rate that the training reaches."""
        return self.flops_per_second / self.matrix_rate


def step_flops(build: Callable[[], nn.Module], batch: int, size: int) -> int:
    """Floating-point operations of one training step, forward and backward, without computing anything.

    Args:
        build: makes the module that gives the loss.
        batch, size: windows of one process and their edge.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    shape, half = (batch, 1, size, size, size), size // 2
    with FakeTensorMode(), FlopCounterMode(display=False) as counter:
        image, level = torch.empty(shape), torch.ones(batch)
        region = torch.zeros(batch, dtype=torch.long)
        channels = torch.empty(batch, CONDITION_CHANNELS, half, half, half)
        build()(image, level, image, region, channels, image, image, level).backward()
    return int(counter.get_total_flops())


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product: what the device gives at best in practice. Takes a fraction of a second."""
    on_gpu = is_accelerator(device)
    n, repeats = (4096, 32) if on_gpu else (1024, 1)
    matrix = torch.ones(n, n, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        for _ in range(repeats):
            product = matrix @ matrix
        product[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 * repeats / best


class Throughput(Observer):
    """Observer that measures the pace, writes ``throughput.csv``, draws curves, and warns when data are too slow.

    The first step after a start is left out: it compiles the network and fills caches.

    Args:
        batch: windows a step, all processes.
        measure: gives :func:`step_flops` and :func:`matrix_rate` of one process and its device; called once, when the
            first figures are due.
        report, warn: called on the first process every ``config.log_every`` steps, and when waiting begins.
        cancel: ends the training after the present step.
    """

    def __init__(
        self,
        config: LoopConfig,
        folder: Path,
        fabric: Any,
        batch: int,
        measure: Callable[[], tuple[int, float]],
        report: Callable[[Pace], None],
        warn: Callable[[str], None],
        cancel: CancelToken | None = None,
    ) -> None:
        self.config, self.folder, self.fabric, self.batch = config, folder, fabric, batch
        self.measure, self.report, self.warn = functools.cache(measure), report, warn
        self._rows: list[dict[str, float]] = []
        self._fresh = True
        self._starved = False
        self._cancel = cancel

    def wants_stop(self) -> bool:
        return self._cancel is not None and self._cancel.cancelled

    def stepped(self, row: dict[str, float]) -> None:
        if self._fresh:
            self._fresh = False
        else:
            self._rows.append(row)
        if self._rows and row["step"] % self.config.log_every == 0:
            wait = self._longest_wait(sum(r["data_wait"] for r in self._rows))
            if self.fabric.global_rank == 0:
                self._tell(self._pace(wait))
            self._rows = []

    def validated(self, step: int, figures: dict[str, float], module: nn.Module) -> bool:
        if self.fabric.global_rank == 0:
            draw_curves(self.folder)
        return False

    def _longest_wait(self, seconds: float) -> float:
        """Of all processes: the others wait for the slowest one."""
        if self.fabric.world_size == 1:
            return seconds
        return float(self.fabric.all_reduce(torch.tensor(seconds, device=self.fabric.device), reduce_op="max"))

    def _pace(self, wait: float) -> Pace:
        count, step = len(self._rows), int(self._rows[-1]["step"])
        seconds = max(sum(row["seconds"] for row in self._rows), 1e-6)
        work, rate = self.measure()
        flops = work * count / seconds
        return Pace(
            step,
            self.config.steps,
            sum(row["loss"] for row in self._rows) / count,
            self.batch * count / seconds,
            min(wait / seconds, 1.0),
            self._peak_memory(),
            flops,
            rate,
            (self.config.steps - step) * seconds / count,
        )

    def _peak_memory(self) -> int:
        device = self.fabric.device
        return peak_memory().get(device.type) or peak_main_memory() or 0

    def _tell(self, pace: Pace) -> None:
        """To the file and to the user."""
        path = self.folder / "throughput.csv"
        row = {
            "step": pace.step,
            "windows_per_second": round(pace.windows_per_second, 3),
            "data_wait": round(pace.data_wait, 4),
            "peak_memory_gib": round(pace.peak_memory / 2**30, 3),
            "tflops": round(pace.flops_per_second / 1e12, 4),
            "matrix_tflops": round(pace.matrix_rate / 1e12, 4),
            "utilisation": round(pace.utilisation, 4),
        }
        new = not path.exists()
        with open(path, "a", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)
        self.report(pace)
        starved = pace.data_wait > STARVED
        if starved and not self._starved:
            self.warn(
                f"The network waits for windows {pace.data_wait:.0%} of the time; more --workers or a faster disk help."
            )
        self._starved = starved
