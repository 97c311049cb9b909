"""Lock of a folder, which the system frees with the process that holds it."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LOCK_SECONDS = 2.0
"""Longest wait for a lock that is held for a moment only."""


@contextlib.contextmanager
def locked(folder: str | Path, name: str, seconds: float = 0.0) -> Iterator[None]:
    """Hold a lock in a folder.

    Args:
        name: file of the lock.
        seconds: how long to wait for it; a process that only asks whether it is held holds it for a moment.

    Raises:
        BlockingIOError: another process holds it.
    """
    end = time.monotonic() + seconds
    with open(Path(folder) / name, "a+b") as stream:
        while True:
            try:
                _lock(stream)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise
                time.sleep(0.02)
        yield


def _lock(stream: Any) -> None:
    if sys.platform == "win32":
        import msvcrt

        try:
            stream.seek(0)
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError from error
    else:
        import fcntl

        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
