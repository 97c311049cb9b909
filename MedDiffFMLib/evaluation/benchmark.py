"""The evaluation anyone can repeat: one call, the same cases and questions for the model and the baselines."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic import atomic_path
from ..errors import InputError
from ..inference.control import CancelToken
from ..tasks.parameters import check
from ..tasks.registry import TASKS
from ..volume import Volume
from . import baselines
from .cases import Case, LoadedCase, load_case
from .degradations import Plan, fingerprint
from .protocols import PROTOCOLS, Method, Row, baseline_methods
from .tables import markdown, summary

OUTPUTS = {"denoise": "denoised", "inpaint": "inpainted", "anomaly": "anomaly"}
"""Which volume of a task's result is scored."""
QUICK_CASES = 2
EVALUATED = {"inpaint": {"feather": 0.0, "margin": 0.0}}
"""Defaults that differ in an evaluation: a healthy sphere has no rim to keep away from, nothing to blend with."""


def evaluate(model: Any, cases: Sequence[Case], tasks: Sequence[str] = tuple(PROTOCOLS),
             out_folder: str | Path = "evaluation", quick: bool = False, *, plan: Plan | None = None,
             parameters: dict[str, dict[str, Any]] | None = None, cache: str | Path | None = None, seed: int = 0,
             progress: Callable[[str], None] | None = None,
             cancel: CancelToken | None = None) -> dict[str, Any]:  # fmt: skip
    """Evaluate a model beside the baselines and write ``evaluation.md`` and ``evaluation.json``.

    Args:
        model: what ``load_model`` returns; None for the baselines alone.
        cases: see :func:`.cases.read_cases`. They must not have been trained on.
        tasks: any of "denoise", "inpaint", "anomaly".
        out_folder: both files are written after every case, so that an interrupted run leaves what it has.
        quick: two cases, thinner slabs: to see that it works, not to report.
        plan: how cases are degraded.
        parameters: task -> fields of its parameter dataclass that differ from the defaults.
        cache: folder for degraded cases and the baselines' figures, used again by the next model; None to keep nothing.
        seed: of the model's sampling.
        progress: receives a line of text now and then.

    Returns:
        what is in ``evaluation.json``.

    Raises:
        InputError: unknown task, parameter out of range, unreadable case.
    """
    chosen = {task: _settings(task, (parameters or {}).get(task, {})) for task in tasks if task in PROTOCOLS}
    tell = progress or (lambda line: None)
    plan = plan or Plan()
    if quick:
        plan, cases = plan.quick(), list(cases)[:QUICK_CASES]
    name = None if model is None else model.name
    runners = model_methods(model, tasks, chosen, seed, cancel)
    cache = None if cache is None else Path(cache)
    rows: list[Row] = []
    report: dict[str, Any] = {}
    for number, case in enumerate(cases, start=1):
        loaded = load_case(case, plan.slab_mm)
        for task in tasks:
            tell(f"case {number} of {len(cases)}, {case.name}: {task}")
            rows += baseline_rows(task, loaded, plan, cache)
            if task in runners:
                rows += PROTOCOLS[task](loaded, plan, cache, {name: runners[task]})
        report = {
            "model": _model_record(model), "seed": seed, "parameters": chosen, "quick": quick,
            "plan": dataclasses.asdict(plan), "tables": summary(rows, name),
            "rows": [dataclasses.asdict(row) for row in rows],
        }  # fmt: skip
        write_report(report, Path(out_folder))
    return report


def baseline_rows(task: str, loaded: LoadedCase, plan: Plan, cache: Path | None) -> list[Row]:
    """The baselines' rows of one case, from the cache when nothing they depend on has changed."""
    file = None
    if cache is not None:
        constants = {k: v for k, v in vars(baselines).items() if k.isupper()}
        key = hashlib.sha256(repr((fingerprint(loaded, plan), sorted(constants.items()))).encode()).hexdigest()[:12]
        file = cache / f"{loaded.case.name}-{task}-baselines-{key}.json"
        if file.is_file():
            return [Row(**row) for row in json.loads(file.read_text(encoding="utf-8"))]
    rows = PROTOCOLS[task](loaded, plan, cache, baseline_methods(task, loaded, plan, cache))
    if file is not None:
        _write(file, json.dumps([dataclasses.asdict(row) for row in rows]))
    return rows


def model_methods(model: Any, tasks: Sequence[str], parameters: dict[str, dict[str, Any]], seed: int,
                  cancel: CancelToken | None) -> dict[str, Method]:  # fmt: skip
    """The model's answer to each task; empty without a model.

    Raises:
        InputError: a task that is not evaluated, or parameters that it does not have.
    """
    for task in tasks:
        if task not in PROTOCOLS:
            raise InputError(f"There is no evaluation of {task!r}.", f"Choose from: {', '.join(PROTOCOLS)}.")
    if model is None:
        return {}
    return {task: _model_method(model, task, parameters.get(task, {}), seed, cancel) for task in tasks}


def _settings(task: str, given: dict[str, Any]) -> dict[str, Any]:
    """The evaluation's own defaults, where the task has such fields, and over them what the user gave."""
    known = {field.name for field in dataclasses.fields(TASKS[task].parameter_class())}
    return {name: value for name, value in EVALUATED.get(task, {}).items() if name in known} | given


def _model_method(model: Any, task: str, fields: dict[str, Any], seed: int, cancel: CancelToken | None) -> Method:
    try:
        chosen = TASKS[task].parameter_class()(**fields)
    except TypeError as error:
        raise InputError(f"{task} does not take these parameters: {fields}.", str(error)) from error
    check(chosen)
    run = TASKS[task].run()

    def method(volume: Volume, mask: np.ndarray | None = None) -> np.ndarray:
        result = run(volume, model, chosen, mask=mask, seed=seed, cancel=cancel)
        return result.volumes[OUTPUTS[task]]

    return method


def write_report(report: dict[str, Any], folder: Path) -> None:
    """``evaluation.json`` and ``evaluation.md``, replaced whole."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "evaluation.json", json.dumps(_finite(report), indent=1))
    _write(folder / "evaluation.md", markdown(report))


def _model_record(model: Any) -> dict[str, Any] | None:
    if model is None:
        return None
    return {"name": model.name, "sha256": model.sha256, "device": str(model.device)}


def _finite(value: Any) -> Any:
    """NaN and infinity as null, which JSON has no numbers for."""
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _write(file: Path, text: str) -> None:
    with atomic_path(file, overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
