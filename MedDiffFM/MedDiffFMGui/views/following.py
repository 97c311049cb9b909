"""What was made of a CT stays on it when the CT is put under a transform."""

import slicer
from slicer.util import VTKObservationMixin


class Following(VTKObservationMixin):
    """Gives nodes the transform of a CT, whenever that changes.

    :param nodes: called without arguments; gives the nodes, None among them for those that are not there.
    """

    def __init__(self, nodes):
        VTKObservationMixin.__init__(self)
        self._nodes = nodes

    def start(self, image):
        """Follow a volume node, and no other."""
        self.removeObservers()
        self.addObserver(image, slicer.vtkMRMLTransformableNode.TransformModifiedEvent, self._onMoved)

    def stop(self):
        """Stay where the nodes are."""
        self.removeObservers()

    def _onMoved(self, image, event):
        transform = image.GetTransformNodeID()
        for node in filter(None, self._nodes()):
            if node.GetTransformNodeID() != transform:
                node.SetAndObserveTransformNodeID(transform)
