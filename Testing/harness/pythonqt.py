"""PySide6 objects that behave as PythonQt shows Qt to a module inside Slicer.

Properties are attributes and not callable, an unknown name fails on reading and on writing, ``connect`` takes a
signature and answers False for one that does not exist, slots may take fewer arguments than the signal gives, enum
values are numbers. What exists is read from slicer_api.json, which was read from a running Slicer.
"""

from __future__ import annotations

import enum
import functools
import inspect
import json
import types
import weakref
from pathlib import Path
from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets

API = json.loads((Path(__file__).parent / "slicer_api.json").read_text())

# Slicer only prints and answers False; a test looks here.
refused_connections: list[str] = []

_proxies: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


@functools.cache
def names_of(class_name: str) -> dict[str, set[str]]:
    """Properties, signals and members of a class and its bases."""
    found: dict[str, set[str]] = {"properties": set(), "signals": set(), "members": set()}
    entry = API["classes"].get(class_name)
    while entry:
        for kind in found:
            found[kind] |= set(entry[kind])
        entry = API["classes"].get(entry["base"])
    return found


def class_name_of(target: Any) -> str:
    """The nearest class that Slicer's list knows."""
    for kind in type(target).__mro__:
        if kind.__name__ in API["classes"]:
            return kind.__name__
    raise TypeError(f"slicer_api.json has no class for {type(target).__name__}")


class EnumNumber(int):
    """An enum value: a number for the module, the enum itself for PySide6, which takes no numbers."""

    original: enum.Enum

    def __new__(cls, original: enum.Enum) -> EnumNumber:
        number = super().__new__(cls, original.value)
        number.original = original
        return number


def shown(value: Any) -> Any:
    """A value as PythonQt gives it."""
    if isinstance(value, enum.Enum):
        return EnumNumber(value)
    if isinstance(value, (list, tuple)):
        return tuple(shown(item) for item in value)
    if isinstance(value, QtCore.QObject) or type(value).__name__ in API["classes"]:
        return wrap(value)
    return value


def plain(value: Any) -> Any:
    """A value as PySide6 takes it."""
    if isinstance(value, Proxy):
        return value._target
    if isinstance(value, ProxyClass):
        return value._kind
    return value.original if isinstance(value, EnumNumber) else value


def wrap(target: Any) -> Proxy:
    """The proxy of an object; always the same one, as with PythonQt."""
    kind = proxy_type(class_name_of(target))
    try:
        return _proxies[target]
    except KeyError:
        _proxies[target] = proxy = kind(target)
        return proxy
    except TypeError:  # a value class without hash
        return kind(target)


@functools.cache
def proxy_type(class_name: str) -> type[Proxy]:
    """Each Qt class has a type of its own, derived as the class is: Slicer's connectors ask for ``type(widget)``."""
    base = API["classes"][class_name]["base"]
    return type(class_name, (proxy_type(base) if base in API["classes"] else Proxy,), {})


def with_as_many_arguments(slot: Any) -> Any:
    """Call ``slot`` with no more arguments than it takes."""
    try:
        parameters = list(inspect.signature(slot).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    limit = 99 if any(p.kind == p.VAR_POSITIONAL for p in parameters) else len(positional)

    def call(*arguments: Any) -> None:
        slot(*[shown(argument) for argument in arguments[:limit]])

    return call


def listed(value: Any) -> Any:
    """A tuple as the list that PySide6 wants for a QStringList."""
    return [plain(item) for item in value] if isinstance(value, tuple) else value


class Signal:
    """``widget.valueChanged`` of a proxy: to connect, disconnect and emit."""

    def __init__(self, proxy: Proxy, name: str) -> None:
        self._proxy, self._name = proxy, name

    def _bound(self) -> Any:
        return self._proxy._signal("clicked(bool)" if self._name == "clicked" else f"{self._name}()")

    def connect(self, slot: Any) -> bool:
        call = with_as_many_arguments(slot)
        self._proxy._slots[self._name, slot] = call
        self._bound().connect(call)
        return True

    def disconnect(self, slot: Any) -> bool:
        call = self._proxy._slots.pop((self._name, slot), None)
        if call is None:
            return False
        self._bound().disconnect(call)
        return True

    def emit(self, *arguments: Any) -> None:
        self._bound().emit(*[listed(plain(argument)) for argument in arguments])

    __call__ = emit


class Proxy:
    """One Qt object as a Slicer module sees it."""

    def __init__(self, target: Any) -> None:
        object.__setattr__(self, "_target", target)
        object.__setattr__(self, "_class", class_name_of(target))
        object.__setattr__(self, "_slots", {})

    def __getattr__(self, name: str) -> Any:
        names = names_of(self._class)
        if name in names["properties"]:
            return shown(self._target.property(name))
        if any(signature.split("(")[0] == name for signature in names["signals"]) and hasattr(self._target, name):
            return Signal(self, name)
        if name not in names["members"] or not hasattr(self._target, name):
            raise AttributeError(f"{self._class} has no attribute {name!r} in Slicer")
        member = getattr(self._target, name)
        if not callable(member):
            return shown(member)
        return lambda *arguments: shown(member(*[listed(plain(argument)) for argument in arguments]))

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in names_of(self._class)["properties"]:
            raise AttributeError(f"{self._class}.{name}: creating new attributes on C++ objects is not allowed")
        if not self._target.setProperty(name, listed(plain(value))):
            raise AttributeError(f"{self._class}.{name} cannot be set to {value!r}")

    def connect(self, signature: str, slot: Any) -> bool:
        if signature not in names_of(self._class)["signals"]:
            refused_connections.append(f"{self._class}: {signature}")
            return False
        call = with_as_many_arguments(slot)
        self._slots[signature, slot] = call
        self._signal(signature).connect(call)
        return True

    def _signal(self, signature: str) -> Any:
        """The signal of that very signature: PySide6 leaves out arguments that have a default otherwise."""
        name, arguments = signature.rstrip(")").split("(")
        signal = getattr(self._target, name)
        if name == "clicked" and arguments == "bool":
            return signal[bool]
        return signal[str] if name == "activated" and arguments == "QString" else signal  # a completer has two

    def disconnect(self, signature: str, slot: Any) -> bool:
        call = self._slots.pop((signature, slot), None)
        if call is None:
            return False
        self._signal(signature).disconnect(call)
        return True


class ProxyClass:
    """A Qt class: makes proxies, gives static members and enum values."""

    def __init__(self, kind: type) -> None:
        self._kind = kind
        self.__name__ = kind.__name__

    def __call__(self, *arguments: Any) -> Proxy:
        return wrap(self._kind(*[plain(argument) for argument in arguments]))

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, proxy_type(self.__name__))

    def __eq__(self, other: object) -> bool:
        """``type(widget) == qt.QSpinBox``, which in Slicer is one and the same."""
        return other is self or other is proxy_type(self.__name__)

    def __hash__(self) -> int:
        return hash(proxy_type(self.__name__))

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        """What a Python class gets that is derived from this one."""
        return (derived_base(self._kind),)

    def __getattr__(self, name: str) -> Any:
        names = names_of(self.__name__)
        if name not in names["members"] | names["properties"] or not hasattr(self._kind, name):
            raise AttributeError(f"{self.__name__} has no member {name!r} in Slicer")
        member = getattr(self._kind, name)
        return (lambda *a: shown(member(*[plain(x) for x in a]))) if callable(member) else shown(member)


@functools.cache
def derived_base(kind: Any) -> type:
    """Base of what a module derives from a Qt class: attributes of its own, and virtual functions that Qt calls."""

    class Base(Proxy):
        def __init__(self, *arguments: Any) -> None:
            outer = weakref.ref(self)

            class Target(kind):
                def eventFilter(self, watched: Any, event: Any) -> bool:
                    owner = outer()
                    return bool(owner.eventFilter(shown(watched), shown(event))) if owner else False

            Target.__name__ = kind.__name__
            Proxy.__init__(self, Target(*[plain(argument) for argument in arguments]))

        def __setattr__(self, name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

    return Base


def qt_namespace() -> types.SimpleNamespace:
    """``qt.Qt``: every value directly and through its enum, as PythonQt has them."""
    space: dict[str, Any] = {}
    for name, kind in vars(QtCore.Qt).items():
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            values = {member.name: EnumNumber(member) for member in kind if isinstance(member.value, int)}
            space.update(values)
            space[name] = types.SimpleNamespace(**values)
    return types.SimpleNamespace(**space)


def make_qt_module(settings_file: str) -> types.ModuleType:
    """The module ``qt``; settings are kept in a file of the test."""
    module = types.ModuleType("qt")
    for name, entry in API["classes"].items():
        kind = getattr(QtWidgets, name, None) or getattr(QtGui, name, None) or getattr(QtCore, name, None)
        if entry["namespace"] == "qt" and kind:
            setattr(module, name, ProxyClass(kind))
    module.Qt = qt_namespace()  # type: ignore[attr-defined]

    class Settings(QtCore.QSettings):
        def __init__(self) -> None:
            super().__init__(settings_file, QtCore.QSettings.Format.IniFormat)

    Settings.__name__ = "QSettings"
    module.QSettings = ProxyClass(Settings)  # type: ignore[attr-defined]
    return module
