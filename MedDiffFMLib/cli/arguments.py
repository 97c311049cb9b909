"""Command-line options made from parameter dataclasses."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from ..tasks.parameters import ParameterInfo, describe, element_type, tuple_length, value_types


def add_parameters(parser: argparse._ArgumentGroup, parameters: type) -> None:
    """One option for every field: name, help, unit, limits, choices and default come from the dataclass."""
    kinds = value_types(parameters)
    for field, info in describe(parameters):
        kind, _ = kinds[field.name]
        options: dict[str, Any] = {"dest": _destination(field.name), "default": argparse.SUPPRESS}
        if kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif kind is tuple:
            count = tuple_length(parameters, field.name) or "+"
            options |= {"type": element_type(parameters, field.name), "nargs": count, "metavar": _metavar(info)}
        else:
            options |= {"type": kind, "metavar": None if info.choices else _metavar(info)}
            options |= {"choices": info.choices} if info.choices else {}
        parser.add_argument(option_name(field.name), help=_help(field, info), **options)


def parameters_from(args: argparse.Namespace, parameters: type) -> Any:
    """The dataclass, which checks itself, with the options that were given.

    Raises:
        InputError: a value outside its limits.
    """
    given: dict[str, Any] = {}
    for field in dataclasses.fields(parameters):
        if hasattr(args, _destination(field.name)):
            value = getattr(args, _destination(field.name))
            given[field.name] = tuple(value) if isinstance(value, list) else value
    return parameters(**given)


def option_name(field: str) -> str:
    """``noise_level`` -> ``--noise-level``."""
    return "--" + field.replace("_", "-")


def _destination(field: str) -> str:
    return f"parameter_{field}"


def _metavar(info: ParameterInfo) -> str:
    return info.unit.upper() if info.unit.isalpha() else "N"


def _help(field: dataclasses.Field, info: ParameterInfo) -> str:
    details = [info.limits] if info.limits else []
    default = field.default if field.default is not dataclasses.MISSING else None
    details.append("default: automatic" if default is None else f"default: {_shown(default)}")
    return f"{info.help} ({'; '.join(details)})".replace("%", "%%")


def _shown(value: Any) -> str:
    return " ".join(str(item) for item in value) if isinstance(value, tuple) else str(value)
