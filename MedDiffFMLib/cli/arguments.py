"""Sub-commands and their options, also those made from parameter dataclasses."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any

from ..runner.settings import SEED_LIMIT, THREADS_LIMIT
from ..tasks.parameters import ParameterInfo, describe, element_type, tuple_length, value_types


def add_command(
    subparsers: Any, common: argparse.ArgumentParser, name: str, run: Any, sentence: str, more: str = ""
) -> argparse.ArgumentParser:
    """A sub-command without options.

    Args:
        run: called with the arguments and the console; gives the exit code.
        sentence: of the list of commands.
        more: what the command's own help says besides.
    """
    parser = subparsers.add_parser(name, parents=[common], help=sentence, description=f"{sentence} {more}".strip())
    parser.set_defaults(run=run)
    return parser


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
    values: dict[str, Any] = {}
    for field in dataclasses.fields(parameters):
        if hasattr(args, _destination(field.name)):
            value = getattr(args, _destination(field.name))
            values[field.name] = tuple(value) if isinstance(value, list) else value
    return parameters(**values)


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """The type of an option that takes a whole number within limits."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:  # also of more digits than Python reads
            raise argparse.ArgumentTypeError(f"{text!r:.40} is no whole number") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text:.40} is not within {low} to {high}")
        return value

    return number


SEED = whole_number(0, SEED_LIMIT - 1)
THREADS = whole_number(1, THREADS_LIMIT)
PROCESSES = whole_number(0, THREADS_LIMIT)
COUNT = whole_number(1, 1_000_000)


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
    details.append("default: automatic" if default is None else f"default: {_shown(default) or 'none'}")
    return f"{info.help} ({'; '.join(details)})".replace("%", "%%")


def _shown(value: Any) -> str:
    return " ".join(str(item) for item in value) if isinstance(value, tuple) else str(value)
