"""State of a node, written down for whoever asks."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..core.errors import InputError
from ..core.file_lock import locked
from ..core.json_files import write_json
from ..core.safe_load import read_json
from .audit import now

STATUS, LOCK = "status.json", "lock"
_LEAST_SECONDS = 1.0


class StatusFile:
    """``status.json``, written at most once a second.

    Args:
        fixed: what does not change while the node runs.
    """

    def __init__(self, folder: Path, fixed: dict[str, Any]) -> None:
        self._path = folder / STATUS
        self._fixed = {**fixed, "process": os.getpid(), "since": now()}
        self._written = 0.0

    def show(self, state: Callable[[], dict[str, Any]], *, at_once: bool = False) -> None:
        """Write the present state, if it is time to."""
        if at_once or time.monotonic() - self._written >= _LEAST_SECONDS:
            self._written = time.monotonic()
            write_json({**self._fixed, "time": now(), **state()}, self._path, overwrite=True)


def is_running(folder: Path) -> bool:
    """Whether a process has the node's folder."""
    try:
        with locked(folder, LOCK):
            return False
    except BlockingIOError:
        return True


def read_status(folder: Path) -> dict[str, Any]:
    """The last state, with ``running``.

    Raises:
        InputError: no node ever ran there.
    """
    try:
        values: dict[str, Any] = read_json(folder / STATUS)
    except (OSError, ValueError):
        raise InputError(f"'{folder}' is no folder of a node.", "Give the --queue of `meddifffm listen`.") from None
    return {"running": is_running(folder), **values}


def status_lines(values: dict[str, Any]) -> str:
    """For a screen."""
    state = "listening" if values["running"] else "not running"
    lines = [
        f"{values['title']} on port {values['port']}: {state}, process {values['process']}, since {values['since']}"
    ]
    names = ("arriving", "waiting", "working_on", "to_be_sent", "done", "aside")
    lines += [f"{name.replace('_', ' '):11} {values[name]}" for name in names if values.get(name) not in (None, "")]
    lines += [f"{target} takes nothing: {reason}" for target, reason in values.get("troubles", {}).items()]
    return "\n".join(lines)
