"""A translucent volume rendering of the CT, behind which the regions of findings can be seen."""

from typing import Any

import slicer

from .cameras import Cameras

# HU -> opacity: skin and vessels as a veil, bone a little denser; air and lung let everything be seen.
_OPACITY = ((-1024, 0.0), (-500, 0.0), (-300, 0.03), (100, 0.03), (180, 0.10), (400, 0.22), (3071, 0.35))
_COLORS = (
    (-1024, 0.30, 0.25, 0.25),
    (-300, 0.80, 0.60, 0.50),
    (100, 0.85, 0.55, 0.45),
    (250, 0.95, 0.90, 0.80),
    (3071, 1.0, 1.0, 1.0),
)
_GRADIENT = ((0, 0.0), (60, 0.35), (255, 1.0))  # surfaces only: the inside of an organ would be fog


class BodyRendering:
    """Rendering of one CT, shown and hidden; a rendering of the user's own is used as it is and left as it was."""

    def __init__(self):
        self._display: Any = None
        self._own = False
        self._wasVisible = False
        self._cameras = Cameras()

    def show(self, image):
        """Render ``image`` in the 3D views; those that showed nothing are turned to it.

        Nothing happens where the user has switched Slicer's Volume Rendering module off.
        """
        module = getattr(slicer.modules, "volumerendering", None)
        if module is None:
            return
        logic = module.logic()
        if self._display is None:
            existing = logic.GetFirstVolumeRenderingDisplayNode(image)
            self._own = existing is None
            self._wasVisible = bool(existing and existing.GetVisibility())
            self._display = existing or logic.CreateDefaultVolumeRenderingNodes(image)
            if self._own:
                _makeTranslucent(self._display.GetVolumePropertyNode().GetVolumeProperty())
        self._display.SetVisibility(True)
        self._cameras.lookAt(image)

    def hide(self):
        """No rendering, but it can be shown again."""
        if self._exists():
            self._display.SetVisibility(self._wasVisible and not self._own)

    def remove(self):
        """3D views as they were before."""
        if self._exists():
            if self._own:
                _removeWithProperty(self._display)
            else:
                self._display.SetVisibility(self._wasVisible)
        self._cameras.restore()
        self._display = None

    def forget(self):
        """The scene closes, or the user keeps what is shown."""
        self._cameras.forget()
        self._display = None

    def _exists(self):
        return self._display is not None and slicer.mrmlScene.IsNodePresent(self._display)


def _makeTranslucent(volumeProperty):
    opacity = volumeProperty.GetScalarOpacity()
    opacity.RemoveAllPoints()
    for point in _OPACITY:
        opacity.AddPoint(*point)
    gradient = volumeProperty.GetGradientOpacity()
    gradient.RemoveAllPoints()
    for point in _GRADIENT:
        gradient.AddPoint(*point)
    colors = volumeProperty.GetRGBTransferFunction()
    colors.RemoveAllPoints()
    for color in _COLORS:
        colors.AddRGBPoint(*color)
    volumeProperty.ShadeOn()


def _removeWithProperty(display):
    """The display node, its transfer functions and its crop box."""
    for node in (display.GetVolumePropertyNode(), display.GetROINode(), display):
        if node and slicer.mrmlScene.IsNodePresent(node):
            slicer.mrmlScene.RemoveNode(node)
