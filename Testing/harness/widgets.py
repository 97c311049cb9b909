"""Stand-ins for the ctk and qMRML widgets of the module, and the loader of .ui files."""

from __future__ import annotations

import functools
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from PySide6 import QtCore, QtUiTools, QtWidgets

from . import qmrml_widgets
from .pythonqt import API, Proxy, names_of, wrap
from .segment_editor import qMRMLSegmentEditorWidget


class ctkCollapsibleButton(QtWidgets.QGroupBox):
    """A titled section that folds."""

    contentsCollapsed = QtCore.Signal(bool)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._collapsed = False
        self._text = ""
        self._hidden: list[QtWidgets.QWidget] = []

    def _set_text(self, text: str) -> None:
        self._text = text
        self.setTitle(f"{'▸' if self._collapsed else '▾'} {text}")

    def _set_collapsed(self, value: bool) -> None:
        if value != self._collapsed:
            self._collapsed = value
            self.fold()
            self.contentsCollapsed.emit(value)

    def fold(self) -> None:
        """Hide the children, or show them again but for those that were hidden before."""
        children = self.findChildren(QtWidgets.QWidget, options=QtCore.Qt.FindChildOption.FindDirectChildrenOnly)
        if self._collapsed:
            self._hidden = [child for child in children if child.isHidden()]
        for child in children:
            child.setVisible(not self._collapsed and child not in self._hidden)
        self.setFlat(self._collapsed)
        self.setMaximumHeight(24 if self._collapsed else 16777215)
        self._set_text(self._text)

    collapsed = QtCore.Property(bool, lambda self: self._collapsed, _set_collapsed)
    text = QtCore.Property(str, lambda self: self._text, _set_text)


class ctkPathLineEdit(QtWidgets.QLineEdit):
    """A line that holds a path."""

    currentPathChanged = QtCore.Signal(str)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.textChanged.connect(self.currentPathChanged)

    currentPath = QtCore.Property(str, lambda self: self.text(), lambda self, value: self.setText(value))


class qMRMLWidget(QtWidgets.QWidget):
    """Hands its scene on to the children that the .ui file connects, and to no others."""

    mrmlSceneChanged = QtCore.Signal(object)

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene
        self.mrmlSceneChanged.emit(scene)

    def mrmlScene(self) -> Any:
        return getattr(self, "_scene", None)


class qMRMLNodeComboBox(QtWidgets.QComboBox):
    """Lists the nodes of a real MRML scene and follows it."""

    currentNodeChanged = QtCore.Signal(object)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: Any = None
        self._node_types: list[str] = []
        self._none_enabled = self._child_types = True
        self._observations: list[int] = []
        self.currentIndexChanged.connect(lambda: self.currentNodeChanged.emit(self.currentNode()))

    def setMRMLScene(self, scene: Any) -> None:
        import slicer

        if self._scene:
            for tag in self._observations:
                self._scene.RemoveObserver(tag)
        self._scene = scene
        self._observations = []
        if scene:
            kind = slicer.vtkMRMLScene
            events = (kind.NodeAddedEvent, kind.NodeRemovedEvent, kind.EndCloseEvent)
            self._observations = [scene.AddObserver(event, lambda *_: self._refill()) for event in events]
        self._refill()

    def mrmlScene(self) -> Any:
        return self._scene

    def _refill(self) -> None:
        before = self.currentData()
        with QtCore.QSignalBlocker(self):
            self.clear()
            if self._none_enabled:
                self.addItem("None", "")
            for node in self._nodes():
                self.addItem(node.GetName(), node.GetID())
            self.setCurrentIndex(max(self.findData(before), 0))
        if self.currentData() != before:
            self.currentNodeChanged.emit(self.currentNode())

    def _nodes(self) -> list[Any]:
        nodes = [self._scene.GetNthNode(i) for i in range(self._scene.GetNumberOfNodes())] if self._scene else []
        right = [node for node in nodes if any(node.IsA(kind) for kind in self._node_types)]
        exact = [node for node in right if self._child_types or node.GetClassName() in self._node_types]
        return [node for node in exact if not node.GetHideFromEditors()]

    def currentNode(self) -> Any:
        return self._scene.GetNodeByID(self.currentData()) if self._scene and self.currentData() else None

    def setCurrentNode(self, node: Any) -> None:
        self.setCurrentIndex(max(self.findData(node.GetID() if node else ""), 0))

    nodeTypes = QtCore.Property(
        "QStringList",  # type: ignore[arg-type]
        lambda self: self._node_types,
        lambda self, value: setattr(self, "_node_types", list(value)),
    )
    noneEnabled = QtCore.Property(
        bool, lambda self: self._none_enabled, lambda self, value: setattr(self, "_none_enabled", value)
    )
    showChildNodeTypes = QtCore.Property(
        bool, lambda self: self._child_types, lambda self, value: setattr(self, "_child_types", value)
    )
    addEnabled = QtCore.Property(bool, lambda self: False, lambda self, value: None)
    removeEnabled = QtCore.Property(bool, lambda self: False, lambda self, value: None)


class qMRMLCheckableNodeComboBox(qMRMLNodeComboBox):
    """Lets several nodes be checked, none at first, and shows the names of those that are."""

    checkedNodesChanged = QtCore.Signal()

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        self._checked: list[str] = []
        super().__init__(parent)
        self._none_enabled = False

    def _refill(self) -> None:
        super()._refill()
        there = [node.GetID() for node in self._nodes()]
        if not set(self._checked) <= set(there):
            self._checked = [one for one in self._checked if one in there]
            self.checkedNodesChanged.emit()

    def checkedNodes(self) -> list[Any]:
        return [node for node in self._nodes() if node.GetID() in self._checked]

    def checkState(self, node: Any) -> QtCore.Qt.CheckState:
        state = QtCore.Qt.CheckState
        return state.Checked if node.GetID() in self._checked else state.Unchecked

    def setCheckState(self, node: Any, state: Any) -> None:
        if state != self.checkState(node):
            self._checked.remove(node.GetID()) if node.GetID() in self._checked else self._checked.append(node.GetID())
            self.checkedNodesChanged.emit()
            self.update()

    def paintEvent(self, event: Any) -> None:
        painter, option = QtWidgets.QStylePainter(self), QtWidgets.QStyleOptionComboBox()
        self.initStyleOption(option)
        option.currentText = ", ".join(node.GetName() for node in self.checkedNodes())
        painter.drawComplexControl(QtWidgets.QStyle.ComplexControl.CC_ComboBox, option)
        painter.drawControl(QtWidgets.QStyle.ControlElement.CE_ComboBoxLabel, option)


class ctkSliderWidget(QtWidgets.QWidget):
    """A slider with a spin box that holds the exact value."""

    valueChanged = QtCore.Signal(float)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._slider, self._spin = QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal, self), QtWidgets.QDoubleSpinBox()
        self._slider.setRange(0, 1000)
        self._spin.setRange(0.0, 100.0)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._slider)
        row.addWidget(self._spin)
        self._spin.valueChanged.connect(self._changed)
        self._slider.valueChanged.connect(self._moved)

    def _span(self) -> float:
        return max(self._spin.maximum() - self._spin.minimum(), 1e-9)

    def _changed(self, value: float) -> None:
        with QtCore.QSignalBlocker(self._slider):
            self._slider.setValue(round(1000 * (value - self._spin.minimum()) / self._span()))
        self.valueChanged.emit(value)

    def _moved(self, position: int) -> None:
        self._spin.setValue(self._spin.minimum() + position / 1000 * self._span())

    value = QtCore.Property(float, lambda self: self._spin.value(), lambda self, value: self._spin.setValue(value))
    minimum = QtCore.Property(
        float, lambda self: self._spin.minimum(), lambda self, value: self._spin.setMinimum(value)
    )
    maximum = QtCore.Property(
        float, lambda self: self._spin.maximum(), lambda self, value: self._spin.setMaximum(value)
    )
    singleStep = QtCore.Property(
        float, lambda self: self._spin.singleStep(), lambda self, value: self._spin.setSingleStep(value)
    )
    decimals = QtCore.Property(
        int, lambda self: self._spin.decimals(), lambda self, value: self._spin.setDecimals(value)
    )
    suffix = QtCore.Property(str, lambda self: self._spin.suffix(), lambda self, value: self._spin.setSuffix(value))


STAND_INS = (
    ctkCollapsibleButton,
    ctkPathLineEdit,
    ctkSliderWidget,
    qMRMLCheckableNodeComboBox,
    qMRMLNodeComboBox,
    qMRMLSegmentEditorWidget,
    qMRMLWidget,
    *qmrml_widgets.STAND_INS,
)


@functools.cache
def _loader() -> QtUiTools.QUiLoader:
    """A loader that knows the stand-ins; telling it of them takes longer than most files."""
    loader = QtUiTools.QUiLoader(QtCore.QCoreApplication.instance())
    for kind in STAND_INS:
        loader.registerCustomWidget(kind)
    return loader


@functools.cache
def _read_ui(path: Path, changed_ns: int) -> tuple[bytes, tuple[ElementTree.Element, ...]]:
    """A .ui file without its connections, and those, which PySide6 knows no signal of; read again once changed."""
    root = ElementTree.parse(path).getroot()
    connections = root.find("connections")
    assert connections is not None
    root.remove(connections)
    return ElementTree.tostring(root), tuple(connections)


def load_ui(path: str | Path) -> Proxy:
    """Build a .ui file as Slicer's loader does; its MRML connections are made as the file says."""
    content, connections = _read_ui(Path(path), Path(path).stat().st_mtime_ns)
    source = QtCore.QBuffer()
    source.setData(content)
    source.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
    widget: Any = _loader().load(source)
    if widget is None:
        raise RuntimeError(_loader().errorString())
    for connection in connections:
        assert connection.findtext("signal") == "mrmlSceneChanged(vtkMRMLScene*)"
        assert connection.findtext("slot") == "setMRMLScene(vtkMRMLScene*)"
        assert connection.findtext("sender") == widget.objectName()
        receiver: Any = widget.findChild(QtWidgets.QWidget, connection.findtext("receiver") or "")
        widget.mrmlSceneChanged.connect(receiver.setMRMLScene)
    for section in widget.findChildren(ctkCollapsibleButton):
        if section.collapsed:
            section.fold()  # hides the children that came after the property
    return wrap(widget)


def ui_problems(path: str | Path) -> list[str]:
    """What a .ui file names that Slicer does not have."""
    root = ElementTree.parse(path).getroot()
    problems = []
    for widget in root.iter("widget"):
        kind, name = widget.get("class", ""), widget.get("name")
        if kind not in API["classes"]:
            problems.append(f"{name}: class {kind}")
            continue
        for entry in widget.findall("property"):
            dynamic = entry.get("stdset") == "0"
            if not dynamic and entry.get("name") not in names_of(kind)["properties"]:
                problems.append(f"{name}: property {kind}.{entry.get('name')}")
    return problems


def child_widget_variables(widget: Proxy) -> Any:
    """All named children as attributes, as ``slicer.util.childWidgetVariables``."""
    ui = type("", (), {})()
    for child in widget._target.findChildren(QtWidgets.QWidget):
        if child.objectName() and not child.objectName().startswith("qt_"):
            setattr(ui, child.objectName(), wrap(child))
    return ui
