"""The Python parts of Slicer that the slicer-core wheel lacks, as far as the module uses them."""

from __future__ import annotations

import types
from collections.abc import Callable
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import Any, get_type_hints

import slicer
from PySide6 import QtCore

from .pythonqt import Proxy, wrap


class Observable(QtCore.QObject):
    """The signals of the application that a module connects to."""

    aboutToQuit = QtCore.Signal()
    startupCompleted = QtCore.Signal()
    moduleAboutToBeUnloaded = QtCore.Signal(str)


class Application:
    """``slicer.app``, a few members of it."""

    def __init__(self) -> None:
        self.events = Observable()

    def connect(self, signature: str, slot: Callable) -> bool:
        if signature not in ("aboutToQuit()", "startupCompleted()"):
            return False
        getattr(self.events, signature.split("(")[0]).connect(slot)
        return True

    def disconnect(self, signature: str, slot: Callable) -> bool:
        return getattr(self.events, signature.split("(")[0]).disconnect(slot)

    def testingEnabled(self) -> bool:
        return True

    def translate(self, context: str, text: str) -> str:
        return text

    def setOverrideCursor(self, cursor: int) -> None: ...

    def restoreOverrideCursor(self) -> None: ...

    def processEvents(self) -> None:
        QtCore.QCoreApplication.processEvents()

    def startupEnvironment(self) -> Proxy:
        return wrap(QtCore.QProcessEnvironment.systemEnvironment())

    def moduleManager(self) -> types.SimpleNamespace:
        signal = self.events.moduleAboutToBeUnloaded
        return types.SimpleNamespace(
            connect=lambda _, slot: signal.connect(slot), disconnect=lambda _, slot: signal.disconnect(slot)
        )


# ---------------------------------------------------------------------------------------------- scripted module classes


class ScriptedLoadableModule:
    def __init__(self, parent: Any) -> None:
        self.parent = parent
        self.moduleName = type(self).__name__


class ScriptedLoadableModuleWidget:
    def __init__(self, parent: Any) -> None:
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.parent = parent
        self.layout = parent.layout()

    def setup(self) -> None: ...

    def resourcePath(self, name: str) -> str:
        return str(Path(slicer.util.modulePath(self.moduleName)).parent / "Resources" / name)


class ScriptedLoadableModuleLogic:
    def __init__(self, parent: Any = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Logic")

    def getParameterNode(self) -> Any:
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.vtkMRMLScriptedModuleNode()
            node.SetSingletonTag(self.moduleName)
            node.SetAttribute("ModuleName", self.moduleName)
            node = slicer.mrmlScene.AddNode(node)
        return node


class ScriptedLoadableModuleTest:
    def setUp(self) -> None:
        slicer.mrmlScene.Clear(0)


# ------------------------------------------------------------------------------------------------------ parameter node


def parameterNodeWrapper(kind: type) -> Callable[[Any], Any]:
    """Node and Enum fields stored in a real scripted module node, as the wrapper of Slicer does for these."""
    fields = get_type_hints(kind)

    class Wrapped:
        def __init__(self, node: Any) -> None:
            object.__setattr__(self, "parameterNode", node)
            object.__setattr__(self, "_connections", {})

        def __getattr__(self, name: str) -> Any:
            if name not in fields:
                raise AttributeError(name)
            if issubclass(fields[name], Enum):
                stored = self.parameterNode.GetParameter(name)
                return fields[name][stored] if stored else getattr(kind, name)
            return self.parameterNode.GetNodeReference(name)

        def __setattr__(self, name: str, value: Any) -> None:
            if name not in fields:
                raise AttributeError(name)
            if issubclass(fields[name], Enum):
                self.parameterNode.SetParameter(name, value.name)
            else:
                self.parameterNode.SetNodeReferenceID(name, value.GetID() if value else None)

        def connectGui(self, ui: Any) -> int:
            if isinstance(ui, dict):
                raise ValueError("connectGui needs the object of childWidgetVariables")
            for widget in vars(ui).values():
                name = widget._target.property("SlicerParameterName")
                if name:
                    self._connect(widget, name)
            return 1

        def _connect(self, widget: Proxy, name: str) -> None:
            if name not in fields:
                raise ValueError(f"the parameter node has no field {name!r}")
            if issubclass(fields[name], Enum):
                choices = list(fields[name])
                widget.clear()
                for choice in choices:
                    widget.addItem(choice.label())
                widget.currentIndex = choices.index(getattr(self, name))
                slot = lambda: setattr(self, name, choices[widget.currentIndex])  # noqa: E731
                signature = "currentIndexChanged(int)"
            else:
                widget.setCurrentNode(getattr(self, name))
                slot = lambda: setattr(self, name, widget.currentNode())  # noqa: E731
                signature = "currentNodeChanged(vtkMRMLNode*)"
            assert widget.connect(signature, slot)
            self._connections[name] = (widget, signature, slot)
            show = lambda *_: self._show(widget, name)  # noqa: E731
            self._connections[name + " observed"] = self.parameterNode.AddObserver("ModifiedEvent", show)

        def _show(self, widget: Proxy, name: str) -> None:
            value = getattr(self, name)
            if issubclass(fields[name], Enum):
                widget.currentIndex = list(fields[name]).index(value)
            elif widget.currentNode() is not value:
                widget.setCurrentNode(value)

        def disconnectGui(self, tag: int) -> None:
            for key, connection in self._connections.items():
                if key.endswith(" observed"):
                    self.parameterNode.RemoveObserver(connection)
                else:
                    widget, signature, slot = connection
                    widget.disconnect(signature, slot)
            self._connections.clear()

    return Wrapped


# ------------------------------------------------------------------------------------------------------------ packaging


def load_requirements(path: str | Path) -> list[Any]:
    from packaging.requirements import Requirement

    lines = (line.strip() for line in Path(path).read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]


def pip_check(requirement: Any) -> bool:
    try:
        return metadata.version(requirement.name) in requirement.specifier
    except metadata.PackageNotFoundError:
        return False


def modules() -> dict[str, types.ModuleType]:
    """The missing submodules of ``slicer`` by name."""

    def module(name: str, **members: Any) -> types.ModuleType:
        made = types.ModuleType(f"slicer.{name}")
        made.__dict__.update(members)
        return made

    return {
        "i18n": module("i18n", tr=lambda text: text, translate=lambda context, text: text),
        "ScriptedLoadableModule": module(
            "ScriptedLoadableModule",
            ScriptedLoadableModule=ScriptedLoadableModule,
            ScriptedLoadableModuleWidget=ScriptedLoadableModuleWidget,
            ScriptedLoadableModuleLogic=ScriptedLoadableModuleLogic,
            ScriptedLoadableModuleTest=ScriptedLoadableModuleTest,
        ),
        "parameterNodeWrapper": module("parameterNodeWrapper", parameterNodeWrapper=parameterNodeWrapper),
        "packaging": module(
            "packaging", load_requirements=load_requirements, pip_check=pip_check, pip_ensure=lambda *a, **k: None
        ),
    }
