"""Reproduce a reported run and compare the bits."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.atomic_files import owned_name, sweep
from ..core.errors import InputError, ModelError
from ..core.progress import CancelToken, ProgressCallback
from ..core.safe_load import is_there, plain_path
from ..imaging.io import WRITABLE_SUFFIXES, source_of
from ..models.no_model import NoModel
from ..tasks.inputs import REQUIRED
from ..tasks.registry import TASKS
from .case import run_case
from .case_files import CaseFiles
from .load import Here, load
from .outputs import OutputPlan
from .report import found_again, read_report, software_versions, was_forced
from .settings import RunSettings


def repeat(
    path: Path,
    *,
    progress: ProgressCallback | None = None,
    cancel: CancelToken | None = None,
) -> dict[str, Any]:
    """Run what a report describes, on the same device with the same precision and threads.

    Returns:
        ``identical``; ``outputs``: for each its ``expected`` and ``found`` SHA-256; ``versions_changed``: package ->
        version then and now.

    Raises:
        InputError: no usable report, or an input changed.
        ModelError: the weights are not those of the report.
    """
    report = read_report(path)
    settings, case = _settings(report, path.parent), _case(report, path.parent)
    expected = _expected(report)
    files = [str(record.get("file")) for record in report["outputs"].values()]
    suffix = next((known for file in files for known in WRITABLE_SUFFIXES if file.endswith(known)), ".nrrd")
    sweep(tempfile.gettempdir())
    with tempfile.TemporaryDirectory(prefix=f"meddifffm-{owned_name()}-") as folder:
        plan = OutputPlan(Path(folder), path.stem, suffix)
        again = run_case(settings, case, plan, lambda: _same_model(report, settings), progress=progress, cancel=cancel)
    found = {name: record["sha256"] for name, record in again["outputs"].items()}
    now = software_versions()
    return {
        "identical": expected == found,
        "outputs": {name: {"expected": expected.get(name), "found": found.get(name)} for name in {**expected, **found}},
        "versions_changed": {
            name: [before, now.get(name)] for name, before in report["versions"].items() if now.get(name) != before
        },
    }


def _expected(report: dict[str, Any]) -> dict[str, str]:
    """SHA-256 of each output, by name."""
    outputs = report["outputs"]
    if not all(isinstance(record, dict) and isinstance(record.get("sha256"), str) for record in outputs.values()):
        raise InputError("The report's outputs cannot be read.", "It may come from another version.")
    return {name: record["sha256"] for name, record in outputs.items()}


def _settings(report: dict[str, Any], folder: Path) -> RunSettings:
    """The settings with what "auto" became then."""
    try:
        given = report["settings"]
        used = {name: report[name] for name in ("device", "precision", "threads")}
        names = ("task", "parameters", "seed", "region", "model")
        chosen = {name: given[name] for name in names}
        chosen["parameters"] = {name: found_again(value, folder) for name, value in given["parameters"].items()}
        chosen["model"] = (
            found_again(given["model"], folder) if given["model"].endswith(".safetensors") else given["model"]
        )
        return RunSettings(**chosen, **used).checked()
    except (KeyError, TypeError, AttributeError) as problem:
        raise InputError(f"The report is incomplete ({problem}).", "It may come from another version.") from None


def _case(report: dict[str, Any], folder: Path) -> CaseFiles:
    """The inputs, if they are still the same."""
    paths: dict[str, Path] = {}
    for name, record in report["inputs"].items():
        if not isinstance(record, dict) or not plain_path(record.get("path")):
            if isinstance(record, dict) and record.get("sha256"):
                raise InputError(f"The report is private: it does not name its {name}.", "Run the task on it again.")
            raise InputError(f"The report's {name} was not a file.", "Save it as a file and run the task on that.")
        paths[name] = Path(os.path.normpath(folder.resolve() / record["path"]))
        if not is_there(paths[name]):
            raise InputError(f"The {name} '{paths[name]}' is gone.", "Put it back where it was.")
        if source_of(paths[name]).sha256 != record.get("sha256"):
            raise InputError(f"The {name} '{paths[name]}' was changed since the report.", "Put the original back.")
    volume, mask, anatomy = (paths.pop(name, None) for name in ("volume", "mask", "anatomy"))
    if volume is None and TASKS[report["settings"]["task"]].inputs.volume is REQUIRED:
        raise InputError("The report names no volume.", "It may come from another version.")
    texts = report.get("texts", {})
    if not isinstance(texts, dict):
        raise InputError("The report's texts cannot be read.", "It may come from another version.")
    label = report["inputs"].get("mask", {}).get("label")
    if not isinstance(label, str | None):
        raise InputError("The report's label cannot be read.", "It may come from another version.")
    return CaseFiles(volume, mask, anatomy, paths, texts, label=label, force=was_forced(report))


def _same_model(report: dict[str, Any], settings: RunSettings) -> Here:
    model = load(settings)
    if model.sha256 != report["model"].get("sha256"):
        raise ModelError(f"The weights of {settings.model} are not those of the report.", "Put the original file back.")
    memory_level = report.get("memory_rung")
    if memory_level and not isinstance(model, NoModel):  # smaller windows, after memory ran out, give other bits
        model.engine.memory_level = replace(
            model.engine.memory_level, batch=memory_level["batch"], window=memory_level["window"]
        )
    return model
