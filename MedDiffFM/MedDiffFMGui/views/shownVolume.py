"""Which volume the slice views show, and whether it is the panel's."""

import slicer
from slicer.util import VTKObservationMixin

from .viewState import compositeNodes

RED = "vtkMRMLSliceCompositeNodeRed"


def shownVolume():
    """The background of the red view, None where there is none."""
    composite = slicer.mrmlScene.GetNodeByID(RED)
    return slicer.mrmlScene.GetNodeByID(composite.GetBackgroundVolumeID() or "") if composite else None


def showVolume(node):
    """A volume alone in every slice view; the views keep their place where it lies where the one before did."""
    before = shownVolume()
    if before is node:
        return
    with slicer.util.RenderBlocker():
        for composite in compositeNodes():
            with slicer.util.NodeModify(composite):
                composite.SetBackgroundVolumeID(node.GetID())
                composite.SetForegroundVolumeID(None)
                composite.SetLabelVolumeID(None)
        if before is None or _bounds(before) != _bounds(node):
            slicer.util.resetSliceViews()


def _bounds(node):
    bounds = [0.0] * 6
    node.GetRASBounds(bounds)
    return [round(bound, 1) for bound in bounds]


class ShownVolumeWatch(VTKObservationMixin):
    """Calls a function whenever the red view gets another background.

    :param onChanged: called without arguments.
    """

    def __init__(self, onChanged):
        VTKObservationMixin.__init__(self)
        self._onChanged = onChanged
        self._last = None

    def start(self):
        """Begin, or go on in a new scene."""
        self.removeObservers()
        composite = slicer.mrmlScene.GetNodeByID(RED)
        if composite:
            self.addObserver(composite, "ModifiedEvent", self._onModified)
        self._onChanged()

    def stop(self):
        """End it."""
        self.removeObservers()

    def _onModified(self, caller, event):
        now = caller.GetBackgroundVolumeID()
        if now != self._last:
            self._last = now
            self._onChanged()
