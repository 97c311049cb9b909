"""The cameras of the 3D views."""

import slicer


class Cameras:
    """Cameras turned to a CT, and back to where they were before the first time."""

    def __init__(self):
        self._poses = {}

    def lookAt(self, image):
        """Turn cameras that do not have the CT in view to it, from the front; the others are the user's."""
        self._poses = self._poses or {node.GetID(): _pose(node) for node in _cameraNodes()}
        bounds = [0.0] * 6
        image.GetRASBounds(bounds)
        center = [(bounds[2 * axis] + bounds[2 * axis + 1]) / 2 for axis in range(3)]
        size = max(bounds[2 * axis + 1] - bounds[2 * axis] for axis in range(3))
        for node in _cameraNodes():
            away = sum((a - b) ** 2 for a, b in zip(node.GetFocalPoint(), center, strict=True)) ** 0.5
            if away > size / 4:
                _setPose(node, ((center[0], center[1] + 2.2 * size, center[2]), center, (0.0, 0.0, 1.0)))

    def restore(self):
        """3D views as they were before."""
        for nodeID, pose in self._poses.items():
            node = slicer.mrmlScene.GetNodeByID(nodeID)
            if node:
                _setPose(node, pose)
        self._poses = {}

    def forget(self):
        """The scene closes, or the user keeps what is shown."""
        self._poses = {}


def centerCameras(location):
    """Let the 3D views turn about a place without changing their direction or distance.

    :param location: world (R, A, S), mm.
    """
    for node in _cameraNodes():
        move = [new - old for new, old in zip(location, node.GetFocalPoint(), strict=True)]
        position = [old + step for old, step in zip(node.GetPosition(), move, strict=True)]
        _setPose(node, (position, location, node.GetViewUp()))


def cameraOfView():
    """Position, focal point and view up of the first 3D view's camera, nine numbers in RAS mm; None without a view."""
    node = cameraNode()
    return None if node is None else [round(value, 3) for part in _pose(node) for value in part]


def cameraNode():
    """The camera of the first 3D view; None without a view."""
    return next(iter(_cameraNodes()), None)


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
