"""Task parameters, declared once for Python, command line and panel."""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Union, get_args, get_origin, get_type_hints

from ..core.errors import InputError


@dataclass(frozen=True)
class ParameterInfo:
    """Facts that a user needs to know about one parameter.

    Attributes:
        help: one sentence, unit and effect.
        unit: "HU", "mm", "" ...
        minimum, maximum: inclusive limits of a number, None where there is none.
        choices: allowed strings, empty for free values.
        labels: choice -> the panel's words for it, where they are others.
        advanced: shown under "More" in the panel.
        catalogue: kind of model whose name a text is; "" where it is none.
        title: the panel's label; the parameter's name in words when empty.
        panel: value that the panel begins with in place of the default, which scripts and command lines keep.
        words: words of a text that lists some with commas between, which the panel has buttons for, or check boxes
            where there are no others; labels tell what each is.
        others: what else such a text may list; empty for nothing.
        camera: nine numbers that are position, focal point and view up of a 3-D view, which the panel takes from it.
    """

    help: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    advanced: bool = False
    catalogue: str = ""
    words: tuple[str, ...] = ()
    others: str = ""
    camera: bool = False
    title: str = ""
    panel: Any = None

    @property
    def limits(self) -> str:
        """Unit and limits in words, such as "0.5 to 500 HU"; empty where there are none."""
        low, high = self.minimum, self.maximum
        if low is not None and high is not None:
            return f"{low:g} to {high:g} {self.unit}".strip()
        if low is not None or high is not None:
            return f"{'at most' if low is None else 'at least'} {high if low is None else low:g} {self.unit}".strip()
        return self.unit


def parameter(default: Any, help: str, **info: Any) -> Any:
    """A dataclass field with its :class:`ParameterInfo` attached."""
    return field(default=default, metadata={"info": ParameterInfo(help=help, **info)})


def spacing_parameter(otherwise: str) -> Any:
    """The parameter ``spacing`` of a task that also computes on isotropic voxels.

    Args:
        otherwise: which voxels it takes when none is given.
    """
    return parameter(None, f"Isotropic working voxel; {otherwise}.", unit="mm", minimum=0.5, maximum=10, advanced=True)


def describe(parameters: type) -> list[tuple[dataclasses.Field, ParameterInfo]]:
    """The fields of a parameter dataclass with what a user needs to know about each."""
    return [(f, f.metadata["info"]) for f in dataclasses.fields(parameters)]


def check(parameters: Any) -> None:
    """Raise :class:`InputError` for the first value that is outside its limits or choices.

    A task calls it when it is made. One whose fields must fit each other has a method ``check_together``, which raises
    it too.
    """
    for f, info in describe(type(parameters)):
        value = getattr(parameters, f.name)
        if value is None:
            continue
        if info.choices and value not in info.choices:
            raise InputError(f"{f.name} is {value!r}.", f"Choose one of: {', '.join(info.choices)}.")
        if not isinstance(value, tuple):
            _check_limits(f.name, value, info)
            continue
        length = tuple_length(type(parameters), f.name)
        if length is not None and len(value) != length:
            raise InputError(f"{f.name} has {len(value)} values.", f"Give {length}.")
        for element in value:
            _check_limits(f.name, element, info)
    if hasattr(parameters, "check_together"):
        parameters.check_together()


def _check_limits(name: str, value: Any, info: ParameterInfo) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return
    low = info.minimum is not None and not value >= info.minimum
    high = info.maximum is not None and not value <= info.maximum
    if low or high:
        unit = f" {info.unit}" if info.unit else ""
        raise InputError(f"{name} is {value}{unit}.", f"Allowed are {info.minimum} to {info.maximum}{unit}.")


@functools.cache
def value_types(parameters: type) -> Mapping[str, tuple[type, bool]]:
    """Field name -> (plain type, whether None is allowed); ``float | None`` gives ``(float, True)``.

    A tuple field gives the type ``tuple``; :func:`element_type` tells of what.
    """
    types_by_name = {}
    hints = get_type_hints(parameters)
    for name in [f.name for f in dataclasses.fields(parameters)]:
        hint = hints[name]
        options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
        plain = [option for option in options if option is not type(None)][0]
        types_by_name[name] = (get_origin(plain) or plain, type(None) in options)
    return types.MappingProxyType(types_by_name)


def element_type(parameters: type, name: str) -> type:
    """The type of the elements of a tuple field."""
    return _elements(parameters, name)[0]


def tuple_length(parameters: type, name: str) -> int | None:
    """Number of elements of a tuple field; None for any number."""
    elements = _elements(parameters, name)
    return None if Ellipsis in elements else len(elements)


def _elements(parameters: type, name: str) -> tuple[Any, ...]:
    hint = get_type_hints(parameters)[name]
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return get_args([option for option in options if option is not type(None)][0])


def from_dict(parameters: type, values: Mapping[str, Any]) -> Any:
    """An object of the dataclass, which checks itself, from JSON values (a report, a message of the worker).

    Raises:
        InputError: for an unknown name, a value of another type, or one outside its limits.
    """
    kinds = value_types(parameters)
    unknown = sorted(set(values) - set(kinds))
    if unknown:
        raise InputError(f"Unknown parameter {unknown[0]!r}.", f"Known are: {', '.join(kinds)}.")
    return parameters(**{name: _typed(parameters, name, value, *kinds[name]) for name, value in values.items()})


def _typed(parameters: type, name: str, value: Any, kind: type, optional: bool) -> Any:
    converted = _converted(name, value, kind, optional)
    if kind is not tuple or converted is None:
        return converted
    return tuple(_converted(name, item, element_type(parameters, name), False) for item in converted)


def _converted(name: str, value: Any, kind: type, optional: bool) -> Any:
    """``value`` as ``kind`` where nothing is lost: int to float and list to tuple, never text to number."""
    if value is None and optional:
        return None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is tuple and isinstance(value, list):
        return tuple(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{name} is {value!r}.", f"Give a value of type {kind.__name__}.")
    return value
