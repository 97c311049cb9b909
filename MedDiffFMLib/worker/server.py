"""Server side of the worker protocol, ``python -m MedDiffFMLib.worker.server``.

Standard input and output belong to the protocol; whatever else prints goes to standard error. One thread reads
messages, so a cancel or a ping is heard while the network runs; the main thread computes. The process ends when its
input ends, so it never outlives its client, and then removes the private folder itself.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import logging
import os
import platform
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, Any, BinaryIO

from .. import __version__
from ..core.devices import count, title, total_memory
from ..core.errors import Cancelled, DependencyError, expected, log_defect
from ..core.process_priority import ask_for_normal_priority
from ..core.progress import CancelToken, ProgressEvent
from . import protocol
from .protocol import (
    PROTOCOL_VERSION,
    READ_BYTES,
    LineReader,
    PrivateFolder,
    ProtocolError,
    WorkerError,
    encode,
    error_fields,
)

if TYPE_CHECKING:
    from ..runner.settings import RunSettings

NEEDED = ("numpy", "scipy", "torch", "monai", "safetensors")
_GRACE_SECONDS = 3.0  # for the computing thread to notice that the client is gone
_PROGRESS_SECONDS = 0.05
DRIVER_SECONDS = 5.0  # for the driver to tell how much memory is free


class Server:
    """Loop that reads requests, runs them one after the other, and answers.

    Args:
        source, sink: binary streams of the protocol.
    """

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        self._source, self._sink = source, sink
        self._writing = threading.Lock()
        self._requests: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._folder: PrivateFolder | None = None
        self._running: tuple[Any, CancelToken] | None = None
        self._model: tuple[tuple[str, str, str], Any] | None = None

    def serve(self) -> int:
        """Until shutdown or the end of the input; gives the exit code."""
        threading.Thread(target=self._read, daemon=True).start()
        try:
            while (message := self._requests.get()) is not None:
                if message["type"] == "hello":
                    self._greet(message)
                else:
                    self._run(message)
        except (WorkerError, DependencyError, ProtocolError) as problem:
            self.send("error", id=None, **error_fields(problem))
            return problem.exit_code
        finally:
            self._remove_folder()
        return 0

    def send(self, kind: str, /, **fields: Any) -> None:
        """Write one message; a client that is gone is noticed by the reading thread."""
        with self._writing, contextlib.suppress(OSError, ValueError):
            self._sink.write(encode(kind, **fields))
            self._sink.flush()

    def stop(self) -> None:
        """End as soon as the network call in progress returns, at the latest after a short grace."""
        if self._running is not None:
            self._running[1].cancel()
        self._requests.put(None)
        timer = threading.Timer(_GRACE_SECONDS, self._abandon)
        timer.daemon = True
        timer.start()

    def _abandon(self) -> None:
        self._remove_folder()
        os._exit(1)

    def _remove_folder(self) -> None:
        if self._folder is not None:
            self._folder.remove()

    # Reading thread

    def _read(self) -> None:
        lines = LineReader()
        while data := os.read(self._source.fileno(), READ_BYTES):
            for line in lines.feed(data):
                try:
                    self._receive(protocol.decode(line) if isinstance(line, str) else _raised(line))
                except ProtocolError as problem:
                    self.send("error", id=None, **error_fields(problem))
        self.stop()

    def _receive(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "ping":
            self.send("pong")
        elif kind == "cancel":
            if self._running is not None and self._running[0] == message.get("id"):
                self._running[1].cancel()
        elif kind == "shutdown":
            self.stop()
        elif kind == "hello":
            self._requests.put(message)
        elif kind == "run":
            self._accept(message)
        else:
            raise ProtocolError(f"Unknown message {kind!r}.")

    def _accept(self, message: dict[str, Any]) -> None:
        """Queue a run; its cancel token exists from now on, so an early cancel is not lost."""
        if self._folder is None:
            raise ProtocolError("A run came before the hello.")
        if type(message.get("id")) not in (int, str):
            raise ProtocolError("A run has no id.")
        if self._running is not None:
            busy = WorkerError("The worker is busy with another run.", "Wait for it or cancel it.", "busy")
            self.send("error", id=message.get("id"), **error_fields(busy))
            return
        self._running = (message.get("id"), CancelToken())
        self._requests.put(message)

    # Main thread

    def _greet(self, message: dict[str, Any]) -> None:
        """Compare versions, take over the folder, load torch, and say what this Python offers."""
        if self._folder is not None:
            raise ProtocolError("A second hello came.")
        versions = (message.get("protocol"), message.get("package"))
        if versions != (PROTOCOL_VERSION, __version__):
            raise WorkerError(
                f"The program is MedDiff-FM {versions[1]} (protocol {versions[0]}), "
                f"the worker is {__version__} (protocol {PROTOCOL_VERSION}).",
                "Use the same version in both, or restart the program after an update.",
                "version",
            )
        self._folder = PrivateFolder.existing(str(message.get("folder")))
        missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
        if missing:
            raise DependencyError(
                f"{sys.executable} lacks {', '.join(missing)}.",
                f"Install there: {sys.executable} -m pip install {' '.join(missing)}",
            )
        self.send("hello", **describe_process())

    def _run(self, message: dict[str, Any]) -> None:
        """One run from request to answer; whatever happens, the worker stays usable."""
        assert self._running is not None and self._folder is not None
        number, cancel = self._running
        try:
            with _warnings_to(lambda text: self.send("warning", id=number, text=text)):
                kind, fields = "result", self._compute(message, cancel, _Progress(self, number))
        except Cancelled:
            kind, fields = "cancelled", {}
        except Exception as problem:
            failure = expected(problem) or WorkerError(
                f"Unexpected failure: {log_defect(problem)}.", "Please report it with that file.", "internal"
            )
            kind, fields = "error", error_fields(failure)
        gc.collect()  # arrays mapped from the private folder must be closed before the client deletes them
        self._running = None  # before the answer, because the client may send the next run at once
        self.send(kind, id=number, **fields)

    def _compute(self, message: dict[str, Any], cancel: CancelToken, progress: _Progress) -> dict[str, Any]:
        """The fields of the result message."""
        from ..runner.case import LoadedCase, compute

        assert self._folder is not None
        folder, settings = self._folder, _settings(message)
        progress(ProgressEvent(0.0, "reading", None))
        case: LoadedCase = _case(message, folder, settings)
        cancel.check()
        progress(ProgressEvent(0.0, "loading the model", None))
        model = self._load(settings)
        cancel.check()
        result, report = compute(settings, case, model, progress, cancel)
        cancel.check()
        volumes = {
            name: {"file": folder.save(f"result-{index}.npy", array), "ijk_to_ras": result.ijk_to_ras.get(name)}
            for index, (name, array) in enumerate(result.volumes.items())
        }
        return {
            "volumes": volumes,
            "tables": result.tables,
            "texts": result.texts,
            "facts": result.facts,
            "warnings": report["warnings"],
            "report": report,
        }

    def _load(self, settings: RunSettings) -> Any:
        """The model, kept warm; the one before is dropped first, so that two never share the memory."""
        from ..models.names import NO_MODEL
        from ..runner.load import load

        if settings.model == NO_MODEL:  # what is warm stays warm
            return load(settings)
        key = (settings.model, settings.device, settings.precision)
        if self._model is None or self._model[0] != key:
            self._model = None
            gc.unfreeze()
            gc.collect()
            self._model = (key, load(settings))
            gc.collect()
            gc.freeze()  # to look through all that was imported and loaded takes a tenth of a second of each run
        return self._model[1]


class _Progress:
    """Progress callback that thins out reports."""

    def __init__(self, server: Server, number: Any) -> None:
        self._server, self._number = server, number
        self._stage, self._sent = "", 0.0

    def __call__(self, event: ProgressEvent) -> None:
        now = time.monotonic()
        if event.stage != self._stage or event.fraction >= 1 or now - self._sent >= _PROGRESS_SECONDS:
            self._stage, self._sent = event.stage, now
            fields = {"fraction": event.fraction, "stage": event.stage, "seconds_left": event.seconds_left}
            self._server.send("progress", id=self._number, **fields)


def _raised(problem: ProtocolError) -> dict[str, Any]:
    raise problem


def _settings(message: dict[str, Any]) -> Any:
    """The run's settings, checked as if a user had typed them."""
    from ..runner.settings import RunSettings

    names = ("seed", "region", "model", "device", "precision", "threads")
    values = {name: message[name] for name in names if name in message}
    return RunSettings(message.get("task", ""), _named(message, "parameters"), **values).checked()


def _case(message: dict[str, Any], folder: PrivateFolder, settings: RunSettings) -> Any:
    """The run's arrays and texts, checked as if they came from files."""
    from ..imaging.volume import geometry
    from ..runner.case import checked_case

    inputs = settings.parameters.takes
    given, texts = (_named(message, name) for name in ("inputs", "texts"))
    modalities = inputs.modalities
    volumes = {name: _volume(record, folder, modalities.get(name, "CT")) for name, record in given.items()}
    if message.get("whole") is not None and "volume" in volumes:
        whole = _volume(message["whole"], folder, volumes["volume"].modality)
        volumes["volume"] = replace(volumes["volume"], whole=whole)
    case = checked_case(settings.task, volumes, texts, inputs=inputs)
    case.records = {name: {"source": "memory", **geometry(volume)} for name, volume in volumes.items()}
    return case


def _named(message: dict[str, Any], name: str) -> dict[str, Any]:
    """An object of a message; empty where it is left out."""
    value = message.get(name) or {}
    if not isinstance(value, dict):
        raise ProtocolError(f"The {name} are no object.")
    return value


def _volume(record: Any, folder: PrivateFolder, modality: str) -> Any:
    """An array with its geometry from a message."""
    import numpy as np

    from ..imaging.volume import Volume

    if not isinstance(record, dict):
        raise ProtocolError("An array needs a record with file and ijk_to_ras.")
    try:
        matrix = np.array(record.get("ijk_to_ras"), dtype=float)
    except (TypeError, ValueError):
        raise ProtocolError("ijk_to_ras is no matrix.") from None
    if matrix.shape != (4, 4):
        raise ProtocolError("ijk_to_ras is no 4x4 matrix.")
    beam = record.get("beam_source")
    numbers = isinstance(beam, list) and len(beam) in (0, 3) and all(isinstance(x, (int, float)) for x in beam)
    if beam is not None and not numbers:
        raise ProtocolError("beam_source is not three numbers.")
    source = None if beam is None else tuple(map(float, beam))
    return Volume(folder.load(record.get("file"), mapped=True), matrix, modality, beam_source=source)


def describe_process() -> dict[str, Any]:
    """Description of this process in the worker's hello."""
    import torch

    devices: list[dict[str, Any]] = [_device("cpu", f"CPU, {os.cpu_count()} cores")]
    free = _free_memory() if count("cuda") else {}
    for index in range(count("cuda")):
        about = torch.cuda.get_device_properties(index)
        uuid = f"GPU-{getattr(about, 'uuid', '')}"
        devices.append(_device(f"cuda:{index}", about.name, about.total_memory, free.get(uuid)))
    for name in (f"{kind}:{index}" for kind in ("xpu", "mps") for index in range(count(kind))):
        devices.append(_device(name, title(name), total_memory(name)))
    return {
        "protocol": PROTOCOL_VERSION,
        "package": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "torch": torch.__version__,
        "devices": devices,
        "process": os.getpid(),
    }


def _device(name: str, title: str, memory: int | None = None, free: int | None = None) -> dict[str, Any]:
    return {"name": name, "title": title, "memory_bytes": memory, "free_bytes": free}


def _free_memory() -> dict[str, int]:
    """Bytes by the identifier of each GPU; empty where the driver's program does not tell. To ask PyTorch would take
    some hundred MB of each GPU, also of one that no run will use."""
    command = ["nvidia-smi", "--query-gpu=uuid,memory.free", "--format=csv,noheader,nounits"]
    free = {}
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        output = subprocess.run(command, capture_output=True, text=True, timeout=DRIVER_SECONDS, check=True).stdout
        for line in output.splitlines():
            uuid, mebibytes = line.split(",")
            free[uuid.strip()] = int(mebibytes) * 2**20
    return free


@contextlib.contextmanager
def _warnings_to(tell: Callable[[str], None]) -> Iterator[None]:
    """Pass this library's log warnings (memory that ran out) on while a run lasts."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tell(record.getMessage())

    library, handler = logging.getLogger(protocol.__name__.partition(".")[0]), Handler(logging.WARNING)
    library.addHandler(handler)
    try:
        yield
    finally:
        library.removeHandler(handler)


def main() -> int:
    """Keep the real standard output for the protocol and serve."""
    ask_for_normal_priority()
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # print() and C libraries write to standard error from now on
    sys.stdout = sys.stderr
    server = Server(sys.stdin.buffer, sink)

    def terminated(_number: int, _frame: FrameType | None) -> None:
        server.stop()

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches the client too, which decides
    signal.signal(signal.SIGTERM, terminated)
    return server.serve()


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # torch's own threads may not delay the end
