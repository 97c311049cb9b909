"""Client side of the worker protocol: a state machine without process or thread, and the start of processes.

:class:`WorkerSession` is fed with what the process writes and does, and says what to write to it; any owner of a
process can drive it: a ``QProcess`` inside Slicer, :class:`MedDiffFMLib.worker.transport.WorkerClient` elsewhere.
This module needs the standard library only, and numpy once arrays are sent.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

from .. import __version__
from ..core import process_priority
from ..core.errors import MedDiffFMError
from ..core.progress import ProgressEvent
from . import protocol
from .address import is_address
from .exchange import Callbacks, RunRequest, State, WorkerResult
from .protocol import PROTOCOL_VERSION, LineReader, PrivateFolder, ProtocolError, WorkerError, encode, error_from

START_SECONDS = 120.0  # importing torch from a cold network disk takes its time
_LOG_LINES = 30
_FOREIGN = ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONEXECUTABLE", "PYTHONNOUSERSITE", "LD_LIBRARY_PATH",
            "DYLD_LIBRARY_PATH", "QT_PLUGIN_PATH", "__PYVENV_LAUNCHER__")  # fmt: skip


def worker_command(where: str) -> tuple[str, list[str]]:
    """Program and arguments that start a worker.

    Args:
        where: executable of any Python, or the address of another computer, see :mod:`MedDiffFMLib.worker.address`.
    """
    if is_address(where):
        return sys.executable, ["-u", "-m", f"{protocol.__package__}.near_end", where]
    return where, ["-u", "-m", f"{protocol.__package__}.server"]


def program_environment(base: Mapping[str, str]) -> dict[str, str]:
    """Environment of a program that is no Python of ours, such as OpenSSH: without a program's own library paths."""
    return {name: value for name, value in base.items() if name not in _FOREIGN}


def worker_environment(base: Mapping[str, str], foreign: bool = False) -> dict[str, str]:
    """Environment of the worker, in which this very package is importable.

    Args:
        base: environment of the program.
        foreign: the Python is not the program's own, so the program's Python and library paths would break it.
    """
    environment = program_environment(base) if foreign else dict(base)
    root = Path(__file__).resolve().parents[2]
    # The site-packages of one Python are no place for another to look; there the package must be installed itself.
    if not (foreign and root.name in ("site-packages", "dist-packages")):
        paths = [str(root), *filter(None, [environment.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    environment.setdefault("OPENBLAS_NUM_THREADS", "1")  # more threads spin on the network's cores
    # Files in the current folder must not pass for modules; output is UTF-8 whatever the locale.
    python = {"PYTHONSAFEPATH": "1", "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"}
    return environment | python | {process_priority.ENVIRONMENT: process_priority.NORMAL}


def _at_once(steps: Generator[None, None, None]) -> None:
    for _ in steps:
        pass


class WorkerSession:
    """State machine between an owner, who holds the process, and the worker's messages.

    The owner calls :meth:`starting` and starts the process; then reports what happens to it
    (:meth:`process_started`, :meth:`feed`, :meth:`feed_log`, :meth:`process_finished`, :meth:`failed_to_start`), and
    calls :meth:`start_timed_out` after START_SECONDS. All from one thread.

    Args:
        write: passes bytes to the process's standard input.
        kill: ends the process at once; ``process_finished`` follows.
        callbacks: calls of the owner.
        work: goes through the steps of a long piece of work; by default at once. An owner with an event loop takes one
            at a time, and reports an error that ends them to ``callbacks.on_error``.
        mapped: leave the arrays of a result on disk until :meth:`discard_result`, or the next run.

    Attributes:
        state: see :class:`State`. After FAILED or STOPPED, :meth:`starting` begins anew.
        hello: the worker's description of itself (python, torch, devices ...), empty before.
        generation: counts starts, so that a timer of an earlier start is recognized.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        kill: Callable[[], None],
        callbacks: Callbacks,
        work: Callable[[Generator[None, None, None]], None] = _at_once,
        mapped: bool = False,
    ) -> None:
        self.state = State.STOPPED
        self.hello: dict[str, Any] = {}
        self.generation = 0
        self.callbacks = callbacks
        self._write, self._kill, self._work, self._mapped = write, kill, work, mapped
        self._folder: PrivateFolder | None = None
        self._numbers = itertools.count(1)
        self._waiting: RunRequest | None = None
        self._current: int | None = None
        self._sending = False
        self._input_files: list[str] = []
        self._result_files: list[str] = []
        self._reset()

    def _reset(self) -> None:
        self._lines, self._log_lines = LineReader(), LineReader()
        self._log: deque[str] = deque(maxlen=_LOG_LINES)
        self._closing = False
        self.hello = {}

    @property
    def busy(self) -> bool:
        """Whether a run is waiting, running or being cancelled."""
        return self._waiting is not None or self._current is not None

    # Requests of the owner

    def starting(self) -> int:
        """The owner is about to start the process; gives the generation for its timer."""
        if self.state not in (State.STOPPED, State.FAILED):
            raise RuntimeError(f"a worker that is {self.state.value} cannot be started")
        self._reset()
        self.generation += 1
        self._folder = PrivateFolder()
        self._change(State.STARTING)
        return self.generation

    def run(self, request: RunRequest) -> None:
        """Send a run; while the worker is starting, as soon as it is ready.

        Raises:
            WorkerError: kind "busy", or "stopped" where there is no process.
            OutputError: no room for the arrays.
        """
        if self.busy:
            raise WorkerError("The worker is busy with another run.", "Wait for it or cancel it.", "busy")
        if self.state is State.STARTING:
            self._waiting = request
        elif self.state is State.READY:
            self._send_run(request)
        else:
            raise WorkerError("The worker is not running.", "Start it again.", "stopped")

    def cancel(self) -> None:
        """Ask the run to stop; a second time kills the process."""
        if self._waiting is not None:
            self._waiting = None
            self.callbacks.on_cancelled()
        elif self._sending:  # the worker knows nothing of it yet
            self._finish_run()
            self.callbacks.on_cancelled()
        elif self.state is State.RUNNING:
            self._change(State.CANCELLING)
            self._write(encode("cancel", id=self._current))
        elif self.state is State.CANCELLING:
            self._kill()

    def discard_result(self) -> None:
        """The arrays of the last result are not needed any more."""
        files, self._result_files = self._result_files, []
        if self._folder is None:
            return
        for file in files:
            with contextlib.suppress(OSError):  # Windows, while it is mapped; the folder goes in the end
                self._folder.discard(file)

    def shutdown(self) -> None:
        """Ask the process to end; the owner kills it if it does not."""
        if self.state in (State.STOPPED, State.FAILED):
            return
        self._closing = True
        self._write(encode("shutdown"))

    # Events of the process

    def process_started(self) -> None:
        """It runs: say hello."""
        assert self._folder is not None
        self._write(encode("hello", protocol=PROTOCOL_VERSION, package=__version__, folder=str(self._folder.path)))

    def failed_to_start(self, detail: str = "") -> None:
        """There is no such program, or it may not be run."""
        reason = f": {detail}" if detail else ""
        cause = f"The worker's Python cannot be started{reason}."
        self._fail(WorkerError(cause, "Check the path of the Python.", "start"))

    def start_timed_out(self, generation: int) -> None:
        """The owner's timer ran out; counts only if that start still waits."""
        if generation == self.generation and self.state is State.STARTING:
            self._fail(
                WorkerError(
                    f"The worker did not answer within {START_SECONDS:g} s.{self._last_words()}",
                    "Start again; the first start after an installation is the slowest.",
                    "timeout",
                )
            )
            self._kill()

    def process_finished(self, code: int, crashed: bool) -> None:
        """The process has ended, for whatever reason."""
        if self.state in (State.STOPPED, State.FAILED):
            return
        if self._closing or self.state is State.CANCELLING:
            self._end(State.STOPPED)
        else:
            self._fail(self._death(code, crashed))

    def feed(self, data: bytes) -> None:
        """Bytes from standard output, in any portions."""
        for line in self._lines.feed(data):
            if self.state in (State.STOPPED, State.FAILED):
                return
            try:
                if isinstance(line, ProtocolError):
                    raise line
                self._receive(protocol.decode(line))
            except ProtocolError as problem:
                problem.remedy = problem.remedy or "Check which Python is used as the worker."
                self._fail(ProtocolError(f"The worker does not speak the protocol. {problem.cause}", problem.remedy))
                self._kill()

    def feed_log(self, data: bytes) -> None:
        """Bytes from standard error, in any portions."""
        for line in self._log_lines.feed(data):
            text = str(line)
            self._log.append(text)
            self.callbacks.on_log(text)

    # Messages

    def _receive(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        handler = {
            "hello": self._greeted,
            "progress": self._progressed,
            "warning": self._warned,
            "result": self._resulted,
            "error": self._erred,
            "cancelled": self._stopped,
            "pong": lambda _: None,
        }.get(kind)
        if handler is None:
            raise ProtocolError(f"Unknown message {kind!r}.")
        try:
            handler(message)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as problem:
            raise ProtocolError(f"A {kind} message is not well formed ({problem!r}).") from None

    def _greeted(self, message: dict[str, Any]) -> None:
        versions = (message["protocol"], message["package"])
        if versions != (PROTOCOL_VERSION, __version__):
            self._fail(
                WorkerError(
                    f"The worker is MedDiff-FM {versions[1]} (protocol {versions[0]}), "
                    f"this program is {__version__} (protocol {PROTOCOL_VERSION}).",
                    "Use the same version in both.",
                    "version",
                )
            )
            self._kill()
            return
        if self.state is not State.STARTING:
            raise ProtocolError("A second hello came.")
        self.hello = message
        self._change(State.READY)
        if self._waiting is not None:
            request, self._waiting = self._waiting, None
            try:
                self._send_run(request)
            except MedDiffFMError as problem:
                self.callbacks.on_error(problem)

    def _send_run(self, request: RunRequest) -> None:
        self.discard_result()
        self._current = next(self._numbers)
        self._sending = True
        self._change(State.RUNNING)
        self._work(self._sending_run(request, self._current))

    def _sending_run(self, request: RunRequest, number: int) -> Generator[None, None, None]:
        """Arrays first, step by step; the message last. Ends early when the run is given up."""
        assert self._folder is not None
        arrays = {**request.inputs, "whole": request.whole} if request.whole else request.inputs
        records: dict[str, Any] = {}
        self._input_files = [f"run-{number}-{index}.npy" for index in range(len(arrays))]
        for file, (name, (array, matrix)) in zip(self._input_files, arrays.items(), strict=True):
            records[name] = {"file": file, "ijk_to_ras": matrix}
            if name in request.beams:
                records[name]["beam_source"] = list(request.beams[name])
            try:
                for _ in self._folder.saving(file, array):
                    yield
                    if self._current != number:
                        return
            except MedDiffFMError:
                self._finish_run()
                raise
        self._sending = False
        whole = records.pop("whole", None)
        fields = {"inputs": records, "texts": dict(request.texts), "whole": whole, **request.settings.as_dict()}
        self._write(encode("run", id=number, **fields))

    def _about_current(self, message: dict[str, Any]) -> bool:
        return self._current is not None and message["id"] == self._current

    def _progressed(self, message: dict[str, Any]) -> None:
        left = message["seconds_left"]
        event = ProgressEvent(float(message["fraction"]), str(message["stage"]), None if left is None else float(left))
        if self._about_current(message):
            self.callbacks.on_progress(event)

    def _warned(self, message: dict[str, Any]) -> None:
        self.callbacks.on_warning(str(message["text"]))

    def _resulted(self, message: dict[str, Any]) -> None:
        if not self._about_current(message):
            return
        assert self._folder is not None
        records = message["volumes"].items()
        self._result_files = [str(record["file"]) for _, record in records]
        volumes = {str(name): self._folder.load(record["file"], self._mapped) for name, record in records}
        places = {str(name): record["ijk_to_ras"] for name, record in records if record["ijk_to_ras"] is not None}
        if not self._mapped:
            self.discard_result()
        fields = {name: message[name] for name in ("tables", "texts", "facts", "warnings", "report")}
        cancelled = self.state is State.CANCELLING  # the result was on its way when the user cancelled
        self._finish_run()
        if cancelled:
            self.callbacks.on_cancelled()
        else:
            self.callbacks.on_result(WorkerResult(volumes, **fields, ijk_to_ras=places))

    def _stopped(self, message: dict[str, Any]) -> None:
        if self._about_current(message):
            self._finish_run()
            self.callbacks.on_cancelled()

    def _erred(self, message: dict[str, Any]) -> None:
        problem = error_from(message)
        if message.get("id") is None:  # not about a run: the worker cannot work at all, or did not understand us
            self._fail(problem)
            self._kill()
        elif self._about_current(message):
            self._finish_run()
            self.callbacks.on_error(problem)

    def _finish_run(self) -> None:
        assert self._folder is not None
        for file in self._input_files:
            self._folder.discard(file)
        self._current, self._sending, self._input_files = None, False, []
        self._change(State.READY)

    # Ends

    def _fail(self, problem: MedDiffFMError) -> None:
        self._end(State.FAILED, problem)

    def _end(self, state: State, problem: MedDiffFMError | None = None) -> None:
        """Leave nothing behind, and tell the owner once."""
        interrupted = self.busy
        self._waiting = self._current = None
        self._sending, self._input_files, self._result_files = False, [], []
        if self._folder is not None:
            self._folder.remove()
            self._folder = None
        self._change(state)
        if problem is not None:
            self.callbacks.on_error(problem)
        elif interrupted:
            self.callbacks.on_cancelled()

    def _death(self, code: int, crashed: bool) -> WorkerError:
        """Why a process ended unasked, in a sentence."""
        if abs(code) == 9 and crashed:
            return WorkerError(
                "The worker was killed (signal 9), most likely because the computer ran out of memory.",
                "Close other programs, crop the volume, or choose a coarser working spacing.",
                "memory",
            )
        how = f"crashed (signal or code {abs(code)})" if crashed else f"ended with exit code {code}"
        return WorkerError(f"The worker {how}.{self._last_words()}", "Run again; the worker is started anew.", "crash")

    def _last_words(self) -> str:
        """The last line of its standard error, which is where Python says what was wrong."""
        lines = [line.strip() for line in self._log if line.strip()]
        return f" Its last words: {lines[-1][:300]}" if lines else ""

    def _change(self, state: State) -> None:
        if state is not self.state:
            self.state = state
            self.callbacks.on_state(state)
