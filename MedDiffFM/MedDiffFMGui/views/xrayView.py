"""Result of X-rays: a button for each view; its picture in the red view and at its detector in 3D, with its beam."""

from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from ..nodes.xrayNodes import FRUSTUM
from .cameras import Cameras
from .runView import RunView

UI_FILE = Path(__file__).resolve().parents[2] / "Resources" / "UI" / "Xray.ui"
MARGIN = 1.05
"""Of the field of view, around a picture."""


class XrayView(RunView):
    """The X-rays of one run in the user's views.

    :param ui: widgets of the module's .ui file; ``xrayResultWidget`` is filled.
    :param onClosed: called without arguments when the user accepted or discarded the result.
    """

    def __init__(self, ui, onClosed=lambda: None):
        super().__init__(onClosed)
        self._shown = ""
        self._cameras = Cameras()
        self._buttons: dict[str, Any] = {}
        panel = slicer.util.loadUI(str(UI_FILE))
        ui.xrayResultWidget.layout().addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self._group = qt.QButtonGroup(panel)
        self.ui.xrayBeamCheckBox.connect("toggled(bool)", lambda *_checked: self._showBeam())
        self.ui.xrayAcceptButton.connect("clicked(bool)", self.accept)
        self.ui.xrayDiscardButton.connect("clicked(bool)", self.discard)

    def show(self, run):
        """Show a finished run, its first picture first; the views of before the first run are remembered."""
        self._take(run, self.ui.xrayAcceptButton, self.ui.xrayDiscardButton)
        self.ui.xrayWarningsLabel.text = "\n".join(run.warnings)
        self.ui.xrayWarningsLabel.visible = bool(run.warnings)
        self._makeButtons()
        self._cameras.lookAt(run.inputNode)
        self.choose(next(iter(run.volumes)))

    def choose(self, name):
        """Show one of the pictures.

        :param name: of the output.
        """
        if not self._exists():
            return
        self._shown = name
        self._buttons[name].checked = True
        self.ui.xrayFactsLabel.text = self._facts(name)
        with slicer.util.RenderBlocker():
            _hang(self.run.volumes[name])
            self._showBeam()

    def _restore(self):
        super()._restore()
        self._before.restorePlace(_red())
        self._cameras.restore()

    def _makeButtons(self):
        """A button for each view, in the order in which they were asked for."""
        for button in self._buttons.values():
            self._group.removeButton(button)
            self.ui.xrayButtonsWidget.layout().removeWidget(button)
            button.visible = False  # it is deleted a turn of the event loop later
            button.deleteLater()
        self._buttons = {}
        for name in self.run.volumes:
            button = qt.QToolButton()
            button.text = self._view(name).get("view", name).upper()
            button.checkable = True
            button.toolTip = _("Shows this X-ray where its detector stood. N and P: the next, the previous one.")
            button.connect("clicked(bool)", lambda *_clicked, name=name: self.choose(name))
            self._group.addButton(button)
            self.ui.xrayButtonsWidget.layout().insertWidget(len(self._buttons), button)
            self._buttons[name] = button

    def _view(self, name):
        """What the library tells of a view."""
        return self.run.facts.get("views", {}).get(name, {})

    def _facts(self, name):
        facts = self._view(name)
        if not facts:
            return ""
        distance = facts["source_to_detector_mm"]
        beam = _("parallel rays") if distance is None else _("source {mm:.0f} mm away").format(mm=distance)
        return _("{beam}, pixels of {edge:.2f} mm").format(beam=beam, edge=facts["pixel_mm"])

    def _beams(self):
        """Name of an output -> model of its beam."""
        return {name: self.run.others.get(name + FRUSTUM) for name in self.run.volumes}

    def _showBeam(self):
        """The beam of the shown picture alone, if the user wants it."""
        if not self._exists():
            return
        for name, node in self._beams().items():
            if node:
                node.GetDisplayNode().SetVisibility(name == self._shown and self.ui.xrayBeamCheckBox.checked)
        _red().SetSliceVisible(True)

    def _hide(self):
        if self._exists():
            for node in filter(None, self._beams().values()):
                node.GetDisplayNode().SetVisibility(False)
            _red().SetSliceVisible(False)

    def _go(self, step):
        if self._exists():
            names = list(self.run.volumes)
            self.choose(names[(names.index(self._shown) + step) % len(names)])


def _red():
    """The slice view that shows the pictures."""
    return slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeRed")


def _hang(xrayNode):
    """The red view lies in the plane of the picture, right way up, and shows it whole and alone."""
    import numpy as np
    import vtk

    matrix, toWorld = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    xrayNode.GetIJKToRASMatrix(matrix)
    slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(xrayNode.GetParentTransformNode(), None, toWorld)
    ijkToWorld = slicer.util.arrayFromVTKMatrix(toWorld) @ slicer.util.arrayFromVTKMatrix(matrix)
    columns, rows, _planes = xrayNode.GetImageData().GetDimensions()
    plane = np.eye(4)
    right, down = (ijkToWorld[:3, axis] for axis in (0, 1))
    plane[:3, 0], plane[:3, 1] = right / np.linalg.norm(right), -down / np.linalg.norm(down)
    plane[:3, 2] = np.cross(plane[:3, 0], plane[:3, 1])
    plane[:3, 3] = (ijkToWorld @ [(columns - 1) / 2, (rows - 1) / 2, 0, 1])[:3]
    node = _red()
    width, height = columns * np.linalg.norm(right) * MARGIN, rows * np.linalg.norm(down) * MARGIN
    screen = node.GetDimensions()
    millimeters = max(width / max(screen[0], 1), height / max(screen[1], 1))  # a pixel of the screen
    with slicer.util.NodeModify(node):
        node.GetSliceToRAS().DeepCopy(plane.ravel().tolist())
        node.SetXYZOrigin(0, 0, 0)
        node.SetFieldOfView(screen[0] * millimeters, screen[1] * millimeters, node.GetFieldOfView()[2])
        node.UpdateMatrices()
    composite = slicer.app.applicationLogic().GetSliceLogic(node).GetSliceCompositeNode()
    with slicer.util.NodeModify(composite):
        composite.SetBackgroundVolumeID(xrayNode.GetID())
        composite.SetForegroundVolumeID(None)
        composite.SetLabelVolumeID(None)
