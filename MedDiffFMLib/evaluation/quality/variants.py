"""The model with other parameters as a method of its own, beside the model as it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ...core.errors import InputError

EXAMPLE = "Write TASK:FIELD=VALUE,FIELD=VALUE, as in inpaint:steps=10,samples=1."


@dataclass(frozen=True)
class Variant:
    """A task's parameters that differ.

    Attributes:
        label: as the user wrote them, for the name of the method.
    """

    task: str
    label: str
    fields: dict[str, Any] = field(default_factory=dict)


def parse_variant(text: str, tasks: Sequence[str]) -> Variant:
    """``"inpaint:steps=10,samples=1"``; values are JSON, anything else is text.

    Raises:
        InputError: not of that form.
    """
    task, colon, rest = text.partition(":")
    pairs = [part.partition("=") for part in rest.split(",")]
    if not colon or task not in tasks or not all(name and equals and value for name, equals, value in pairs):
        raise InputError(f"--variant {text} cannot be understood.", f"{EXAMPLE} Tasks: {', '.join(tasks)}.")
    label = ", ".join(f"{name} {value}" for name, _, value in pairs)
    return Variant(task, label, {name: _value(value) for name, _, value in pairs})


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
