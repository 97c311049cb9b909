"""Implementation in a process of its own, so that its peak memory is its own: JSON lines in, JSON lines out.

python -m MedDiffFMLib.evaluation.speed.subprocess_runner SUBJECT SETTINGS_AS_JSON
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core import devices
from ...core.errors import MedDiffFMError
from .cases import Case

if TYPE_CHECKING:
    from .implementations import Settings

LAST_WORDS = 300


class Child:
    """The parent's side: starts a subject, asks it, and starts it anew after a failure.

    Raises:
        MedDiffFMError: the subject cannot be set up.
    """

    def __init__(self, name: str, settings: Settings) -> None:
        self.name, self.settings = name, settings
        self._process: subprocess.Popen[str] | None = None
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self.about: dict[str, Any] = {}

    def measure(self, case: Case) -> dict[str, Any]:
        """Figures of one run, or ``{"failed": why}``."""
        if self._process is None:
            self._start()
        return self._ask(case.as_dict())

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _start(self) -> None:
        package = Path(__file__).resolve().parents[3]
        paths = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, self.name, json.dumps(asdict(self.settings))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        self.about = self._answer()
        if "failed" in self.about:
            raise MedDiffFMError(f"{self.name} cannot be measured: {self.about['failed']}", "See what it says.")

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process is not None and self._process.stdin is not None
        print(json.dumps(question), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process is not None and self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        code = self._process.wait()
        self.close()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        killed = "The process was killed, most likely for want of memory."
        return {"failed": killed if code < 0 or not lines else lines[-1][:LAST_WORDS]}


def main() -> None:
    """The child's side."""
    from ...runner.report import peak_main_memory
    from .implementations import Settings, make_subject

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not be taken for an answer

    def answer(value: dict[str, Any]) -> None:
        print(json.dumps(value), file=answers, flush=True)

    try:
        subject = make_subject(sys.argv[1], Settings(**json.loads(sys.argv[2])))
    except Exception as problem:
        answer({"failed": str(problem)[:LAST_WORDS]})
        return
    answer(subject.about())
    for line in sys.stdin:
        _forget_peaks()
        before = peak_main_memory() or 0
        try:
            figures = subject.measure(Case(**json.loads(line)))
            answer(figures | {"peak_bytes": peak_main_memory(), "before_bytes": before, **_device_peak()})
        except Exception as problem:
            answer({"failed": f"{type(problem).__name__}: {problem}"[:LAST_WORDS]})


def _forget_peaks() -> None:
    """Begin the peaks of memory anew, as far as the system can."""
    with contextlib.suppress(OSError):  # not Linux: the peak of the whole process is told
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    devices.reset_peak_memory()


def _device_peak() -> dict[str, int]:
    """Peak of the accelerators; the figure has CUDA's name since the first reports."""
    peaks = devices.peak_memory()
    return {"cuda_peak_bytes": max(peaks.values())} if peaks else {}


if __name__ == "__main__":
    main()
