"""Tasks as functions with plain keyword parameters, made from the table of tasks.

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
from ..dicom.masks import read_mask
from ..imaging.formats.dicom_structures import structures_file
from ..imaging.modality import CT, WORDS
from ..imaging.volume import Volume, geometry
from ..models.names import DEFAULT_MODEL
from ..runner.case import LoadedCase, checked_case, compute
from ..runner.load import load
from ..runner.outputs import located
from ..runner.report import input_record
from ..runner.settings import RunSettings
from ..tasks.base import Task, TaskResult
from ..tasks.inputs import Need, Scan
from ..tasks.parameters import describe
from .inputs import ModelLike, as_labels, as_model, as_volume
from .result import Result

REQUIRED = inspect.Parameter.empty
WIDTH = 100
"""Columns of a docstring."""
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


def arguments(task: type[Task]) -> list[Argument]:
    """The arguments of a task's function: what it works on and model, its own parameters, then how to run it."""
    source = "What load_model gives, a catalogue name, or a weight file."
    model = Argument("model", "ModelLike", source, DEFAULT_MODEL, False)
    inputs = _inputs(task)
    volume = [row for row in inputs if not row.keyword]
    required = [row for row in inputs if row.keyword and row.default is REQUIRED]
    optional = [row for row in inputs if row.keyword and row.default is not REQUIRED]
    models = [model] if task.needs_model else []
    return [*volume, *models, *required, *_parameters(task), *_run_options(task, optional)]


def _inputs(task: type[Task]) -> list[Argument]:
    """Arguments that the task works on; the volume is given without its name."""
    inputs, source = task.inputs, "a Volume, or the path of a file or DICOM folder."
    kind = WORDS[inputs.modality]
    grid = "whose grid the result takes" if inputs.volume is Need.NONE else f"on the {kind}'s grid"
    place = "of where to work" if inputs.mask is Need.OPTIONAL else "of what to change"
    mask = f"Label map {place}, {grid}: a Volume, an array (k, j, i), or a path."
    volume = f"{kind}{' in HU' if inputs.modality == CT else ''}: {source}"
    label = "Name or number of the one label of the mask to take; all when not given."
    organs = f"Organ labels (TotalSegmentator's, 118 for the body) {grid}."
    rows = [
        *((row.need, replace(_further(row), keyword=False)) for row in inputs.scans if row.first),
        (inputs.volume, Argument("volume", "VolumeLike", volume, None, False)),
        *((row.need, _further(row)) for row in inputs.scans if not row.first),
        *((row.need, Argument(row.name, "str", row.help)) for row in inputs.texts),
        (inputs.mask, Argument("mask", "LabelsLike", mask)),
        (Need.NONE if inputs.mask is Need.NONE else Need.OPTIONAL, Argument("label", "str", label)),
        (inputs.anatomy, Argument("anatomy", "LabelsLike", organs)),
    ]
    return [_needed(row, need) for need, row in rows if need is not Need.NONE]


def _further(row: Scan) -> Argument:
    """A scan besides the one that the task works on, or a label map of it."""
    if row.on:
        return Argument(row.name, "LabelsLike", f"{row.help.rstrip('.')}: a Volume, an array (k, j, i), or a path.")
    return Argument(row.name, "VolumeLike", f"{row.help.rstrip('.')}: a Volume, or the path of a file or DICOM folder.")


def _needed(row: Argument, need: Need) -> Argument:
    if need is Need.REQUIRED:
        return replace(row, default=REQUIRED)
    return replace(row, kind=f"{row.kind} | None")


def _parameters(task: type[Task]) -> list[Argument]:
    """The fields of the task."""
    rows = []
    for field, info in describe(task):
        note = ", ".join(info.choices) or info.limits
        text = f"{info.help.rstrip('.')} ({note})." if note else f"{info.help.rstrip('.')}."
        rows.append(Argument(field.name, str(field.type), text, field.default))
    return rows


def _run_options(task: type[Task], inputs: list[Argument]) -> list[Argument]:
    """Options of every task, those of tasks with a model, and inputs that the task can do without."""
    regions = f"Body region: {', '.join(REGIONS)}, or {NO_REGION} to tell the model nothing; automatic when not given."
    of_model = [
        Argument("seed", "int", "Start of the random numbers: same seed, same result.", 0),
        Argument("region", "str | None", regions),
    ]
    force = Argument("force", "bool", "Work on values that do not look like those of a scan, with a warning.", False)
    return [
        *(of_model if task.needs_model else []),
        *inputs,
        *([force] if task.inputs.volume is not Need.NONE else []),
        Argument("progress", "ProgressCallback | None", "Called with a ProgressEvent after each part of the work."),
        Argument("cancel", "CancelToken | None", "Token whose cancel() ends the run with Cancelled."),
    ]


def task_function(task: type[Task]) -> Callable[..., Result]:
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


def docstring(task: type[Task]) -> str:
    """Text of ``help``: what the task does, each argument with unit, limits and default, the result, the errors."""
    parts = {"volumes": task.volumes(), "tables": task.tables(), "texts": task.texts()}
    names = ", ".join(f'``{part}["{output.name}"]``' for part, outputs in parts.items() for output in outputs)
    rows = [f"{row.name}: {row.sentence}" for row in arguments(task)]
    errors = [f"{name}: {cause}" for name, cause in ERRORS.items()]
    lines = [task.sentence]
    for heading, texts in (("Args", rows), ("Returns", [f"Result with {names}."]), ("Raises", errors)):
        lines += ["", f"{heading}:"]
        for text in texts:
            lines += textwrap.wrap(text, WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 8)
    return "\n".join(lines)


def run(
    task: type[Task],
    *,
    model: ModelLike = DEFAULT_MODEL,
    seed: int = 0,
    region: str | None = None,
    progress: ProgressCallback | None = None,
    cancel: CancelToken | None = None,
    **named: Any,
) -> Result:
    """Check everything, load the model where only its name is given, run the task.

    Args:
        named: inputs, texts and parameters of the task.

    Raises:
        MedDiffFMError: whatever is wrong, before any long work where possible.
    """
    sources = {name: named.pop(name, None) for name in task.inputs.modalities}
    texts = {text.name: named.pop(text.name, None) for text in task.inputs.texts}
    force = bool(named.pop("force", False))
    label = _plain(named.pop("label", None)) if task.inputs.mask is not Need.NONE else None
    chosen = {name: _plain(value) for name, value in named.items()}
    settings = RunSettings(task.name, chosen, _plain(seed), region).checked()
    given = {name: text for name, text in texts.items() if text is not None}
    case = _case(settings.parameters, sources, given, label, force)
    loaded = as_model(model) if task.needs_model else load(settings)
    settings = replace(settings, model=loaded.name, device=loaded.device, precision=loaded.precision)
    return _result(task, *compute(settings, case, loaded, progress, cancel), case.volume)


def _case(task: Task, sources: dict[str, Any], texts: dict[str, str], label: Any, force: bool) -> LoadedCase:
    """The inputs, read where paths are given, and checked."""
    read: dict[str, Volume] = {}
    for name, kind in task.takes.modalities.items():  # the volume first, on whose grid a mask may lie
        if sources[name] is not None:
            is_map = kind == "mask"
            grid = read.get(task.inputs.grid_of(name))
            read[name] = _labels(name, sources, label, grid) if is_map else as_volume(sources[name], kind)
    taken = None if label is None or _structures(sources) is not None else str(label)
    case = checked_case(task.name, read, texts, taken, force, task.takes)
    case.records = {name: _record(sources[name], volume) for name, volume in read.items()}
    if label is not None:
        case.records["mask"]["label"] = str(label)
    return case


def _labels(name: str, sources: dict[str, Any], label: Any, volume: Volume | None) -> Volume:
    """A map; a DICOM segmentation or structure set may be the mask of a scan, of which one structure is taken."""
    structures = _structures(sources) if name == "mask" else None
    if structures is None or volume is None:
        return as_labels(sources[name], volume)
    scan = sources["volume"]
    place = Path(scan) if isinstance(scan, (str, os.PathLike)) else None
    return read_mask(structures, None if label is None else str(label), volume, place)


def _structures(sources: dict[str, Any]) -> Path | None:
    """The mask, where it is a DICOM segmentation or structure set."""
    mask = sources.get("mask")
    return structures_file(Path(mask)) if isinstance(mask, (str, os.PathLike)) else None


def _record(source: Any, volume: Volume) -> dict[str, Any]:
    """Record of an input in the report."""
    if isinstance(source, (str, os.PathLike)):
        return input_record(Path(source), volume)
    return {"source": "memory", **geometry(volume)}


def _plain(value: Any) -> Any:
    """A Python number for one of NumPy, a text for a path; anything else as it is."""
    if isinstance(value, np.generic):
        return value.item()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _result(task: type[Task], computed: TaskResult, report: dict[str, Any], source: Volume | None) -> Result:
    """Arrays as volumes. Label maps alone are unsigned, also those of single structures, since air is near -1000 HU."""
    volumes = {}
    for name, voxels in computed.volumes.items():
        modality = "mask" if voxels.dtype.kind in "bu" else task.output(name).kind.modality
        volumes[name] = replace(located(name, source, computed), modality=modality, synthetic=report["synthetic"])
    return Result(volumes, computed.tables, computed.texts, computed.facts, report["warnings"], report)
