"""Long work in short slots of Qt's event loop, so that the window never waits for it.

Not threads: MRML may not be touched from one, and Python's do not advance while Slicer's event loop waits for events.
"""

import contextlib
import importlib
import logging
import time
from typing import Any

import qt

SLOT_SECONDS = 0.03


def importing(*modules):
    """Import modules, one a step; what another version does not have is left out."""
    for name in modules:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
        yield


def drained(steps):
    """The value of a generator, all of whose work is done at once."""
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            return finished.value


class EventLoopTask:
    """One piece of work at a time, a generator that yields wherever it may be interrupted.

    Work that fits into one slot is done when :meth:`start` returns.
    """

    def __init__(self):
        self._steps: Any = None  # while there is work
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(0)
        self._timer.connect("timeout()", self._slot)

    @property
    def busy(self):
        """Whether some work is not finished."""
        return self._steps is not None

    def start(self, steps, onDone=lambda result: None, onError=None, atOnce=True):
        """Begin; work that was going on is dropped.

        :param steps: generator.
        :param onDone: called with what the generator returns.
        :param onError: called with the exception that ended it; logged by default.
        :param atOnce: else the present slot, which has worked already, is not made longer.
        """
        self.stop()
        self._steps, self._onDone, self._onError = steps, onDone, onError
        if atOnce:
            self._slot()
        else:
            self._timer.start()

    def stop(self):
        """Drop the work."""
        steps, self._steps = self._steps, None
        self._timer.stop()
        if steps is not None:
            steps.close()

    def _slot(self):
        steps, end = self._steps, time.perf_counter() + SLOT_SECONDS
        if steps is None:
            return
        try:
            while time.perf_counter() < end:
                next(steps)
                if self._steps is not steps:  # what it did has stopped it
                    return
        except StopIteration as finished:
            self._steps = None
            self._onDone(finished.value)
        except Exception as error:
            self._steps = None
            if self._onError is None:
                logging.exception("MedDiff-FM: work was broken off")
            else:
                self._onError(error)
        else:
            self._timer.start()
