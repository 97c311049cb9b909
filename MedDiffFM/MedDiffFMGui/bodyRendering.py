"""A translucent volume rendering of the CT, behind which the regions of findings can be seen."""

from typing import Any

import slicer

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
    """Shows and hides the rendering of one CT; a rendering of the user's own is used as it is and left as it was."""

    def __init__(self):
        self._display: Any = None
        self._own = False
        self._wasVisible = False
        self._cameras = {}

    def show(self, image):
        """Render ``image`` in the 3D views; those that showed nothing are turned to it.

        Nothing happens where the user has switched Slicer's Volume Rendering module off.
        """
        module = getattr(slicer.modules, "volumerendering", None)
        if module is None:
            return
        logic = module.logic()
        if self._display is None:
            self._cameras = {node.GetID(): _pose(node) for node in _cameraNodes()}
            existing = logic.GetFirstVolumeRenderingDisplayNode(image)
            self._own = existing is None
            self._wasVisible = bool(existing and existing.GetVisibility())
            self._display = existing or logic.CreateDefaultVolumeRenderingNodes(image)
            if self._own:
                _makeTranslucent(self._display.GetVolumePropertyNode().GetVolumeProperty())
        self._display.SetVisibility(True)
        _lookAt(image)

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
        for nodeID, pose in self._cameras.items():
            node = slicer.mrmlScene.GetNodeByID(nodeID)
            if node:
                _setPose(node, pose)
        self._display, self._cameras = None, {}

    def forget(self):
        """The scene closes, or the user keeps what is shown."""
        self._display, self._cameras = None, {}

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


# Cameras


def _cameraNodes():
    return slicer.util.getNodesByClass("vtkMRMLCameraNode")


def _pose(node):
    return node.GetPosition(), node.GetFocalPoint(), node.GetViewUp()


def _setPose(node, pose):
    position, focalPoint, viewUp = pose
    with slicer.util.NodeModify(node):
        node.SetPosition(*position)
        node.SetFocalPoint(*focalPoint)
        node.SetViewUp(*viewUp)
    node.ResetClippingRange()


def _lookAt(image):
    """Turn cameras that do not have the CT in view to it, from the front; the others are the user's."""
    bounds = [0.0] * 6
    image.GetRASBounds(bounds)
    center = [(bounds[2 * axis] + bounds[2 * axis + 1]) / 2 for axis in range(3)]
    size = max(bounds[2 * axis + 1] - bounds[2 * axis] for axis in range(3))
    for node in _cameraNodes():
        away = sum((a - b) ** 2 for a, b in zip(node.GetFocalPoint(), center, strict=True)) ** 0.5
        if away > size / 4:
            _setPose(node, ((center[0], center[1] + 2.2 * size, center[2]), center, (0.0, 0.0, 1.0)))


def centreCameras(location):
    """Let the 3D views turn about a place without changing their direction or distance."""
    for node in _cameraNodes():
        move = [new - old for new, old in zip(location, node.GetFocalPoint(), strict=True)]
        position = [old + step for old, step in zip(node.GetPosition(), move, strict=True)]
        _setPose(node, (position, location, node.GetViewUp()))
