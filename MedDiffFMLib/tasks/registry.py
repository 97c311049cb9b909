"""Tasks by name, in the panel's order; command line, Python, worker, batch and panel are built from this table."""

from __future__ import annotations

import importlib

from .base import Task, View

ROWS = (
    ("anomaly", "Anomaly"),
    ("denoise", "Denoise"),
    ("inpaint", "Inpaint"),
    ("generate_lesion", "GenerateLesion"),
    ("super_resolve", "SuperResolve"),
    ("synthesize", "Synthesize"),
    ("segment", "Segment"),
    ("deblur", "Deblur"),
    ("radiograph", "Radiograph"),
    ("reconstruct", "Reconstruct"),
    ("describe", "Describe"),
    ("find", "Find"),
    ("compare", "Compare"),
    ("translate", "Translate"),
)
"""Folder, and the class in its ``spec.py``."""


def _declared(folder: str, kind: str) -> type[Task]:
    return getattr(importlib.import_module(f"{__package__}.{folder}.spec"), kind)


TASKS: dict[str, type[Task]] = {folder: _declared(folder, kind) for folder, kind in ROWS}


def tasks_shown_as(view: View) -> set[str]:
    """Names of the tasks whose results the panel shows in one way."""
    return {name for name, task in TASKS.items() if task.view is view}
