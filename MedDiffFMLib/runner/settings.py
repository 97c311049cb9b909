"""Settings of a run, declared and checked once for command line, Python, worker, panel, batch and report.

This module needs the standard library only: a client of the worker, which computes nothing, sends these settings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..conditioning.regions import check_region
from ..core.errors import InputError
from ..core.json_files import json_ready
from ..tasks.base import Task
from ..tasks.parameters import from_dict
from ..tasks.registry import TASKS

DEFAULT_MODEL = "starter-ct"
AUTOMATIC = "auto"
"""Device and precision are chosen by what the computer has."""
PRECISIONS = (AUTOMATIC, "float32", "bfloat16")
SEED_LIMIT = 2**63
THREADS_LIMIT = 4096

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
        model: catalogue name or path of a weight file.
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
        threads = self.threads
        if threads is not None and (type(threads) is not int or not 1 <= threads <= THREADS_LIMIT):
            raise InputError(f"threads is {threads!r:.80}.", "Give 1 or more.")
        return dataclasses.replace(self, parameters=self._checked_parameters())

    def _checked_parameters(self) -> Task:
        """The task with its parameters."""
        kind = TASKS[self.task]
        if isinstance(self.parameters, kind):
            return self.parameters
        if isinstance(self.parameters, Mapping):
            return from_dict(kind, self.parameters)
        raise InputError(f"The parameters are {self.parameters!r:.80}.", "Give values by name.")
