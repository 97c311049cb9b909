"""Ways in which an evaluation runs the model: as it is, with the noise given, as a variant, at points of a curve."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core.errors import InputError
from ...core.progress import CancelToken
from ...imaging.volume import Volume
from ...tasks.base import Case, Run, Task
from ...tasks.registry import TASKS
from .added_noise import NoisyPart
from .modalities import MODALITY_PROTOCOLS
from .parameter_sweep import Curve
from .protocols import Answer, Method
from .synthesis import TASK as SYNTHESIZE
from .synthesis import Generator
from .variants import Variant
from .window_seams import Borders, window_borders

OUTPUTS = {"denoise": "denoised", "inpaint": "inpainted", "anomaly": "anomaly", SYNTHESIZE: "synthetic"}
"""Which volume of a task's result is scored."""
EVALUATED: dict[str, dict[str, Any]] = {"inpaint": {"feather": 0.0, "margin": 0.0}, "denoise": {"prior": True}}
"""Defaults that differ in an evaluation: a healthy sphere has no rim to keep away from, nothing to blend with; and it
is the model that is asked, not the small denoiser that every model has beside it."""
LISTING = ("threshold", "minimum_volume", "at_most")
"""Parameters of a task that say what its list holds."""


@dataclass(frozen=True)
class Candidate:
    """One way to run the model.

    Attributes:
        name: method name of its rows.
        run: a :data:`.protocols.Method`, or a :data:`.synthesis.Generator`.
        curve: name of the curve that it is a point of; empty for the model as it is evaluated.
        key: everything that its answers depend on beside the case.
    """

    task: str
    name: str
    run: Callable[..., Any]
    curve: str = ""
    key: tuple[Any, ...] = ()


def candidates_of(
    model: Any,
    tasks: Sequence[str],
    curves: Sequence[Curve],
    variants: Sequence[Variant],
    parameters: dict[str, dict[str, Any]],
    seed: int,
    cancel: CancelToken | None,
) -> list[Candidate]:
    """Every way in which the model is to be run; none without a model. All parameters are checked.

    Raises:
        InputError: a task that is not evaluated, or parameters that it does not have.
    """
    for task in tasks:
        if task not in (*OUTPUTS, *MODALITY_PROTOCOLS):
            raise InputError(
                f"There is no evaluation of {task!r}.", f"Choose from: {', '.join((*OUTPUTS, *MODALITY_PROTOCOLS))}."
            )
    if model is None:
        return []

    def candidate(task: str, name: str, changed: dict[str, Any], curve: str = "", told: bool = False) -> Candidate:
        fields = settings_of(task, parameters.get(task, {})) | changed
        checked = _checked(task, fields)
        key = (model.sha256, sorted(fields.items()), seed, told)
        if task == SYNTHESIZE:
            return Candidate(task, name, _generator(model, checked, cancel), curve, key)
        return Candidate(task, name, _method(model, checked, seed, cancel, told), curve, key)

    plain = [candidate(task, model.name, {}) for task in tasks if task in OUTPUTS]
    if "denoise" in tasks and _has(TASKS["denoise"], "noise"):
        plain.append(candidate("denoise", f"{model.name}, level told", {}, told=True))
    others = [candidate(v.task, f"{model.name}, {v.label}", v.fields) for v in variants if v.task in tasks]
    points = [candidate(c.task, c.label(v), c.settings(v), c.name) for c in curves for v in c.values]
    return plain + others + points


def _has(parameters: type, field: str) -> bool:
    return field in {one.name for one in dataclasses.fields(parameters)}


def settings_of(task: str, values: dict[str, Any]) -> dict[str, Any]:
    """The evaluation's own defaults, where the task has such fields, and over them what the user gave."""
    known = TASKS[task]
    return {name: value for name, value in EVALUATED.get(task, {}).items() if _has(known, name)} | values


def _checked(task: str, fields: dict[str, Any]) -> Task:
    """The task with these parameters.

    Raises:
        InputError: a field that the task does not have, or a value out of range.
    """
    try:
        return TASKS[task](**fields)
    except TypeError as error:
        raise InputError(f"{task} does not take these parameters: {fields}.", str(error)) from error


def _method(model: Any, task: Any, seed: int, cancel: CancelToken | None, told: bool = False) -> Method:
    """A task as a method of its protocol; ``told``: denoising that knows the level, where the question tells it."""
    from ...tasks.denoise.coarse_to_fine import OVERLAP as DENOISE_OVERLAP

    def method(volume: Volume, extra: np.ndarray | NoisyPart | None = None) -> Answer | None:
        settings = task
        if told:
            assert isinstance(extra, NoisyPart)
            if not extra.tell:
                return None
            settings = dataclasses.replace(task, noise=extra.told)
        mask = extra if isinstance(extra, np.ndarray) else None
        result = settings.run(Case(volume, mask), Run(model, seed, cancel=cancel))
        voxels = result.volumes[OUTPUTS[task.name]]
        # On a grid of its own a task's windows end elsewhere, and interpolation hides where. The small denoiser's
        # windows see all around them that counts.
        by_prior = getattr(task, "prior", False) or getattr(task, "steps", 0) > 0
        own_voxels = task.name == "denoise" and by_prior and getattr(task, "spacing", None) is None
        borders = _borders(model, voxels.shape, DENOISE_OVERLAP) if own_voxels else None
        listing = {name: getattr(task, name) for name in LISTING if hasattr(task, name)}
        return Answer(voxels, result.facts.get("network_evaluations"), borders, result.facts | listing)

    return method


def _generator(model: Any, task: Task, cancel: CancelToken | None) -> Generator:
    """The task that makes CTs."""
    from ...inference.sliding_window import OVERLAP

    def generate(region: str, seed: int) -> tuple[Volume, Answer]:
        result = task.run(Case(), Run(model, seed, region, cancel=cancel))
        voxels = result.volumes[OUTPUTS[SYNTHESIZE]]
        answer = Answer(voxels, result.facts.get("network_evaluations"), _borders(model, voxels.shape, OVERLAP))
        return Volume(voxels, result.ijk_to_ras[OUTPUTS[SYNTHESIZE]]), answer

    return generate


def _borders(model: Any, shape: tuple[int, ...], overlap: int) -> Borders | None:
    """Borders of the windows of the last network calls, those on the result's own voxels."""
    engine = getattr(model, "engine", None)
    if engine is None:
        return None
    return window_borders(shape, engine.memory_level.window, overlap, engine.divisor)  # type: ignore[arg-type]
