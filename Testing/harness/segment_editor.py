"""A stand-in for Slicer's Segment Editor widget: its rules and its undo, on real segmentations; no brush."""

from __future__ import annotations

from typing import Any

import slicer
from PySide6 import QtCore, QtWidgets

EFFECTS = (
    "Paint", "Erase", "Scissors", "Draw", "Fill between slices", "Grow from seeds", "Hollow", "Islands",
    "Level tracing", "Logical operators", "Margin", "Mask volume", "Smoothing", "Threshold",
)  # fmt: skip


class qMRMLSegmentEditorWidget(QtWidgets.QWidget):
    """Effects are active only with editor node, segmentation, volume and selected segment, as in Slicer."""

    segmentationNodeChanged = QtCore.Signal(object)
    currentSegmentIDChanged = QtCore.Signal(str)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: Any = None
        self._node: Any = None
        self._order: list[str] = []
        self._unordered = True
        self._active: str | None = None
        self._history = slicer.vtkSegmentationHistory()
        self.shortcuts_installed = False
        self._buttons: dict[str, QtWidgets.QToolButton] = {}
        self._grid = layout = QtWidgets.QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._undo = QtWidgets.QToolButton(self)
        self._undo.setText("Undo")
        self._undo.clicked.connect(self.undo)
        layout.addWidget(self._undo, 9, 0)
        self._fill()

    def _fill(self) -> None:
        for button in self._buttons.values():
            button.setParent(None)
        names = self._order + [name for name in EFFECTS if self._unordered and name not in self._order]
        self._buttons = {}
        for index, name in enumerate(names):
            button = QtWidgets.QToolButton(self)
            button.setText(name)
            button.setObjectName(name)
            button.setCheckable(True)
            button.clicked.connect(lambda checked, chosen=name: self.setActiveEffectByName(chosen if checked else ""))
            self._grid.addWidget(button, index // 4, index % 4)
            self._buttons[name] = button

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLSegmentEditorNode(self, node: Any) -> None:
        self._node = node

    def mrmlSegmentEditorNode(self) -> Any:
        return self._node

    def setSegmentationNode(self, segmentation: Any) -> None:
        if self._node is None:
            return
        self._node.SetAndObserveSegmentationNode(segmentation)
        self._history.SetSegmentation(segmentation.GetSegmentation() if segmentation else None)
        self.segmentationNodeChanged.emit(segmentation)

    def segmentationNode(self) -> Any:
        return self._node.GetSegmentationNode() if self._node else None

    def setSourceVolumeNode(self, volume: Any) -> None:
        if self._node is not None:
            self._node.SetAndObserveSourceVolumeNode(volume)

    def sourceVolumeNode(self) -> Any:
        return self._node.GetSourceVolumeNode() if self._node else None

    def setActiveEffectByName(self, name: str) -> None:
        ready = self._node and self.segmentationNode() and self.sourceVolumeNode() and self._node.GetSelectedSegmentID()
        self._active = name if ready and name in self._buttons and self.isVisible() else None
        for key, button in self._buttons.items():
            button.setChecked(key == self._active)

    def setActiveEffect(self, effect: Any) -> None:
        assert effect is None, "the stand-in has no effect objects"
        self.setActiveEffectByName("")

    def activeEffect(self) -> Any:
        return self._active

    def setEffectNameOrder(self, names: list[str]) -> None:
        unknown = [name for name in names if name not in EFFECTS]
        assert not unknown, f"Slicer has no effect {unknown}"
        self._order = list(names)
        self._fill()

    def saveStateForUndo(self) -> None:
        self._history.SaveState()

    def undo(self) -> None:
        self._history.RestorePreviousState()

    def redo(self) -> None:
        self._history.RestoreNextState()

    def setMaximumNumberOfUndoStates(self, count: int) -> None:
        self._history.SetMaximumNumberOfStates(count)

    def installKeyboardShortcuts(self) -> None:
        self.shortcuts_installed = True

    def uninstallKeyboardShortcuts(self) -> None:
        self.shortcuts_installed = False

    def _set_unordered(self, value: bool) -> None:
        self._unordered = value
        self._fill()

    unorderedEffectsVisible = QtCore.Property(bool, lambda self: self._unordered, _set_unordered)

    def setSegmentationNodeSelectorVisible(self, visible: bool) -> None: ...

    def setSourceVolumeNodeSelectorVisible(self, visible: bool) -> None: ...

    def setAddRemoveSegmentButtonsVisible(self, visible: bool) -> None: ...

    def setShow3DButtonVisible(self, visible: bool) -> None: ...

    def setSwitchToSegmentationsButtonVisible(self, visible: bool) -> None: ...
