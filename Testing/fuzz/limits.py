"""Limits that turn a blow-up, a hang and a stray write into a failure: of memory, time, and places to write."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MORE_MEMORY = 512 << 20
"""Bytes of address space that all readers together may take, with inputs of a few kB."""
SERVER_MEMORY = 6 << 30
"""Bytes of address space of a whole worker process, most of which torch takes without using it."""
CPU_SECONDS = 10
"""CPU time for one input; a read takes milliseconds."""
_FORBIDDEN = ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect")
_WRITES = {"os.remove": 1, "os.rename": 2, "os.rmdir": 1, "os.mkdir": 1, "os.truncate": 1, "os.symlink": 2,
           "os.link": 2, "os.chmod": 1, "shutil.rmtree": 1}  # fmt: skip


class Hang(BaseException):
    """One input took more than CPU_SECONDS; not an Exception, so that no reader explains it away."""


class Trespass(BaseException):
    """Something was written outside of the given folders, or code was about to be run."""


def limit_memory() -> None:
    """No more than MORE_MEMORY from now on; Linux only."""
    with contextlib.suppress(ImportError, OSError, IndexError):
        import resource

        status = Path("/proc/self/status").read_text(encoding="ascii")
        now = int(status.split("VmSize:")[1].split()[0]) << 10
        resource.setrlimit(resource.RLIMIT_AS, (now + MORE_MEMORY,) * 2)


def limited(command: list[str]) -> list[str]:
    """The command with SERVER_MEMORY."""
    if os.name != "posix":
        return command
    return ["sh", "-c", f'ulimit -v {SERVER_MEMORY >> 10}; exec "$@"', "sh", *command]


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    """Raise :class:`Hang` after CPU_SECONDS."""

    def over(_number: int, _frame: Any) -> None:
        raise Hang(f"more than {CPU_SECONDS} s of CPU time")

    signal.signal(signal.SIGVTALRM, over)
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


class Guard:
    """Looks at every write and every start of code while ``watching``, by Python's audit events.

    Attributes:
        allowed: folders below which may be written.
        found: what was done against that, in words.
    """

    def __init__(self) -> None:
        self.allowed: tuple[str, ...] = ()
        self.found: list[str] = []
        self.watching = False
        sys.addaudithook(self._event)

    @contextlib.contextmanager
    def over(self, *folders: Path) -> Iterator[None]:
        """Watch; raises :class:`Trespass` at the end where something was found."""
        self.allowed = tuple(os.path.realpath(folder) + os.sep for folder in folders)
        self.found, self.watching = [], True
        try:
            yield
        finally:
            self.watching = False
        if self.found:
            raise Trespass("; ".join(self.found))

    def _event(self, event: str, details: tuple[Any, ...]) -> None:
        if not self.watching:
            return
        self.watching = False
        try:
            if event in _FORBIDDEN:
                self.found.append(f"{event} {details[0]!r:.100}")
            elif event == "open":
                self._opened(*details)
            elif event in _WRITES:
                beneath = any(isinstance(detail, int) and detail >= 0 for detail in details[_WRITES[event] :])
                for path in details[: _WRITES[event]]:
                    if not (beneath and not os.path.isabs(path)):  # below a folder that was opened before
                        self._written(path)
        finally:
            self.watching = True

    def _opened(self, path: Any, mode: Any, flags: int) -> None:
        if isinstance(path, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
            return
        self._written(path)

    def _written(self, path: Any) -> None:
        with contextlib.suppress(ValueError, TypeError):
            real = os.path.realpath(os.fsdecode(path))
            if real != os.devnull and not (real + os.sep).startswith(self.allowed):
                self.found.append(f"a write to {real}")
