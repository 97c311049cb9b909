"""A worker that speaks the real protocol but halves the voxels instead of asking a network.

The server is the library's own; only the computation and the import of torch are left out. What it does is told by
the parameter ``behave`` of the run.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from MedDiffFMLib import __version__
from MedDiffFMLib.core.progress import ProgressEvent
from MedDiffFMLib.worker import server
from MedDiffFMLib.worker.protocol import PROTOCOL_VERSION

STEPS = 20


class FakeServer(server.Server):
    """Twenty steps of 20 ms."""

    def _compute(self, message: dict[str, Any], cancel: Any, progress: Any) -> dict[str, Any]:
        behave = message["parameters"].get("behave", "")
        if behave == "crash":
            os.abort()
        if behave == "exit":
            print("something is missing", file=sys.stderr, flush=True)
            os._exit(3)
        assert self._folder is not None
        voxels = self._folder.load(message["inputs"]["volume"]["file"])
        for step in range(STEPS):
            if not (behave == "deaf" and step):
                cancel.check()
            progress(ProgressEvent(step / STEPS, "reconstructing", 0.02 * (STEPS - step)))
            time.sleep(60 if behave == "deaf" else 0.02)
        half = voxels.astype("float32") * 0.5
        names = ("inpainted",) if message["task"] == "inpaint" else ("denoised", "noise")
        volumes = {name: {"file": self._folder.save(f"result-{name}.npy", half), "ijk_to_ras": None} for name in names}
        nothing: dict[str, Any] = {"tables": {}, "texts": {}, "facts": {}, "warnings": []}
        return {"volumes": volumes, **nothing, "report": {"device": "cpu"}}


def describe() -> dict[str, Any]:
    gpu = {"name": "cuda:0", "title": "Pretend GPU", "memory_bytes": 8_000_000_000, "free_bytes": 6_500_000_000}
    devices = [{"name": "cpu", "title": "CPU, 2 cores", "memory_bytes": None, "free_bytes": None}, gpu]
    return {
        "protocol": PROTOCOL_VERSION,
        "package": __version__,
        "python": "3.12.0",
        "executable": sys.executable,
        "torch": "2.9.0",
        "devices": devices,
        "process": os.getpid(),
    }


if __name__ == "__main__":
    server.NEEDED = ()  # type: ignore[assignment]
    server.describe_process = describe
    server.Server = FakeServer  # type: ignore[misc]
    code = server.main()
    sys.stderr.flush()
    os._exit(code)
