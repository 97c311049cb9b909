"""A volume mixed from before and after, for who compares edges and texture: a swipe, or a checkerboard."""

from typing import Any

import slicer

from ..nodes.volumeNodes import addResultNode, volumeFromNode

SQUARE_MM = 30.0


class Mixture:
    """One volume node that exists while it is looked at; both sides lie on one grid."""

    def __init__(self):
        self.node: Any = None

    def swipe(self, before, after, share):
        """Before on the patient's right, after on the left of a plane.

        :param share: of the width that shows the result, 0 to 1.
        :return: the node.
        """
        import numpy as np

        volume = volumeFromNode(before)
        directions = volume.ijk_to_ras[:3, :3] / np.linalg.norm(volume.ijk_to_ras[:3, :3], axis=0)
        axis = int(np.argmax(np.abs(directions[0])))
        size = volume.voxels.shape[2 - axis]
        shown = np.arange(size) < round(share * size)
        if directions[0, axis] < 0:  # the index grows to the patient's left
            shown = shown[::-1]
        return self._show(before, after, shown.reshape([-1 if n == 2 - axis else 1 for n in range(3)]))

    def checkerboard(self, before, after, edge=SQUARE_MM):
        """Squares of before and after in turn.

        :param edge: of a cube, mm.
        :return: the node.
        """
        import numpy as np

        volume = volumeFromNode(before)
        index = np.ogrid[tuple(slice(size) for size in volume.voxels.shape)]
        steps = [np.maximum(np.rint(edge / space), 1).astype(int) for space in volume.spacing[::-1]]
        parity = sum(axis // step for axis, step in zip(index, steps, strict=True)) % 2
        return self._show(before, after, parity == 1)

    def remove(self):
        """Take the node out of the scene."""
        node, self.node = self.node, None
        if node and slicer.mrmlScene.IsNodePresent(node):
            slicer.mrmlScene.RemoveNode(node)

    def _show(self, before, after, isAfter):
        import numpy as np

        first, second = slicer.util.arrayFromVolume(before), slicer.util.arrayFromVolume(after)
        if self.node is None or not slicer.mrmlScene.IsNodePresent(self.node):
            mixed = np.where(isAfter, second, first)
            self.node = addResultNode(mixed, before, f"{after.GetName()} beside {before.GetName()}", sameDisplay=True)
            self.node.SetHideFromEditors(True)
            self.node.SetSaveWithScene(False)
        else:
            array = slicer.util.arrayFromVolume(self.node)
            array[:] = np.where(isAfter, second, first)
            slicer.util.arrayFromVolumeModified(self.node)
        return self.node
