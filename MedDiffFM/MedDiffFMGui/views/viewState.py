"""The user's views as they were, so that nothing is changed without a way back."""

import slicer
import vtk

_LAYERS = ("Background", "Foreground", "Label")


class ViewState:
    """Layout, and of every slice view its layers, its place and how labels are drawn, at the moment of its making."""

    def __init__(self):
        self.layout = slicer.app.layoutManager().layout
        self._slices = {node.GetID(): _layersOf(node) for node in compositeNodes()}
        self._outlined = {node.GetID(): node.GetUseLabelOutline() for node in sliceNodes()}
        self._places = {node.GetID(): _placeOf(node) for node in sliceNodes()}

    def restore(self, places=False):
        """Layout and layers as they were; a volume that is gone by now leaves its layer empty.

        :param places: slices and fields of view, too; else they stay where the user has gone meanwhile.
        """
        with slicer.util.RenderBlocker():
            restoreLayout(self.layout)
            for node in compositeNodes():
                if node.GetID() in self._slices:
                    _setLayers(node, self._slices[node.GetID()])
            for node in sliceNodes():
                if node.GetID() in self._outlined:
                    node.SetUseLabelOutline(self._outlined[node.GetID()])
                if places and node.GetID() in self._places:
                    _setPlace(node, self._places[node.GetID()])

    def restorePlace(self, node):
        """Slice and field of view of one slice view as they were."""
        if node and node.GetID() in self._places:
            _setPlace(node, self._places[node.GetID()])


def restoreLayout(layout):
    """Bring a layout back if another one is shown."""
    manager = slicer.app.layoutManager()
    if manager.layout != layout:
        manager.setLayout(layout)


def compositeNodes():
    """What every slice view, shown or not, has as layers."""
    return slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")


def sliceNodes():
    """All slice views."""
    return slicer.util.getNodesByClass("vtkMRMLSliceNode")


def _layersOf(node):
    volumes = {layer: getattr(node, f"Get{layer}VolumeID")() for layer in _LAYERS}
    return volumes, node.GetForegroundOpacity(), node.GetLabelOpacity()


def _setLayers(node, layers):
    volumes, foregroundOpacity, labelOpacity = layers
    with slicer.util.NodeModify(node):
        for layer, volumeID in volumes.items():
            exists = volumeID and slicer.mrmlScene.GetNodeByID(volumeID)
            getattr(node, f"Set{layer}VolumeID")(volumeID if exists else None)
        node.SetForegroundOpacity(foregroundOpacity)
        node.SetLabelOpacity(labelOpacity)


def _placeOf(node):
    plane = vtk.vtkMatrix4x4()
    plane.DeepCopy(node.GetSliceToRAS())
    return plane, node.GetFieldOfView(), node.GetXYZOrigin()


def _setPlace(node, place):
    plane, fieldOfView, origin = place
    node.GetSliceToRAS().DeepCopy(plane)
    node.SetFieldOfView(*fieldOfView)
    node.SetXYZOrigin(*origin)
    node.UpdateMatrices()
