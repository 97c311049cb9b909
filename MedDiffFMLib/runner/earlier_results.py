"""Files that earlier runs made, known by their reports: they are no cases of a batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.safe_load import read_json
from ..imaging.io import WRITABLE_SUFFIXES
from ..tasks.registry import TASKS
from .outputs import OutputPlan
from .report import FORMAT

_ANY_VERSION = FORMAT.rstrip("0123456789")


def results_in(folder: Path) -> set[str]:
    """Names of the files in a folder that earlier runs made, as the reports and tables beside them say."""
    names: set[str] = set()
    for path in folder.glob("*.json"):
        content: Any = None
        with contextlib.suppress(OSError, ValueError):  # of another program
            content = read_json(path)
        if not isinstance(content, dict) or not isinstance(content.get("notice"), str):
            continue
        if str(content.get("format")).startswith(_ANY_VERSION) and isinstance(content.get("outputs"), dict):
            names.add(path.name)
            names.update(_named_in(content, OutputPlan(folder, path.stem, "")))
        elif path.stem == f"batch_{content.get('task')}":
            names.update((path.name, f"{path.stem}.csv"))
    return names


def _named_in(report: dict[str, Any], plan: OutputPlan) -> Iterator[str]:
    """Files of a report; a private one does not name them, so they are called after the report."""
    for name, record in report["outputs"].items():
        if isinstance(record, dict) and isinstance(record.get("file"), str):
            yield record["file"]
        elif isinstance(report.get("settings"), dict) and report["settings"].get("task") in TASKS:
            for suffix in WRITABLE_SUFFIXES:
                yield replace(plan, suffix=suffix).file(report["settings"]["task"], name).name
