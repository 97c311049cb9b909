"""Background fine-tuning: a process that outlives the program that started it.

Following a run takes its folder only: the request, the progress as JSON lines, the output of the process,
and a lock that the system frees with the process, whatever ended it. A number of the process would not do: after a
restart of the computer another program may have it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ...core.atomic_files import atomic_path
from ...core.errors import InputError, OutputError, expected
from ...core.file_lock import LOCK_SECONDS, locked
from ...core.process_priority import ask_for_normal_priority
from ...core.progress import CancelToken
from ...models.names import DEFAULT_MODEL
from .progress_log import FILE as PROGRESS_FILE
from .progress_log import STOP_FILE, read_progress

REQUEST_FILE, LOCK_FILE, LOG_FILE = "request.json", "running.lock", "training.log"
POLL_SECONDS = 0.5
ENDED = ("done", "early")


@dataclass(frozen=True)
class Request:
    """Training that is asked for, see :func:`.run.finetune`.

    Attributes:
        changes: settings that differ from the preset's.
    """

    data: str
    task: str
    preset: str = "standard"
    prior: str = DEFAULT_MODEL
    name: str | None = None
    title: str = ""
    accelerator: str = "auto"
    bfloat16: bool = True
    changes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunState:
    """State of a run, as known without having started it.

    Attributes:
        state: "none" (no run in the folder), "running", "paused" (the same request goes on), "finished" or "failed".
        step, steps: trained, and planned; 0 until known.
        message: last sentence of the run, such as the reason of a failure.
        model: name in the catalogue once finished.
        last: last line of the progress.
    """

    state: str
    step: int = 0
    steps: int = 0
    message: str = ""
    model: str = ""
    last: dict[str, Any] = field(default_factory=dict)


def start(folder: str | Path, request: Request, python: str, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Begin a run, or go on with it, and return at once.

    Args:
        folder: of the run; made if needed.
        python: program with torch and this package.
        environment: of the process, see ``worker.client.worker_environment``.

    Raises:
        InputError: a process is at work in the folder.
        OutputError: the folder cannot be written, or the program not started.
    """
    folder = Path(folder).resolve()
    if is_running(folder):
        raise InputError(f"A training is going on in {folder}.", "Pause it first, or choose another folder.")
    with atomic_path(folder / REQUEST_FILE, overwrite=True) as temporary:
        temporary.write_text(json.dumps(asdict(request), indent=2), encoding="utf-8")
    (folder / STOP_FILE).unlink(missing_ok=True)
    command = [python, "-u", "-m", f"{__package__}.background", str(folder)]
    with open(folder / LOG_FILE, "ab") as log:
        try:
            return subprocess.Popen(
                command,
                env=dict(environment),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                **_detached(),
            )
        except OSError as error:
            raise OutputError(
                f"{python} cannot be started: {error.strerror or error}.", "Choose another Python."
            ) from error


def _detached() -> dict[str, Any]:
    """Nothing that ends the starting program, such as Ctrl-C or a closed window, reaches the process."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def pause(folder: str | Path) -> None:
    """Ask the run to save and stop; the same request goes on later."""
    (Path(folder) / STOP_FILE).touch()


def request_of(folder: str | Path) -> Request | None:
    """Request that a folder's run was started with; None where there is none."""
    try:
        return Request(**json.loads((Path(folder) / REQUEST_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def finish_request(folder: str | Path) -> Request:
    """The request that ends a paused run where it is, so that its best checkpoint becomes a model.

    Of a run that has not validated yet, one more step is made, after which the last weights are validated and kept.

    Raises:
        InputError: it has not trained a step yet.
    """
    request, run_state = request_of(folder), state_of(folder)
    if request is None or run_state.step < 1:
        raise InputError("No checkpoint was made yet: nothing was trained.", "Let it train on, or give it up.")
    more = 0 if (Path(folder) / "best.safetensors").exists() else 1
    return replace(request, changes={**request.changes, "steps": run_state.step + more})


def state_of(folder: str | Path) -> RunState:
    """State of the run in a folder."""
    folder = Path(folder)
    lines = read_progress(folder)
    last = lines[-1] if lines else {}
    known = {
        name: next((line[name] for line in reversed(lines) if line.get(name) is not None), 0)
        for name in ("step", "steps")
    }
    message, model = str(last.get("message") or ""), str(last.get("model") or "")
    if is_running(folder):
        state = "running"
    elif request_of(folder) is None and not lines:
        state = "none"
    elif last.get("state") in ENDED:
        state = "finished"
    elif last.get("state") == "failed" or not lines:
        state, message = "failed", message or last_words(folder)
    else:  # "stopped", or a line of work: the process was killed
        state = "paused"
    return RunState(state, int(known["step"]), int(known["steps"]), message, model, last)


def last_words(folder: str | Path) -> str:
    """The last line that the process wrote, for errors before its first progress."""
    try:
        lines = (Path(folder) / LOG_FILE).read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


class ProgressTail:
    """Reader of what is new in a run's progress, however long the run.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / PROGRESS_FILE
        self._offset = 0
        self._identity: tuple[int, int] | None = None

    def new(self) -> tuple[list[dict[str, Any]], bool]:
        """Lines since the last call, and whether the file was begun anew, as a resumed run does."""
        try:
            with open(self.path, "rb") as stream:
                facts = os.fstat(stream.fileno())
                identity = (facts.st_dev, facts.st_ino)
                anew = identity != self._identity or facts.st_size < self._offset
                if anew:
                    self._identity, self._offset = identity, 0
                stream.seek(self._offset)
                content = stream.read()
        except OSError:
            return [], False
        whole = content[: content.rfind(b"\n") + 1]  # a line may be in the middle of being written
        self._offset += len(whole)
        lines = []
        for line in whole.splitlines():
            with contextlib.suppress(ValueError):
                lines.append(json.loads(line))
        return lines, anew


# ----------------------------------------------------------------------------------------------------------------- lock


def is_running(folder: str | Path) -> bool:
    """Whether a process trains in the folder."""
    path = Path(folder) / LOCK_FILE
    if not path.exists():
        return False
    try:
        with locked(folder, LOCK_FILE):
            return False
    except BlockingIOError:
        return True
    except OSError:  # a folder that cannot be written has no run
        return False


# -------------------------------------------------------------------------------------------------------------- process


def main(arguments: list[str]) -> int:
    """Do what the request in a folder says; 0 at its end, 130 where it was paused."""
    ask_for_normal_priority()
    folder = Path(arguments[0])
    request = request_of(folder)
    if request is None:
        print(f"There is no request in {folder}.", file=sys.stderr)
        return 2
    try:
        with locked(folder, LOCK_FILE, LOCK_SECONDS), _stop_file_cancels(folder) as cancel:
            return _train(folder, request, cancel)
    except BlockingIOError:
        print(f"A training is going on in {folder}.", file=sys.stderr)
        return 2


def _train(folder: Path, request: Request, cancel: CancelToken) -> int:
    from .progress_log import Progress
    from .run import finetune

    settings = asdict(request)
    changes = settings.pop("changes")
    data, task = settings.pop("data"), settings.pop("task")
    try:
        result = finetune(data, folder, task, cancel=cancel, **settings, **changes)
    except Exception as problem:
        failure = expected(problem)
        if failure is None:
            raise
        print(failure, file=sys.stderr)
        if not read_progress(folder) or read_progress(folder)[-1]["state"] not in ("failed", "stopped"):
            Progress(folder).emit("failed", message=str(failure))  # refused before the run could write itself
        return failure.exit_code
    return 130 if result.state == "stopped" else 0


@contextlib.contextmanager
def _stop_file_cancels(folder: Path, seconds: float = POLL_SECONDS) -> Iterator[CancelToken]:
    """A token that the stop file cancels, also while cases are checked and prepared."""
    cancel, over = CancelToken(), threading.Event()
    thread = threading.Thread(target=_watch, args=(folder, cancel, over, seconds), daemon=True)
    thread.start()
    try:
        yield cancel
    finally:
        over.set()
        thread.join()


def _watch(folder: Path, cancel: CancelToken, over: threading.Event, seconds: float) -> None:
    while not over.wait(seconds):
        if (folder / STOP_FILE).exists():
            cancel.cancel()
            return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
