"""Terminal output: progress and notes on stderr, answers on stdout."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from ..core.errors import MedDiffFMError
from ..core.json_files import json_ready
from ..core.progress import CancelToken, ProgressEvent
from ..core.visible_text import visible, visible_json

_REDRAW_SECONDS = 0.1
_BAR = 24


class Console:
    """Standard output and error of one command.

    Attributes:
        cancel: set when the user interrupts.
        spare_stdout: where foreign ``print`` calls go: stderr with ``--json``, so that stdout holds one object only.
    """

    def __init__(self, *, as_json: bool, quiet: bool, cancel: CancelToken) -> None:
        self.as_json = as_json
        self.cancel = cancel
        self._quiet = quiet
        self._out = sys.stdout or _Lasting(None)  # None where the program was started with it closed
        self._err: TextIO = _Lasting(sys.stderr)
        self._line = ""  # progress line that is on the screen
        self._drawn = 0.0
        self._last: tuple[str, int] = ("", -1)
        self._waiting = ""  # a remark that came while a line was being written

    @property
    def spare_stdout(self) -> TextIO:
        return self._err if self.as_json else _Lasting(sys.stdout)

    def progress(self, event: ProgressEvent) -> None:
        """One line that is redrawn on a terminal; elsewhere a line at each stage and each tenth."""
        if self._quiet:
            return
        if not self._err.isatty():
            position = (event.stage, int(event.fraction * 10))
            if position != self._last:
                self._last = position
                self._print(progress_text(event))
            return
        now = time.monotonic()
        if now - self._drawn >= _REDRAW_SECONDS or event.fraction >= 1:
            self._drawn = now
            done = round(event.fraction * _BAR)
            text = f"[{'#' * done}{'.' * (_BAR - done)}] {progress_text(event)}"
            self._draw(text[: shutil.get_terminal_size().columns - 1])

    def note(self, text: str) -> None:
        """A remark for the person at the terminal; one line."""
        if not self._quiet:
            self._print(visible(text))

    def note_from_signal(self, text: str) -> None:
        """A remark by the handler of a signal, which may have come in the middle of a line and then follows it."""
        try:
            self.note(text)
        except RuntimeError:  # Python's streams refuse a call inside of another one
            self._waiting = text

    def warning(self, text: str) -> None:
        """Something that may make the result less reliable."""
        self.note(f"Warning: {text}")

    def ask(self, text: str) -> None:
        """A question, also to whoever wants to hear nothing else; the answer is read by who asks."""
        self._draw("")
        self._err.write(visible(text))
        self._err.flush()

    def failure(self, problem: MedDiffFMError) -> None:
        """Why the command ends without a result."""
        text = f"{problem.cause} {problem.remedy}".strip()
        self._print(text if problem.kind == "cancelled" else f"meddifffm: error: {text}")
        if self.as_json:
            fields = {"kind": problem.kind, "cause": problem.cause, "remedy": problem.remedy}
            with contextlib.suppress(OSError, ValueError):  # without a reader the exit code must do
                self._answer({"status": "error", **fields, "exit_code": problem.exit_code})

    def answer(self, value: dict[str, Any], text: str) -> None:
        """The command's result: ``value`` with ``--json``, else ``text``, which may have several lines."""
        self._draw("")
        if self.as_json:
            self._answer(value)
        else:
            print(visible(text, keep="\n"), file=self._out, flush=True)

    def _answer(self, value: dict[str, Any]) -> None:
        text = json.dumps(json_ready(value), indent=2, ensure_ascii=False)
        print(visible_json(text), file=self._out, flush=True)

    def _print(self, text: str) -> None:
        self._draw("")
        print(text, file=self._err, flush=True)
        if self._waiting:
            waiting, self._waiting = self._waiting, ""
            print(visible(waiting), file=self._err, flush=True)

    def _draw(self, text: str) -> None:
        """Replace the progress line."""
        if text or self._line:
            self._err.write("\r" + text.ljust(len(self._line)) + ("\r" if not text else ""))
            self._err.flush()
        self._line = text


class _Lasting(io.TextIOBase, TextIO):  # type: ignore[misc]
    """A stream that may be closed, or lose its reader, without an end to the work."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._try(lambda stream: stream.write(text), len(text))

    def flush(self) -> None:
        self._try(lambda stream: stream.flush(), None)

    def isatty(self) -> bool:
        return self._try(lambda stream: stream.isatty(), False)

    def writable(self) -> bool:
        return True

    def _try(self, action: Callable[[TextIO], Any], otherwise: Any) -> Any:
        if self._stream is not None:
            try:
                return action(self._stream)
            except (OSError, ValueError):  # no reader, no room, or closed
                self._stream = None
        return otherwise


def progress_text(event: ProgressEvent) -> str:
    """``" 42 %  denoising, 0:12 left"``."""
    left = "" if event.seconds_left is None else f", {duration(event.seconds_left)} left"
    return f"{event.fraction:4.0%}  {visible(event.stage)}{left}"


def duration(seconds: float) -> str:
    """``0:12`` or ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
