"""Two volumes side by side that nothing but their voxels tells apart."""

import slicer

from ..nodes.volumeNodes import addResultNode
from .sideBySide import LEFT_RIGHT, SideBySide


class PairView:
    """One pair in two linked views, in the same window, at the same place."""

    def __init__(self):
        self._sideBySide = SideBySide(LEFT_RIGHT, _lookAtOrigin)
        self._nodes = []
        self._hidden = []  # displays of what would lie over the pair

    @property
    def shown(self):
        """Whether a pair is in the views."""
        return bool(self._nodes)

    def show(self, volumes, window):
        """Replace what is shown.

        :param volumes: library volumes, left and right; what is asked about lies at the origin.
        :param window: (width, level), HU.
        """
        before, self._nodes = (
            self._nodes,
            [_addNode(volume, side, window) for volume, side in zip(volumes, ("left", "right"), strict=True)],
        )
        with slicer.util.RenderBlocker():
            self._hideOthers()
            self._sideBySide.show(*self._nodes)
        _remove(before)

    def placeAgain(self):
        """Both views as they opened."""
        self._sideBySide.placeAgain()

    def close(self):
        """The user's own layout; nothing of the pair is left in the scene."""
        self._sideBySide.hide()
        nodes, self._nodes = self._nodes, []
        _remove(nodes)
        for display in self._hidden:
            if slicer.mrmlScene.IsNodePresent(display):
                display.SetVisibility(True)
        self._hidden = []

    def _hideOthers(self):
        """Segments and markups are drawn in every slice view, also over a piece that they do not belong to."""
        for kind in ("vtkMRMLSegmentationDisplayNode", "vtkMRMLMarkupsDisplayNode"):
            for display in slicer.util.getNodesByClass(kind):
                if display.GetVisibility():
                    display.SetVisibility(False)
                    self._hidden.append(display)


def _addNode(volume, name, window):
    """A volume that is in no list and in no saved scene."""
    node = addResultNode(volume.voxels, None, name, False, volume.ijk_to_ras.tolist())
    node.SetName(name)  # that of the pair before is still in the scene
    node.SetHideFromEditors(True)
    node.SetSaveWithScene(False)
    node.GetDisplayNode().SetWindowLevel(*window)
    return node


def _remove(nodes):
    for node in nodes:
        if slicer.mrmlScene.IsNodePresent(node):
            slicer.mrmlScene.RemoveNode(node)


def _lookAtOrigin(logic):
    logic.FitSliceToBackground()
    logic.GetSliceNode().JumpSliceByCentering(0.0, 0.0, 0.0)
