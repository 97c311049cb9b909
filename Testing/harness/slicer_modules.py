"""The Python parts of Slicer that the slicer-core wheel lacks, as far as the module uses them."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import Any, get_type_hints

import slicer
import vtk
from PySide6 import QtCore

from .pythonqt import Proxy, wrap


def write_color_tables(folder: Path) -> None:
    """Color tables under the names of Slicer's, in its text format."""
    import matplotlib

    folder.mkdir(parents=True)
    for name, source in COLOR_TABLES.items():
        colors = (matplotlib.colormaps[source](range(256)) * 255).astype(int)
        lines = [f"{index} {index} {' '.join(map(str, color))}" for index, color in enumerate(colors)]
        (folder / f"{name}.txt").write_text("\n".join(["# made for the tests", *lines]) + "\n")


class Observable(QtCore.QObject):
    """The signals of the application that a module connects to."""

    aboutToQuit = QtCore.Signal()
    startupCompleted = QtCore.Signal()
    moduleAboutToBeUnloaded = QtCore.Signal(str)


LOGICS = {
    "colors": "vtkSlicerColorLogic",
    "volumes": "vtkSlicerVolumesLogic",
    "segmentations": "vtkSlicerSegmentationsModuleLogic",
    "volumerendering": "vtkSlicerVolumeRenderingLogic",
    "markups": "vtkSlicerMarkupsLogic",
    "plots": "vtkSlicerPlotsLogic",
}
COLOR_TABLES = {"Inferno": "inferno", "Viridis": "viridis"}


class Application:
    """``slicer.app``, a few members of it."""

    def __init__(self) -> None:
        self.events = Observable()
        self.layout_manager: Any = None
        self.render_pauses = 0

    def start_logics(self, scene: Any, home: Path) -> None:
        """The application logic and those of the modules that ours calls; color tables lie in ``home``."""
        write_color_tables(home / "share" / "ColorFiles")
        self._logic = slicer.vtkSlicerApplicationLogic()
        self._logic.SetHomeDirectory(str(home))
        self._logic.SetShareDirectory("share")
        self._logic.SetMRMLScene(scene)
        self._logic.SetSliceLogics(vtk.vtkCollection())
        self._logic.SetViewLogics(vtk.vtkCollection())
        modules = {}
        for name, kind in LOGICS.items():
            logic = getattr(slicer, kind)()
            logic.SetMRMLApplicationLogic(self._logic)
            logic.SetMRMLScene(scene)
            self._logic.SetModuleLogic(name.capitalize(), logic)
            modules[name] = types.SimpleNamespace(logic=lambda logic=logic: logic)
        slicer.modules = types.SimpleNamespace(**modules)
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)

    def applicationLogic(self) -> Any:
        return self._logic

    def layoutManager(self) -> Any:
        return self.layout_manager

    def pauseRender(self) -> None:
        self.render_pauses += 1

    def resumeRender(self) -> None:
        self.render_pauses -= 1

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


PLAIN: dict[type, Callable[[str], Any]] = {
    str: str,
    int: int,
    float: float,
    bool: lambda text: text == "True",
}
SIGNALS = {
    "QSpinBox": ("value", "valueChanged(int)"),
    "QDoubleSpinBox": ("value", "valueChanged(double)"),
    "ctkSliderWidget": ("value", "valueChanged(double)"),
    "QCheckBox": ("checked", "toggled(bool)"),
    "QPushButton": ("checked", "toggled(bool)"),
    "QLineEdit": ("text", "textChanged(QString)"),
    "ctkPathLineEdit": ("currentPath", "currentPathChanged(QString)"),
}
"""Class of a widget -> the property and the signal that Slicer's connector uses."""


def parameterNodeWrapper(kind: type) -> Callable[[Any], Any]:
    """Plain, Enum and node fields stored in a real scripted module node, as the wrapper of Slicer does for these."""
    fields = get_type_hints(kind)

    class Wrapped:
        def __init__(self, node: Any) -> None:
            object.__setattr__(self, "parameterNode", node)
            object.__setattr__(self, "_connections", [])

        def __getattr__(self, name: str) -> Any:
            if name not in fields:
                raise AttributeError(name)
            if not (_is_enum(fields[name]) or fields[name] in PLAIN):
                return self.parameterNode.GetNodeReference(name)
            # GetParameter cannot tell an empty text from a missing one
            if name not in self.parameterNode.GetParameterNames():
                return getattr(kind, name)
            stored = self.parameterNode.GetParameter(name)
            return fields[name][stored] if _is_enum(fields[name]) else PLAIN[fields[name]](stored)

        def __setattr__(self, name: str, value: Any) -> None:
            if name not in fields:
                raise AttributeError(f"the parameter node has no field {name!r}")
            if _is_enum(fields[name]):
                self.parameterNode.SetParameter(name, value.name)
            elif fields[name] in PLAIN:
                if not isinstance(value, fields[name]) and not (fields[name] is float and isinstance(value, int)):
                    raise TypeError(f"{name} takes {fields[name].__name__}, not {value!r}")
                self.parameterNode.SetParameter(name, str(value))
            else:
                self.parameterNode.SetNodeReferenceID(name, value.GetID() if value else None)

        def connectGui(self, ui: Any) -> int:
            for kind in fields.values():
                _refuse_as_slicer_does(kind)
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
            read, show, signature = self._access(widget, name)
            show(getattr(self, name))
            slot = lambda: setattr(self, name, read())  # noqa: E731
            assert widget.connect(signature, slot)
            update = lambda *_: None if read() == getattr(self, name) else show(getattr(self, name))  # noqa: E731
            tag = self.parameterNode.AddObserver("ModifiedEvent", update)
            self._connections.append((widget, signature, slot, tag))

        def _access(self, widget: Proxy, name: str) -> tuple[Callable[[], Any], Callable[[Any], None], str]:
            """How a widget is read and written, and the signal of a change."""
            if _is_enum(fields[name]):
                choices = list(fields[name])
                widget.clear()
                for choice in choices:
                    widget.addItem(choice.label())
                return (
                    lambda: choices[widget.currentIndex],
                    lambda value: setattr(widget, "currentIndex", choices.index(value)),
                    "currentIndexChanged(int)",
                )
            if fields[name] in PLAIN:
                attribute, signature = SIGNALS[widget._class]
                return (
                    lambda: fields[name](getattr(widget, attribute)),
                    lambda value: setattr(widget, attribute, value),
                    signature,
                )
            return widget.currentNode, widget.setCurrentNode, "currentNodeChanged(vtkMRMLNode*)"

        def disconnectGui(self, tag: int) -> None:
            for widget, signature, slot, observation in self._connections:
                widget.disconnect(signature, slot)
                self.parameterNode.RemoveObserver(observation)
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


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum)


def _refuse_as_slicer_does(kind: Any) -> None:
    """Slicer makes a node of each field's class for its selector, and writes None as the default of several classes."""
    if kind in PLAIN or _is_enum(kind):
        return
    several = typing.get_args(kind)
    if several and type(None) not in several:
        raise TypeError("Unable to write value 'None' of type '<class 'NoneType'>'")
    for one in several or (kind,):
        if one is not type(None):
            one()
