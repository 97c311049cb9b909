"""Settings of a run, declared and checked once for command line, Python, worker, panel, batch and report.

This module needs the standard library only: a client of the worker, which computes nothing, sends these settings.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from ..conditioning.regions import check_region
from ..core.devices import AUTOMATIC
from ..core.errors import InputError
from ..core.json_files import json_ready
from ..core.precision import check_precision
from ..models.names import DEFAULT_MODEL, NO_MODEL
from ..tasks.base import Task
from ..tasks.parameters import from_dict
from ..tasks.registry import TASKS

SEED_LIMIT = 2**63
THREADS_LIMIT = max(256, 4 * (os.cpu_count() or 1))
"""More threads give nothing, and a system that cannot start them ends the program without words. A report of a larger
computer can still be repeated on a small one."""

_TYPES = {"seed": int, "model": str, "device": str, "precision": str}


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """Everything besides the voxels that decides about the numbers of a run.

    Anything may be put in; :meth:`checked` says whether it can be run, and whoever runs it asks.

    Attributes:
        task: name in TASKS.
        parameters: the task itself, or values by name; what is left out has the task's default.
        seed: start of the random numbers: same seed, same result.
        region: one of ``REGION_CHOICES``, None for an automatic guess.
        model: catalogue name or path of a weight file; "none" for a task without one.
        device, precision: as for ``load_model``.
        threads: CPU threads, None for torch's choice.
    """

    task: str
    parameters: Any = dataclasses.field(default_factory=dict)
    seed: int = 0
    region: str | None = None
    model: str = DEFAULT_MODEL
    device: str = AUTOMATIC
    precision: str = AUTOMATIC
    threads: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, as in reports and in messages to the worker."""
        return json_ready(dataclasses.asdict(self))

    def checked(self) -> RunSettings:
        """The same with the task itself as parameters.

        Raises:
            InputError: a value of another type, outside its limits, or unknown.
        """
        if not isinstance(self.task, str) or self.task not in TASKS:
            raise InputError(f"There is no task {self.task!r:.80}.", f"Known are: {', '.join(TASKS)}.")
        for name, kind in _TYPES.items():
            value = getattr(self, name)
            if not isinstance(value, kind) or isinstance(value, bool):
                raise InputError(f"{name} is {value!r:.80}.", f"Give a value of type {kind.__name__}.")
        if not 0 <= self.seed < SEED_LIMIT:
            raise InputError(f"seed is {self.seed}.", "Give 0 or more, below 2^63.")
        check_region(self.region)
        check_precision(self.precision)
        threads = self.threads
        if threads is not None and (type(threads) is not int or not 1 <= threads <= THREADS_LIMIT):
            raise InputError(f"threads is {threads!r:.80}.", f"Give 1 to {THREADS_LIMIT}.")
        return dataclasses.replace(self, parameters=self._checked_parameters(), model=self._checked_model())

    def _checked_model(self) -> str:
        """The model, and none for a task that needs none."""
        if not TASKS[self.task].needs_model:
            return NO_MODEL
        if self.model == NO_MODEL:
            raise InputError(f"{self.task} needs a model.", "Name one that `meddifffm models` lists, or a weight file.")
        return self.model

    def _checked_parameters(self) -> Task:
        """The task with its parameters."""
        kind = TASKS[self.task]
        if isinstance(self.parameters, kind):
            return self.parameters
        if isinstance(self.parameters, Mapping):
            return from_dict(kind, self.parameters)
        raise InputError(f"The parameters are {self.parameters!r:.80}.", "Give values by name.")
