"""Which segments of a segmentation go into a case."""

from typing import Any

import qt
import slicer

from ..views.colorIcon import colorIcon


class SegmentChoice:
    """A checkable list of segments that follows the chosen segmentation; all are checked at first.

    :param listWidget: QListWidget.
    :param label: QLabel beside it; both are visible only while there is a segmentation.
    :param onChanged: called without arguments when the user checked or unchecked one.
    """

    def __init__(self, listWidget, label, onChanged):
        self._list, self._label = listWidget, label
        self._onChanged = onChanged
        self._node: Any = None
        self._observations: list[int] = []
        self._unchecked: set[str] = set()
        listWidget.connect("itemChanged(QListWidgetItem*)", self._onItemChanged)
        self.setNode(None)

    def setNode(self, node):
        """Offer the segments of another segmentation; None, or a label map, has none to choose from."""
        self._forget()
        if node is not None and node.IsA("vtkMRMLSegmentationNode"):
            self._node = node
            kinds = slicer.vtkSegmentation
            for event in (kinds.SegmentAdded, kinds.SegmentRemoved, kinds.SegmentModified, kinds.SegmentsOrderModified):
                self._observations.append(node.AddObserver(event, self._fill))
        self._fill()

    def checkedIDs(self):
        """Identifiers of the checked segments; None where there is nothing to choose from."""
        if self._node is None:
            return None
        return [segmentID for segmentID in self._segmentIDs() if segmentID not in self._unchecked]

    def remove(self):
        """Follow the segmentation no longer."""
        self._forget()

    def _forget(self):
        for tag in self._observations if self._node is not None else ():
            self._node.RemoveObserver(tag)
        self._node, self._observations, self._unchecked = None, [], set()

    def _segmentIDs(self):
        return list(self._node.GetSegmentation().GetSegmentIDs())

    def _fill(self, *_event):
        wasBlocked = self._list.blockSignals(True)
        self._list.clear()
        for row, segmentID in enumerate(self._segmentIDs() if self._node is not None else ()):
            segment = self._node.GetSegmentation().GetSegment(segmentID)
            self._list.addItem(segment.GetName())
            item = self._list.item(row)
            item.setIcon(colorIcon(segment.GetColor()))
            item.setData(qt.Qt.UserRole, segmentID)
            item.setCheckState(qt.Qt.Unchecked if segmentID in self._unchecked else qt.Qt.Checked)
        self._list.blockSignals(wasBlocked)
        self._list.visible = self._label.visible = self._node is not None

    def _onItemChanged(self, item):
        segmentID = item.data(qt.Qt.UserRole)
        if item.checkState() == qt.Qt.Checked:
            self._unchecked.discard(segmentID)
        else:
            self._unchecked.add(segmentID)
        self._onChanged()
