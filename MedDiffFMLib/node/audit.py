"""Audit log: one JSON object a line; who, what, when, and what came of it. No patient unless asked for."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections import deque
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..core.json_files import json_ready
from ..core.visible_text import visible_json


def now() -> str:
    """The time, UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


class Audit:
    """The log, one file a month.

    Args:
        folder: of the files.
        told: is given each event and its fields, besides.
    """

    def __init__(self, folder: Path, told: Callable[[str, dict[str, Any]], None] = lambda *_: None) -> None:
        self._folder = folder
        self._told = told
        self._lock = threading.Lock()
        self._unwritten: deque[tuple[Path, bytes]] = deque(maxlen=100_000)

    def write(self, event: str, **fields: Any) -> None:
        """Add a line, in one piece; fields that are empty are left out. What a full disk refuses is written later."""
        moment = now()
        said = {key: value for key, value in fields.items() if value not in (None, "", [], {})}
        line = visible_json(json.dumps(json_ready({"time": moment, "event": event, **said}), ensure_ascii=False))
        with self._lock:
            self._unwritten.append((self._folder / f"audit-{moment[:7]}.jsonl", line.encode() + b"\n"))
            with contextlib.suppress(OSError):
                while self._unwritten:
                    _append(*self._unwritten[0])
                    self._unwritten.popleft()
        self._told(event, said)


def _append(path: Path, line: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, line)
    finally:
        os.close(handle)
