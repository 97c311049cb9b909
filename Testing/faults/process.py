"""A command as a process of its own, forked from one that has imported everything: a start takes a moment."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from MedDiffFMLib.models.entry import FOLDER_VARIABLE

PATIENCE_SECONDS = 600.0
"""Wall-clock time after which a command hangs; computers may be busy."""


@dataclass(frozen=True)
class Place:
    """Where a command works.

    Attributes:
        output: what it writes to.
        temporary: its TMPDIR.
        models: folder of the user's models.
    """

    output: Path
    temporary: Path
    models: Path

    def make(self) -> Place:
        for folder in (self.output, self.temporary, self.models):
            folder.mkdir(parents=True, exist_ok=True)
        return self


class Process:
    """A forked child in a session of its own.

    Args:
        work: gives the exit code.
        logs: folder for what it prints.
        before: called in the child first: limits, injected faults, closed streams.
    """

    def __init__(self, work: Callable[[], int], place: Place, logs: Path, before: Sequence[Callable[[], None]] = ()):
        logs.mkdir(parents=True, exist_ok=True)
        self.out, self.err = logs / "stdout", logs / "stderr"
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self.id = os.fork()
        if self.id == 0:
            self._live(work, place, before)
        self.code: int | None = None

    def _live(self, work: Callable[[], int], place: Place, before: Sequence[Callable[[], None]]) -> None:
        """The child; never returns."""
        code = 70
        try:
            os.setsid()
            for number, path in ((1, self.out), (2, self.err)):
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(handle, number)
                os.close(handle)
            sys.stdout, sys.stderr = (os.fdopen(n, "w", 1, encoding="utf-8", closefd=False) for n in (1, 2))
            os.environ |= {"TMPDIR": str(place.temporary), FOLDER_VARIABLE: str(place.models)}
            tempfile.tempdir = None
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python itself does at its start
            for prepare in before:
                prepare()
            code = work()
        except BaseException as problem:  # as the interpreter would end
            with contextlib.suppress(Exception):
                import traceback

                traceback.print_exception(problem)
            code = 1
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    stream.flush()
            os._exit(code)

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int | None:
        """Exit code, negative for a signal; None where it still runs after ``seconds``."""
        deadline = time.monotonic() + seconds
        while self.code is None:
            done, status = os.waitpid(self.id, os.WNOHANG)
            if done:
                self.code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > deadline:
                return None
            else:
                time.sleep(0.005)
        return self.code

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.id, signal.SIGKILL)

    def relatives(self, patience: float = 30.0) -> list[int]:
        """Processes of its session that still live after some patience: orphans."""
        deadline = time.monotonic() + patience
        while (found := _session(self.id)) and time.monotonic() < deadline:
            time.sleep(0.02)
        return found

    def said(self) -> str:
        """Standard error; empty where it was killed before it had one."""
        if not self.err.exists():
            return ""
        return self.err.read_text(encoding="utf-8", errors="replace")


def _session(leader: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == leader and fields[0] != "Z":
                    found.append(int(folder.name))
    return found
