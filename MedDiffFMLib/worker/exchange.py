"""Requests, results, states and callbacks: what a worker session and its owner exchange.

This module needs the standard library only.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..core.errors import MedDiffFMError
from ..core.progress import ProgressEvent
from ..runner.settings import RunSettings


class State(enum.Enum):
    """Life of a worker as its owner sees it."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    RUNNING = "running"
    CANCELLING = "cancelling"
    FAILED = "failed"


@dataclass(frozen=True)
class RunRequest:
    """One run.

    Attributes:
        settings: what the worker computes, and how; it checks them.
        voxels: (k, j, i) array; None for a task that makes a CT.
        ijk_to_ras: 4x4 nested lists or array, mm, of voxels, mask and anatomy; None where there is none.
        mask, anatomy: arrays on the same grid, or None.
        whole: (voxels, ijk_to_ras) of a coarse copy of the scan where ``voxels`` are a piece of it, else None.
        scans: name of a further scan of the task -> (voxels, ijk_to_ras).
        texts: by name.
        beams: name of an X-ray -> where its source stands, RAS mm; empty for parallel rays.
    """

    settings: RunSettings
    voxels: Any = None
    ijk_to_ras: Any = None
    mask: Any = None
    anatomy: Any = None
    whole: Any = None
    scans: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    beams: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def inputs(self) -> dict[str, tuple[Any, Any]]:
        """Name of each input -> (voxels, ijk_to_ras)."""
        named = {"volume": self.voxels, "mask": self.mask, "anatomy": self.anatomy}
        own = {name: (array, self.ijk_to_ras) for name, array in named.items() if array is not None}
        return {**own, **self.scans}


@dataclass(frozen=True)
class WorkerResult:
    """Yield of a run: arrays, tables, texts, facts, warnings, and the report without files.

    Attributes:
        ijk_to_ras: where those arrays lie that are not on the input's grid, by name, nested lists.
    """

    volumes: dict[str, Any]
    tables: dict[str, list[dict[str, Any]]]
    texts: dict[str, str]
    facts: dict[str, Any]
    warnings: list[str]
    report: dict[str, Any]
    ijk_to_ras: dict[str, list[list[float]]] = field(default_factory=dict)


@dataclass
class Callbacks:
    """Calls of the owner, made from within the method that it called."""

    on_state: Callable[[State], None] = lambda _: None
    on_progress: Callable[[ProgressEvent], None] = lambda _: None
    on_warning: Callable[[str], None] = lambda _: None
    on_result: Callable[[WorkerResult], None] = lambda _: None
    on_error: Callable[[MedDiffFMError], None] = lambda _: None
    on_cancelled: Callable[[], None] = lambda: None
    on_log: Callable[[str], None] = lambda _: None
