"""The tasks by name, as functions; each is made when it is first asked for. Types: ``tasks.pyi``."""

from __future__ import annotations

from collections.abc import Callable

from ..tasks.registry import TASKS
from .result import Result
from .task_functions import task_function


def __getattr__(name: str) -> Callable[..., Result]:
    if name not in TASKS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = function = task_function(TASKS[name])
    return function


def __dir__() -> list[str]:
    return list(TASKS)
