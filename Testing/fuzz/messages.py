"""Attacks on the two sides of the worker's protocol, and on the arrays that they exchange."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from MedDiffFMLib import __version__
from MedDiffFMLib.runner.settings import RunSettings
from MedDiffFMLib.worker.client import Callbacks, RunRequest, State, WorkerSession, worker_command, worker_environment
from MedDiffFMLib.worker.protocol import PROTOCOL_VERSION, PrivateFolder, ProtocolError, decode, encode

from .limits import limited
from .mutations import changed_bytes, changed_json
from .target import Files, Target
from .volumes import small_ct

HELLO = {"type": "hello", "protocol": PROTOCOL_VERSION, "package": __version__, "python": "3", "torch": "2",
         "executable": "python", "devices": [], "process": 1}  # fmt: skip
RESULT = {
    "type": "result",
    "id": 1,
    "volumes": {"denoised": {"file": "result-0.npy", "ijk_to_ras": None}},
    "tables": {"findings": []},
    "texts": {"text": "x"},
    "facts": {},
    "warnings": ["x"],
    "report": {"device": "cpu"},
}
ANSWERS: tuple[dict[str, Any], ...] = (
    {"type": "progress", "id": 1, "fraction": 0.5, "stage": "reading", "seconds_left": None},
    {"type": "warning", "id": 1, "text": "less memory"},
    RESULT,
    {"type": "cancelled", "id": 1},
    {"type": "pong"},
    {"type": "error", "id": 1, "kind": "input", "cause": "Bad.", "remedy": "Mend.", "exit_code": 2},
)


class ClientMessages(Target):
    """What a broken or foreign worker may say to the program."""

    name, weight = "client", 4

    def make(self, rng: random.Random) -> Files:
        lines = [json.dumps(HELLO).encode()]
        if rng.random() < 0.3:
            lines[0] = changed_json(HELLO, rng)
        for _ in range(rng.randrange(1, 4)):
            lines.append(changed_json(rng.choice(ANSWERS), rng))
        data = b"\n".join(lines) + b"\n"
        return {"spoken": changed_bytes(data, rng) if rng.random() < 0.2 else data}

    def read(self, folder: Path) -> None:
        ct = small_ct()
        session = WorkerSession(lambda _: None, lambda: None, Callbacks())
        session.starting()
        assert session._folder is not None
        private = session._folder.path
        try:
            session.process_started()
            session.run(RunRequest(RunSettings("denoise"), ct.voxels, ct.ijk_to_ras))
            np.save(private / "result-0.npy", ct.voxels)
            data = (folder / "spoken").read_bytes()
            for begin in range(0, len(data), 1 << 16):
                session.feed(data[begin : begin + (1 << 16)])
        finally:
            session.process_finished(1, crashed=False)
        assert session.state in (State.FAILED, State.STOPPED) and not private.exists(), "the private folder is left"


class Arrays(Target):
    """The .npy files in the private folder."""

    name, weight = "array", 3

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.valid = []
        for array in (small_ct().voxels, np.zeros((2, 3)), np.array(["x", None], dtype=object)):
            stream = io.BytesIO()
            np.save(stream, array, allow_pickle=True)
            self.valid.append(stream.getvalue())
        stream = io.BytesIO()
        np.savez(stream, a=np.zeros(3))
        self.valid.append(stream.getvalue())

    def make(self, rng: random.Random) -> Files:
        content = rng.choice((*self.valid, self.valid[0], self.valid[0]))
        return {"meddifffm-x/in.npy": changed_bytes(content, rng, self.valid) if rng.random() < 0.98 else content}

    def read(self, folder: Path) -> None:
        (folder / "meddifffm-x").chmod(0o700)
        private = PrivateFolder.existing(str(folder / "meddifffm-x"))
        for mapped in (False, True):
            array = private.load("in.npy", mapped=mapped)
            assert isinstance(array, np.ndarray) and array.dtype != object, f"it gave {type(array).__name__}"


class ServerMessages(Target):
    """What a broken or hostile program may say to a real worker process."""

    name, weight = "server", 4
    patience = 600.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from .weights import Weights

        self.model = folder / "model" / "tiny.safetensors"
        Weights(self.model.parent)
        self.process: subprocess.Popen | None = None
        self.private: PrivateFolder | None = None
        (folder / "scratch").mkdir(exist_ok=True)
        self.requests: tuple[dict[str, Any], ...] = (
            self._request(),
            self._request(),
            {"type": "cancel", "id": 1},
            {"type": "ping"},
            {"type": "hello", "protocol": PROTOCOL_VERSION, "package": __version__, "folder": "/"},
        )

    def _request(self) -> dict[str, Any]:
        ct = small_ct()
        array = {"file": "in.npy", "ijk_to_ras": ct.ijk_to_ras.tolist()}
        return {
            "type": "run",
            "id": 1,
            "inputs": {"volume": array},
            "texts": {},
            "task": "denoise",
            "parameters": {"noise": 20.0, "steps": 1},
            "seed": 0,
            "region": None,
            "model": str(self.model),
            "device": "cpu",
            "precision": "float32",
            "threads": 1,
        }

    def make(self, rng: random.Random) -> Files:
        return {"said": changed_json(rng.choice(self.requests), rng)}

    def read(self, folder: Path) -> None:
        line = (folder / "said").read_bytes().replace(b"\n", b" ")
        said = None
        with contextlib.suppress(ProtocolError):
            said = decode(line.decode("utf-8", "replace"))
        if said is not None and said["type"] in ("hello", "shutdown"):
            return  # ends the worker, as it should; the tests of the worker look at that
        self._start()
        self._write(line + b"\n")
        if said is not None and said["type"] == "run":
            self._answer(said.get("id"))
        self._write(encode("ping"))
        while self._hear()["type"] != "pong":
            pass
        defects = [path.read_text()[-800:] for path in (self.folder / "scratch").glob("*.log")]
        assert not defects, f"a defect: {defects[0]}"

    def _answer(self, number: Any) -> None:
        """Wait for the end of a run; one that takes long is cancelled."""
        asked = False
        started = time.monotonic()
        while True:
            if not asked and time.monotonic() - started > 1:
                asked = True
                self._write(encode("cancel", id=number))
            message = self._hear(0.2 if not asked else self.patience, may_wait=not asked)
            if message.get("type") in ("result", "error", "cancelled"):
                assert message["type"] != "error" or message["cause"]
                for file in message.get("volumes", {}).values():
                    assert self.private is not None
                    self.private.load(file)
                    self.private.discard(file)
                return

    def _start(self) -> None:
        if self.process is not None and self.process.poll() is None:
            return
        self.close()
        scratch = self.folder / "scratch"
        self.private = PrivateFolder(scratch)
        self.private.save("in.npy", small_ct().voxels)
        program, arguments = worker_command(sys.executable)
        environment = {**worker_environment(os.environ), "TMPDIR": str(scratch), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            limited([program, *arguments]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd=scratch,
            bufsize=0,
        )
        self._lines: list[bytes] = []
        self._rest = b""
        self._write(encode("hello", protocol=PROTOCOL_VERSION, package=__version__, folder=str(self.private.path)))
        assert self._hear()["type"] == "hello"

    def _write(self, data: bytes) -> None:
        assert self.process is not None and self.process.stdin is not None
        try:
            self.process.stdin.write(data)
        except OSError:
            raise AssertionError(f"the worker ended with code {self.process.wait(10)}") from None

    def _hear(self, seconds: float | None = None, may_wait: bool = False) -> dict[str, Any]:
        """The next message; an empty one where ``may_wait`` and none came."""
        assert self.process is not None and self.process.stdout is not None
        limit = time.monotonic() + (seconds or self.patience)
        while not self._lines:
            ready, _, _ = select.select([self.process.stdout], [], [], max(limit - time.monotonic(), 0))
            if not ready:
                if may_wait:
                    return {}
                raise AssertionError(f"the worker is silent for {self.patience:g} s")
            data = os.read(self.process.stdout.fileno(), 1 << 16)
            if not data:
                raise AssertionError(f"the worker ended with code {self.process.wait(10)}")
            *self._lines, self._rest = (self._rest + data).split(b"\n")
        return json.loads(self._lines.pop(0))

    def close(self) -> None:
        for path in (self.folder / "scratch").glob("*.log"):
            path.unlink()
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None
        if self.private is not None:
            self.private.remove()
            self.private = None
