"""Tasks as functions with plain keyword parameters, made from the table of tasks and its parameter dataclasses.

Default, limits, unit and explanation of a parameter stand in ``tasks/<task>/spec.py`` and nowhere else: signature,
docstring and the stub for type checkers are made from there.
"""

from __future__ import annotations

import inspect
import os
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..conditioning.regions import NO_REGION, REGIONS
from ..core.errors import InputError
from ..core.progress import CancelToken, ProgressCallback
from ..imaging.volume import Volume, geometry
from ..runner.case import LoadedCase, checked_case, compute
from ..runner.outputs import located
from ..runner.report import input_record
from ..runner.settings import DEFAULT_MODEL, RunSettings
from ..tasks.parameters import describe
from ..tasks.registry import Task, TaskResult
from .inputs import LabelsLike, ModelLike, VolumeLike, as_labels, as_model, as_volume
from .result import Result

REQUIRED = inspect.Parameter.empty
WIDTH = 100
"""Columns of a docstring."""
ON_GRID = "on the CT's grid: a Volume, an array (k, j, i), or a path."
ERRORS = {
    "InputError": "an input, a parameter, or a combination of them cannot be used.",
    "ModelError": "there is no such model, or it cannot do this task.",
    "DeviceError": "the device is absent, or has too little memory even after every fallback.",
    "Cancelled": "``cancel`` was used.",
}


@dataclass(frozen=True)
class Argument:
    """One argument of a task function.

    Attributes:
        kind: type, as it is written in the stub.
        text: explanation, without the default.
        default: ``REQUIRED`` where it must be given.
        keyword: whether it is given by name only.
    """

    name: str
    kind: str
    text: str
    default: Any = None
    keyword: bool = True

    @property
    def sentence(self) -> str:
        """Explanation with the default."""
        return self.text if self.default in (REQUIRED, None) else f"{self.text} Default: {self.default}."


def arguments(task: Task) -> list[Argument]:
    """The arguments of a task's function: volume and model, its own parameters, then how to run it."""
    volume = Argument(
        "volume", "VolumeLike", "CT in HU: a Volume, or the path of a file or DICOM folder.", REQUIRED, False
    )
    source = "What load_model gives, a catalogue name, or a weight file."
    model = Argument("model", "ModelLike", source, DEFAULT_MODEL, False)
    mask = Argument("mask", "LabelsLike", f"Label map of what to change, {ON_GRID}", REQUIRED)
    first = [*([volume] if task.needs_volume else []), model, *([mask] if task.needs_mask else [])]
    return [*first, *_parameters(task), *_run_options(task)]


def _parameters(task: Task) -> list[Argument]:
    """The fields of the task's dataclass."""
    found = []
    for field, info in describe(task.parameter_class()):
        note = ", ".join(info.choices) or info.limits
        text = f"{info.help.rstrip('.')} ({note})." if note else f"{info.help.rstrip('.')}."
        found.append(Argument(field.name, str(field.type), text, field.default))
    return found


def _run_options(task: Task) -> list[Argument]:
    """What every task takes, and a mask where the task can do without but has use for one."""
    regions = f"Body region: {', '.join(REGIONS)}, or {NO_REGION} to tell the model nothing; automatic when not given."
    where = "on the CT's grid" if task.needs_volume else "whose grid the result takes"
    options = [
        Argument("seed", "int", "Start of the random numbers: same seed, same result.", 0),
        Argument("region", "str | None", regions),
        Argument("anatomy", "LabelsLike | None", f"Organ labels (TotalSegmentator's, 118 for the body) {where}."),
        Argument("progress", "ProgressCallback | None", "Called with a ProgressEvent after each part of the work."),
        Argument("cancel", "CancelToken | None", "Token whose cancel() ends the run with Cancelled."),
    ]
    if task.takes_mask:
        options.insert(2, Argument("mask", "LabelsLike | None", f"Label map of where to work, {ON_GRID}"))
    return options


def task_function(task: Task) -> Callable[..., Result]:
    """The function of the front door for a row of the table."""
    kind = inspect.Parameter
    signature = inspect.Signature(
        [
            kind(row.name, kind.KEYWORD_ONLY if row.keyword else kind.POSITIONAL_OR_KEYWORD, default=row.default)
            for row in arguments(task)
        ]
    )

    def function(*positional: Any, **keywords: Any) -> Result:
        return run(task, **_bound(task.name, signature, positional, keywords))

    function.__name__ = function.__qualname__ = task.name
    function.__module__ = "MedDiffFMLib"
    function.__doc__ = docstring(task)
    function.__signature__ = signature  # type: ignore[attr-defined]
    return function


def _bound(name: str, signature: inspect.Signature, positional: tuple, keywords: dict[str, Any]) -> dict[str, Any]:
    """Argument name -> value, of what was given."""
    unknown = [keyword for keyword in keywords if keyword not in signature.parameters]
    if unknown:
        raise InputError(f"{name} has no parameter {unknown[0]!r}.", f"Known are: {', '.join(signature.parameters)}.")
    try:
        return signature.bind(*positional, **keywords).arguments
    except TypeError as error:  # one is missing, or there are too many without a name
        raise InputError(f"{name}: {error}.", f"Call it as {name}{signature}.") from None


def docstring(task: Task) -> str:
    """What ``help`` shows: what the task does, each argument with unit, limits and default, the result, the errors."""
    names = ", ".join(f'``volumes["{name}"]``' for name in task.output_names)
    table = ", and a ``table`` of findings" if task.findings else ""
    rows = [f"{row.name}: {row.sentence}" for row in arguments(task)]
    errors = [f"{name}: {cause}" for name, cause in ERRORS.items()]
    parts = {"Args": rows, "Returns": [f"Result with {names}{table}."], "Raises": errors}
    lines = [task.sentence]
    for heading, texts in parts.items():
        lines += ["", f"{heading}:"]
        for text in texts:
            lines += textwrap.wrap(text, WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 8)
    return "\n".join(lines)


def run(
    task: Task,
    *,
    volume: VolumeLike | None = None,
    model: ModelLike = DEFAULT_MODEL,
    seed: int = 0,
    region: str | None = None,
    mask: LabelsLike | None = None,
    anatomy: LabelsLike | None = None,
    progress: ProgressCallback | None = None,
    cancel: CancelToken | None = None,
    **parameters: Any,
) -> Result:
    """Check everything, load the model where only its name is given, run the task.

    Raises:
        MedDiffFMError: whatever is wrong, before any long work where possible.
    """
    chosen = {name: _plain(value) for name, value in parameters.items()}
    settings = RunSettings(task.name, chosen, _plain(seed), region).checked()
    case = _case(task, volume, mask, anatomy)
    loaded = as_model(model)
    settings = replace(settings, model=loaded.name, device=loaded.device, precision=loaded.engine.precision)
    return _result(*compute(settings, case, loaded, progress, cancel), case.volume)


def _case(task: Task, volume: Any, mask: Any, anatomy: Any) -> LoadedCase:
    """The inputs, read where paths are given, and checked."""
    source = None if volume is None else as_volume(volume)
    read = {"volume": source, "mask": as_labels(mask, source), "anatomy": as_labels(anatomy, source)}
    case = checked_case(task.name, **read)
    given = {"volume": volume, "mask": mask, "anatomy": anatomy}
    case.records = {name: _record(given[name], found) for name, found in read.items() if found is not None}
    return case


def _record(given: Any, volume: Volume) -> dict[str, Any]:
    """What the report says about an input."""
    if isinstance(given, (str, os.PathLike)):
        return input_record(Path(given), volume)
    return {"source": "memory", **geometry(volume)}


def _plain(value: Any) -> Any:
    """A Python number for one of NumPy, a text for a path; anything else as it is."""
    if isinstance(value, np.generic):
        return value.item()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _result(computed: TaskResult, report: dict[str, Any], source: Volume | None) -> Result:
    """Arrays as volumes. Label maps are marked as such: they alone are unsigned, since air is near -1000 HU in a CT."""
    volumes = {}
    for name, voxels in computed.volumes.items():
        modality = "mask" if voxels.dtype.kind in "bu" else "CT"
        volumes[name] = replace(located(voxels, source, computed), modality=modality, synthetic=report["synthetic"])
    return Result(volumes, computed.table, computed.facts, report["warnings"], report)
