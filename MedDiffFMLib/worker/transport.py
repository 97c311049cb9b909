"""Worker client for plain Python programs: process and session."""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from ..core.errors import Cancelled, MedDiffFMError
from ..core.progress import CancelToken, ProgressCallback
from .client import START_SECONDS, WorkerSession, worker_command, worker_environment
from .exchange import Callbacks, RunRequest, State, WorkerResult
from .protocol import READ_BYTES

_POLL_SECONDS = 0.05
_CLOSE_SECONDS = 5.0

Event = Callable[[WorkerSession], None]


class SubprocessTransport:
    """One child process; what it does becomes events in a queue, to be handled by the thread that owns the session.

    Args:
        command: program and arguments.
        environment: of the child.

    Raises:
        OSError: the program cannot be started.
    """

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.events: queue.Queue[Event] = queue.Queue()
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
        readers = [
            threading.Thread(target=self._read, args=(self._process.stdout, WorkerSession.feed), daemon=True),
            threading.Thread(target=self._read, args=(self._process.stderr, WorkerSession.feed_log), daemon=True),
        ]
        try:
            for reader in readers:
                reader.start()
            threading.Thread(target=self._wait, args=(readers,), daemon=True).start()
        except RuntimeError:  # no memory for a thread: nobody would hear of the child
            self._process.kill()
            self._process.wait()
            raise

    @property
    def process_id(self) -> int:
        return self._process.pid

    def write(self, data: bytes) -> None:
        """To the child's standard input; a child that is gone is noticed by its end."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(data)

    def kill(self) -> None:
        """End the child at once."""
        with contextlib.suppress(OSError):
            self._process.kill()

    def close(self, patience: float) -> None:
        """Close the child's input and wait; kill it when it does not end."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()

    def _read(self, stream: Any, method: Callable[[WorkerSession, bytes], None]) -> None:
        with stream:
            while data := stream.read(READ_BYTES):
                self.events.put(functools.partial(_hand_over, method, data))

    def _wait(self, readers: list[threading.Thread]) -> None:
        """Report the end only after everything that the child wrote."""
        code = self._process.wait()
        for reader in readers:
            reader.join(timeout=1)  # a grandchild may hold the pipe open
        self.events.put(lambda session: session.process_finished(code, crashed=code < 0))


def _hand_over(method: Callable[[WorkerSession, bytes], None], data: bytes, session: WorkerSession) -> None:
    method(session, data)


class WorkerClient:
    """A warm worker for scripts; started at the first run, and again after a failure.

    >>> with WorkerClient() as worker:
    ...     result = worker.run(RunRequest(RunSettings("denoise"), voxels, ijk_to_ras))

    Args:
        python: executable of the worker's Python, the program's own by default; or ``ssh://user@host`` for a worker on
            another computer.
        start_seconds: patience with its start.
        on_log, on_warning: receive lines of its standard error, and warnings during a run.
    """

    def __init__(
        self,
        python: str | None = None,
        *,
        start_seconds: float = START_SECONDS,
        on_log: Callable[[str], None] = lambda _: None,
        on_warning: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._python = python or sys.executable
        self._start_seconds = start_seconds
        self._transport: SubprocessTransport | None = None
        self._outcome: WorkerResult | MedDiffFMError | None = None
        self._using = threading.Lock()
        self._session = WorkerSession(
            self._write,
            self._kill,
            Callbacks(
                on_log=on_log,
                on_warning=on_warning,
                on_result=self._keep,
                on_error=self._keep,
                on_cancelled=lambda: self._keep(Cancelled()),
            ),
        )

    def __enter__(self) -> WorkerClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def state(self) -> State:
        return self._session.state

    @property
    def process_id(self) -> int | None:
        """Of the worker, None while there is none."""
        return None if self._transport is None else self._transport.process_id

    def start(self) -> dict[str, Any]:
        """Start the process unless it runs; gives its hello: python, torch, devices.

        Raises:
            MedDiffFMError: it cannot start; the next call tries again.
        """
        with self._using:
            self._start()
            return self._session.hello

    def run(
        self, request: RunRequest, *, progress: ProgressCallback | None = None, cancel: CancelToken | None = None
    ) -> WorkerResult:
        """Have one run done, blocking.

        Raises:
            Cancelled: after ``cancel``.
            MedDiffFMError: whatever went wrong; the next run works again.
        """
        with self._using:
            self._start()
            self._outcome = None
            self._session.callbacks.on_progress = progress or (lambda _: None)
            self._session.run(request)
            try:
                self._pump(lambda: self._outcome is not None, cancel)
            except BaseException:  # Ctrl-C, or a callback that failed: an abandoned run must not go on
                self._stop(0.0)
                raise
            if isinstance(self._outcome, MedDiffFMError):
                raise self._outcome
            assert isinstance(self._outcome, WorkerResult)
            return self._outcome

    def submit(
        self, request: RunRequest, *, progress: ProgressCallback | None = None, cancel: CancelToken | None = None
    ) -> Future[WorkerResult]:
        """Have one run done in the background; ``progress`` is called from another thread."""
        future: Future[WorkerResult] = Future()

        def work() -> None:
            try:
                future.set_result(self.run(request, progress=progress, cancel=cancel))
            except BaseException as problem:
                future.set_exception(problem)

        threading.Thread(target=work, daemon=True).start()
        return future

    def close(self) -> None:
        """End the process and leave nothing behind; a later run starts another."""
        with self._using:
            self._session.shutdown()
            self._stop(_CLOSE_SECONDS)

    # All below runs with the lock held.

    def _start(self) -> None:
        self._drain()
        if self._session.state is State.READY:
            return
        self._stop(0.0)
        self._outcome = None
        program, arguments = worker_command(self._python)
        foreign = not os.path.exists(program) or not os.path.samefile(program, sys.executable)
        generation = self._session.starting()
        try:
            self._transport = SubprocessTransport([program, *arguments], worker_environment(os.environ, foreign))
        except OSError as problem:
            self._session.failed_to_start(f"{program}: {problem.strerror}")
        else:
            self._session.process_started()
            deadline = time.monotonic() + self._start_seconds
            self._pump(lambda: self._session.state is not State.STARTING, None, deadline)
            self._session.start_timed_out(generation)
        if isinstance(self._outcome, MedDiffFMError):
            self._stop(0.0)
            raise self._outcome

    def _pump(self, finished: Callable[[], bool], cancel: CancelToken | None, deadline: float | None = None) -> None:
        """Handle events until ``finished`` or the deadline."""
        asked = False
        assert self._transport is not None
        while not finished() and (deadline is None or time.monotonic() < deadline):
            if cancel is not None and cancel.cancelled and not asked:
                asked = True
                self._session.cancel()
            with contextlib.suppress(queue.Empty):
                self._transport.events.get(timeout=_POLL_SECONDS)(self._session)

    def _drain(self) -> None:
        """Handle events since the last call, such as the end of the process."""
        if self._transport is not None:
            with contextlib.suppress(queue.Empty):
                while True:
                    self._transport.events.get_nowait()(self._session)

    def _stop(self, patience: float) -> None:
        """End the process, and tell the session."""
        if self._transport is None:
            return
        self._session.shutdown()
        if patience == 0:
            self._transport.kill()
        self._transport.close(patience)
        self._transport = None
        self._session.process_finished(0, crashed=False)

    def _keep(self, outcome: WorkerResult | MedDiffFMError) -> None:
        self._outcome = outcome

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _kill(self) -> None:
        if self._transport is not None:
            self._transport.kill()
