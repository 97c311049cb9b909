"""Progress out of a running task and cancellation into it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from .errors import Cancelled

ProgressCallback = Callable[["ProgressEvent"], None]


@dataclass(frozen=True)
class ProgressEvent:
    """One report.

    Attributes:
        fraction: 0 to 1 of the whole task, never falling.
        stage: what is being done, a few words.
        seconds_left: estimate, None until there is one.
    """

    fraction: float
    stage: str
    seconds_left: float | None


class CancelToken:
    """Set from any thread; the running task looks at it before every network call."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        self._event.set()

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raise :class:`Cancelled` once cancelled."""
        if self._event.is_set():
            raise Cancelled()


class ProgressMeter:
    """Meter of finished work (network calls) that reports fraction and time left.

    Args:
        total: number of units that the whole task needs.
        callback: receives :class:`ProgressEvent`, or None for silence.
        cancel: looked at before every unit.

    Attributes:
        weight: what a unit of the present stage counts, for tasks whose stages differ in cost.
    """

    def __init__(
        self, total: float, callback: ProgressCallback | None = None, cancel: CancelToken | None = None
    ) -> None:
        self.total = max(float(total), 1e-9)
        self.done = 0.0
        self.stage = ""
        self.weight = 1.0
        self._callback = callback
        self._cancel = cancel
        self._start = time.monotonic()

    def check(self) -> None:
        """Raise when the user cancelled."""
        if self._cancel is not None:
            self._cancel.check()

    def advance(self, units: float = 1.0, stage: str | None = None) -> None:
        """Report ``units`` more units done."""
        self.check()
        self.done += units * self.weight
        if stage is not None:
            self.stage = stage
        if self._callback is None:
            return
        fraction = self.done / self.total
        fraction = 1.0 if fraction > 1 - 1e-9 else fraction  # units that were added up share by share are rounded
        elapsed = time.monotonic() - self._start
        left = elapsed / fraction * (1.0 - fraction) if fraction > 0.02 and elapsed > 0.5 else None
        self._callback(ProgressEvent(fraction, self.stage, left))
