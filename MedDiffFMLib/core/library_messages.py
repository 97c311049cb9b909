"""Messages of foreign libraries: kept for the log of an unforeseen failure, off the screen."""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Iterator

_OWN = __name__.partition(".")[0]
_SPEAKING = ("nibabel.global",)
"""Loggers that print by a handler of their own, whatever the program has set up."""

RECENT: deque[str] = deque(maxlen=200)
"""The last messages, one line each."""


class _Keep(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if record.name.partition(".")[0] != _OWN:
            RECENT.append(f"{record.levelname} {record.name}: {' '.join(record.getMessage().split())}")

    def divert(self, record: logging.LogRecord) -> bool:
        """Keep a record instead of letting it through."""
        self.emit(record)
        return False


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """While the block runs, keep what other packages log or warn of instead of printing it."""
    keep, root = _Keep(logging.WARNING), logging.getLogger()
    RECENT.clear()
    logging.captureWarnings(True)
    root.addHandler(keep)
    for name in _SPEAKING:
        logging.getLogger(name).addFilter(keep.divert)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(keep)
        for name in _SPEAKING:
            logging.getLogger(name).removeFilter(keep.divert)
