"""Body and bones in the 3D views, around the regions of findings."""

from typing import Any

import slicer

from ..nodes.bodySurfaces import makingSurfaces
from ..worker.eventLoopTasks import EventLoopTask
from .cameras import Cameras

COLORS = {"body": (0.62, 0.47, 0.40), "bones": (0.55, 0.51, 0.45)}
"""Darker than findings: the chosen one is white."""


class BodyView:
    """Surfaces of one CT, shown and hidden.

    Only what faces away from the viewer is drawn: the back of the body, of a rib. Whatever lies inside is seen before
    it without anything being translucent, which takes software seconds.
    """

    def __init__(self):
        self.models: list[Any] = []  # once they were made
        self._wanted = False
        self._task = EventLoopTask()
        self._cameras = Cameras()

    @property
    def shown(self):
        """Whether the surfaces are in the views."""
        return self._wanted and bool(self.models)

    def show(self, image):
        """Show the surfaces of ``image``, which are made when they are first wanted, in the next turns of the event
        loop; views that showed nothing are turned to it."""
        self._wanted = True
        self._cameras.lookAt(image)
        if self.models:
            self._setVisible(True)
        elif not self._task.busy:
            self._task.start(makingSurfaces(image), lambda surfaces: self._add(image, surfaces))

    def hide(self):
        """No surfaces, but they can be shown again."""
        self._wanted = False
        self._setVisible(False)

    def remove(self):
        """3D views as they were before."""
        self._removeModels()
        self._cameras.restore()

    def forget(self):
        """The scene closes, or the CT is gone; cameras stay."""
        self._removeModels()
        self._cameras.forget()

    def _add(self, image, surfaces):
        with slicer.util.RenderBlocker():
            self.models = [_addModel(image, name, surface) for name, surface in surfaces.items()]
            self._setVisible(self._wanted)

    def _setVisible(self, visible):
        for model in self.models:
            if slicer.mrmlScene.IsNodePresent(model):
                model.GetDisplayNode().SetVisibility(visible)

    def _removeModels(self):
        self._task.stop()
        for model in self.models:
            if slicer.mrmlScene.IsNodePresent(model):
                slicer.mrmlScene.RemoveNode(model.GetDisplayNode())
                slicer.mrmlScene.RemoveNode(model)
        self.models = []


def _addModel(image, name, surface):
    """A model that is drawn and no more: not listed, not saved, not hit by a click."""
    model, display = slicer.vtkMRMLModelNode(), slicer.vtkMRMLModelDisplayNode()
    for node in (model, display):
        node.SetName(f"{image.GetName()} {name}")
        node.SetHideFromEditors(True)
        node.SetSaveWithScene(False)
    model.SetSelectable(False)
    display.SetColor(*COLORS[name])
    display.SetFrontfaceCulling(True)
    display.SetBackfaceCulling(False)
    display.SetVisibility(False)
    model.SetAndObserveMesh(surface)
    slicer.mrmlScene.AddNode(display)
    slicer.mrmlScene.AddNode(model)
    model.SetAndObserveDisplayNodeID(display.GetID())
    model.SetAndObserveTransformNodeID(image.GetTransformNodeID())
    return model
