"""Compare with an earlier report and check that the baselines are unchanged."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import InputError
from .paired_tests import difference
from .protocols import Row

TOLERANCE = 1e-6
"""Relative difference up to which a baseline's figure counts as the same; other machines round otherwise."""


def read_report(path: str | Path) -> dict[str, Any]:
    """An ``evaluation.json`` of this or an earlier version.

    Raises:
        InputError: unreadable, or no evaluation.
    """
    path = Path(path)
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}).", "Give an earlier evaluation.json.") from error
    if not isinstance(report, dict) or not isinstance(report.get("rows"), list) or "plan" not in report:
        raise InputError(f"{path} is no evaluation.", "Give an evaluation.json that `meddifffm evaluate` wrote.")
    return report


def rows_of(report: dict[str, Any]) -> list[Row]:
    """A report's rows; fields that this version does not know are left out, null becomes NaN."""
    known = {field.name for field in dataclasses.fields(Row)}
    rows = []
    for record in report["rows"]:
        fields = {name: value for name, value in record.items() if name in known}
        fields["values"] = {n: float("nan") if v is None else float(v) for n, v in record["values"].items()}
        rows.append(Row(**fields))
    return rows


def compare(
    rows: Sequence[Row], model: str, plan: dict[str, Any], before: dict[str, Any], higher: dict[tuple[str, str], bool]
) -> dict[str, Any]:
    """The model of this evaluation against that of an earlier one, case by case.

    Args:
        rows, model, plan: of the new evaluation.
        before: what :func:`read_report` returned.
        higher: (task, figure) -> whether higher is better; other figures are left out.

    Returns:
        JSON-ready: ``before`` (the earlier model), ``warnings`` (why figures may not be comparable), ``differences``
        (one a task, group, figure and ``variant`` of the model, with paired interval) and their ``cases``.

    Raises:
        InputError: the earlier evaluation was of the baselines alone.
    """
    if before.get("model") is None:
        raise InputError("The earlier evaluation holds no model, only baselines.", "Compare with one of a model.")
    old_rows, old_model = rows_of(before), before["model"]["name"]
    differences = []
    variants = dict.fromkeys(row.method.removeprefix(model) for row in rows if of_model(row.method, model))
    for (task, figure), is_higher in higher.items():
        groups = dict.fromkeys(row.group for row in rows if row.task == task)
        for group, variant in itertools.product(groups, sorted(variants, key=bool)):
            new = _part(rows, task, group, model + variant)
            old = _part(old_rows, task, group, old_model + variant)
            change = difference(new, old, figure, is_higher)
            if change.cases:
                differences.append(
                    {
                        "task": task,
                        "group": group,
                        "figure": figure,
                        "variant": variant.removeprefix(", "),
                        **dataclasses.asdict(change),
                        "verdict": change.word,
                        "values": _case_by_case(new, old, figure),
                    }
                )
    warnings = _other_plan(plan, before["plan"]) + _other_yardstick(rows, model, old_rows, old_model)
    return {"before": before["model"], "warnings": warnings, "differences": differences}


def of_model(method: str, model: str) -> bool:
    """Is a method the model, as it is or as a variant?"""
    return method == model or method.startswith(f"{model}, ")


def _part(rows: Sequence[Row], task: str, group: str, method: str) -> list[Row]:
    return [row for row in rows if (row.task, row.group, row.method) == (task, group, method)]


def _case_by_case(new: list[Row], earlier: list[Row], figure: str) -> dict[str, tuple[float, float]]:
    """Case -> figure before, figure now."""
    old = {row.case: row.values.get(figure, float("nan")) for row in earlier}
    return {row.case: (old[row.case], row.values.get(figure, float("nan"))) for row in new if row.case in old}


def _other_plan(plan: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """Settings of the degradations that differ; settings that one of the two does not know cannot."""
    now = json.loads(json.dumps(plan))
    different = [name for name in now if name in before and now[name] != before[name]]
    return [f"The cases were degraded otherwise: {', '.join(different)} differ."] if different else []


def _other_yardstick(rows: Sequence[Row], model: str, old_rows: Sequence[Row], old_model: str) -> list[str]:
    """Baselines whose figures changed: then the cases, the degradations or the baselines are not the same."""

    def key(row: Row) -> tuple[str, str, str, str]:
        return row.task, row.case, row.group, row.method

    old = {key(row): row.values for row in old_rows if not of_model(row.method, old_model)}
    changed: dict[str, None] = {}  # in order, each once
    for row in rows:
        if of_model(row.method, model):
            continue
        for figure, value in old.get(key(row), {}).items():
            now = row.values.get(figure, float("nan"))
            if not np.isclose(now, value, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
                changed[f"{row.method} ({row.task})"] = None
    return [f"Figures of baselines changed: {', '.join(changed)}."] if changed else []
