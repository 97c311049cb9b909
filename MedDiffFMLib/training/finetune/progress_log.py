"""Progress log of a fine-tuning run as JSON lines.

Each line of ``progress.jsonl`` is one object: ``time`` (seconds since 1970), ``state`` ("checking", "preparing",
"training", "validated", "done", "early", "stopped" or "failed"), and what is known then of ``step``, ``steps``,
``loss``, ``learning_rate``, ``metric`` (name), ``value``, ``best``, ``best_step``, ``seconds_left`` (at most),
``message``.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...core.errors import OutputError, expected
from ...core.json_files import json_ready
from ...core.progress import ProgressCallback, ProgressEvent

FILE = "progress.jsonl"
STOP_FILE = "stop"
"""A file of this name in the run folder asks a run to save and stop, on every platform."""
LINE_SECONDS = 0.5
"""Steps that follow each other faster share a line, but the first of a stage always has its own."""


class Progress:
    """Writes the lines and calls back.

    Args:
        folder: of the run; None writes no file, as in all processes but the first.
        callback: receives :class:`ProgressEvent` beside the lines.
    """

    def __init__(self, folder: Path | None, callback: ProgressCallback | None = None) -> None:
        self.path = None if folder is None else folder / FILE
        self.callback = callback
        self._last = 0.0
        self._state = ""

    def resume(self, step: int) -> None:
        """Drop lines of steps after ``step``, -1 for a start from nothing, and one that a kill cut off."""
        if self.path is None or not self.path.exists():
            return
        kept = [line for line in self.path.read_text(encoding="utf-8").splitlines() if _keep(line, step)]
        temporary = self.path.with_name(f"{FILE}.partial")
        temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        os.replace(temporary, self.path)

    def emit(self, state: str, fraction: float = 0.0, **fields: Any) -> None:
        """One line.

        Raises:
            OutputError: the disk is full.
        """
        if self.path is not None:
            line = {"time": round(time.time(), 2), "state": state, **json_ready(fields)}
            try:
                with open(self.path, "a", encoding="utf-8") as stream:
                    stream.write(json.dumps(line, ensure_ascii=False) + "\n")
            except OSError as error:
                raise OutputError(
                    f"{FILE} cannot be written to {self.path.parent}: {error.strerror or error}.",
                    "Free some space and give the same command again; it goes on from the last checkpoint.",
                ) from error
        self._last, self._state = time.monotonic(), state
        if self.callback is not None:
            self.callback(ProgressEvent(fraction, fields.get("message") or state, fields.get("seconds_left")))

    def emit_now_and_then(self, state: str, fraction: float, **fields: Any) -> None:
        """One line, unless the last one was a moment ago and of the same stage."""
        if state != self._state or time.monotonic() - self._last >= LINE_SECONDS:
            self.emit(state, fraction, **fields)

    @contextlib.contextmanager
    def failures(self) -> Iterator[None]:
        """Write why the run ended to the file, too."""
        try:
            yield
        except BaseException as problem:
            failure = expected(problem)
            message = str(failure) if failure is not None else f"{type(problem).__name__}: {problem}"
            state = "stopped" if failure is not None and failure.kind == "cancelled" else "failed"
            self.callback = None
            with contextlib.suppress(OutputError):
                self.emit(state, message=message)
            raise


def read_progress(folder: str | Path) -> list[dict[str, Any]]:
    """The lines that a run has written so far; a line that is being written is left out."""
    try:
        lines = (Path(folder) / FILE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    records = []
    for line in lines:
        with contextlib.suppress(ValueError):
            records.append(json.loads(line))
    return records


def _keep(line: str, step: int) -> bool:
    try:
        return int(json.loads(line).get("step", step)) <= step
    except (ValueError, AttributeError):
        return False
