"""Result of a task: volumes that know where they lie."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..imaging.volume import Volume


@dataclass(frozen=True)
class Result:
    """Result of a task of the front door.

    Attributes:
        volumes: output name -> volume, the main result first; ready for ``write_volume``.
        tables: output name -> rows, one dict each.
        texts: output name -> text.
        facts: figures such as the estimated noise or the number of network evaluations, JSON-ready.
        warnings: sentences about the input, shortages of memory and the result.
        report: the run's settings, model, versions, seconds and memory, JSON-ready.
    """

    volumes: dict[str, Volume]
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def table(self) -> list[dict[str, Any]]:
        """The first table; empty where the task has none."""
        return next(iter(self.tables.values()), [])
