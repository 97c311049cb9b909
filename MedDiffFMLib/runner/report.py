"""JSON report beside every result: enough to reproduce it bit for bit."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterable
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import __version__
from ..core import devices
from ..core.errors import InputError
from ..core.json_files import json_ready
from ..core.notice import NOTICE
from ..core.safe_load import is_there, plain_path, read_json
from ..imaging.volume import Volume, geometry
from ..models.no_model import NoModel
from ..tasks.base import TaskResult
from .load import Here
from .settings import RunSettings

FORMAT = "meddifffm-report-1"
_PRIVATE = "a file"
_PACKAGES = ("torch", "monai", "numpy", "scipy")


class Stopwatch:
    """Seconds and peak memory of one run.

    The peak of main memory is that of the whole process, which in a batch or a warm worker includes earlier runs.
    """

    def __init__(self) -> None:
        self.started = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._start = time.monotonic()
        devices.reset_peak_memory()

    def fields(self) -> dict[str, Any]:
        """The report's ``started``, ``seconds`` and ``peak_memory_bytes``."""
        peak = {"main": peak_main_memory(), **devices.peak_memory()}
        seconds = round(time.monotonic() - self._start, 3)
        return {"started": self.started, "seconds": seconds, "peak_memory_bytes": peak}


def peak_main_memory() -> int | None:
    """Largest resident set of this process in bytes; None where the system does not tell."""
    try:
        # Not getrusage: on Linux its peak begins with that of the process that started this one.
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def software_versions() -> dict[str, str]:
    """This package, Python, and the packages that decide about the numbers."""
    versions = {"meddifffm": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = str(getattr(sys.modules.get(name), "__version__", None) or metadata.version(name))
        except metadata.PackageNotFoundError:
            versions[name] = "missing"
    return versions


def machine(device: str) -> dict[str, Any]:
    """Platform, processor, and the GPU where one was used."""
    facts: dict[str, Any] = {
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
    }
    if device != devices.CPU:
        facts["gpu"] = devices.title(device)
    return facts


def input_record(path: Path, volume: Volume) -> dict[str, Any]:
    """Path, hash and geometry of one input, and the files that were read where it has several."""
    source = volume.source
    assert source is not None  # it was read from there
    files = {"files": source.lines} if len(source.files) > 1 else {}
    return {"path": str(path.resolve()), "sha256": source.sha256, **files, **geometry(volume)}


def run_report(
    settings: RunSettings,
    model: Here,
    result: TaskResult,
    watch: Stopwatch,
    warnings: Iterable[str] = (),
) -> dict[str, Any]:
    """The report of a run, without its files.

    Args:
        warnings: given before the task ran; the task's own are added.
    """
    import torch

    return json_ready(
        {
            "format": FORMAT,
            "notice": NOTICE,
            "settings": settings.as_dict(),
            "model": {"name": model.name, "sha256": model.sha256},
            "device": model.device,
            "precision": model.precision,
            "memory_rung": _memory_level(model),
            "threads": torch.get_num_threads(),
            **watch.fields(),
            "versions": software_versions(),
            "machine": machine(model.device),
            "warnings": list(dict.fromkeys([*warnings, *result.warnings])),
            "facts": result.facts,
            "findings": sum(len(rows) for rows in result.tables.values()),
        }
    )


def _memory_level(model: Here) -> dict[str, int] | None:
    """Windows a call and their edge; None where there is no network."""
    if isinstance(model, NoModel):
        return None
    return {"batch": model.engine.memory_level.batch, "window": model.engine.memory_level.window}


def published(report: dict[str, Any], folder: Path, private: bool = False) -> dict[str, Any]:
    """A report as it is written: files by their way from its folder, so that it can be moved with them and shared.

    Args:
        folder: that the report is written to.
        private: leave out every name of a file that was read or written.
    """
    settings = dict(report["settings"])
    inputs = {name: dict(record) for name, record in report.get("inputs", {}).items()}
    outputs = {name: dict(record) for name, record in report.get("outputs", {}).items()}
    settings["model"] = _way(settings["model"], folder, private)
    settings["parameters"] = {name: _way(value, folder, private) for name, value in settings["parameters"].items()}
    for record in inputs.values():
        if "path" in record:
            record["path"] = _way(record["path"], folder, private)
        if private:
            record.pop("path", None)
            record["files"] = [line.split()[0] for line in record.get("files", [])]
    model, facts = dict(report["model"]), dict(report.get("facts") or {})
    if private:
        for record in outputs.values():
            record.pop("file", None)
        if settings["model"] == _PRIVATE:  # the model is called after its file
            model["name"] = _PRIVATE
        for name, value in settings["parameters"].items():  # so is a ControlNet, a head, a reader
            if value == _PRIVATE and isinstance(facts.get(name), dict):
                facts[name] = {**facts[name], "name": _PRIVATE}
    return {**report, "settings": settings, "model": model, "inputs": inputs, "outputs": outputs, "facts": facts}


def _way(value: Any, folder: Path, private: bool) -> Any:
    """An absolute path as the way from a folder, or its last part where there is none; other values as they are."""
    if not (plain_path(value) and Path(value).is_absolute()):
        return value
    if private:
        return _PRIVATE
    try:
        return Path(os.path.relpath(value, folder.resolve())).as_posix()
    except ValueError:  # on another drive
        return Path(value).as_posix()


def found_again(value: Any, folder: Path) -> Any:
    """A path of a report in ``folder`` as it leads there from here, where there is something; else the value."""
    if plain_path(value) and value and is_there(folder / value):
        return str((folder / value).resolve())
    return value


def was_forced(report: dict[str, Any]) -> bool:
    """Whether values were worked on that do not look like those of their modality."""
    return any(isinstance(record, dict) and record.get("forced") is True for record in report["inputs"].values())


def read_report(path: Path) -> dict[str, Any]:
    """Read a report back.

    Raises:
        InputError: missing, no JSON, or not a report of this format.
    """
    remedy = "Name a report that was written beside a result."
    try:
        report = read_json(path)
    except OSError as problem:
        raise InputError(f"'{path}' cannot be read: {problem.strerror}.", remedy) from None
    except ValueError:
        raise InputError(f"'{path}' is not a JSON file.", remedy) from None
    expected = {"settings": dict, "inputs": dict, "outputs": dict, "model": dict, "versions": dict}
    valid = isinstance(report, dict) and report.get("format") == FORMAT
    if not valid or any(not isinstance(report.get(name), kind) for name, kind in expected.items()):
        raise InputError(f"'{path}' is not a report of this version ({FORMAT}).", remedy)
    return report
