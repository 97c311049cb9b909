"""Two linked slice views next to each other: before and after, or two that are compared."""

from typing import NamedTuple

import qt
import slicer

from .viewState import restoreLayout

VIEW_NAMES = ("MedDiffFMBefore", "MedDiffFMAfter")
_VIEW = """
  <item>
   <view class="vtkMRMLSliceNode" singletontag="{name}">
    <property name="orientation" action="default">Axial</property>
    <property name="viewlabel" action="default">{label}</property>
    <property name="viewcolor" action="default">{color}</property>
    <property name="viewgroup" action="default">73</property>
   </view>
  </item>"""


class Views(NamedTuple):
    """A layout of two views.

    :param names: what Slicer calls them.
    :param labels: letters in their corners.
    """

    layoutID: int
    names: tuple
    labels: tuple


BEFORE_AFTER = Views(7310, VIEW_NAMES, ("B", "A"))
LEFT_RIGHT = Views(7311, ("MedDiffFMLeft", "MedDiffFMRight"), ("L", "R"))


class SideBySide:
    """The layout with the two views; ``hide`` brings the user's own layout back.

    :param views: row of this file.
    :param place: called with the logic of a view whose volume is new; the red view's place by default.
    """

    def __init__(self, views=BEFORE_AFTER, place=None):
        self._views, self._place = views, place or _lookLikeRed
        self._before = None

    @property
    def shown(self):
        """Whether the layout is in use."""
        return self._before is not None

    def show(self, first, second):
        """Show two volumes at the place that the user looks at.

        :param first, second: volume nodes; the views move together.
        """
        manager = slicer.app.layoutManager()
        if not self.shown:
            self._before = manager.layout
        layoutNode = manager.layoutLogic().GetLayoutNode()
        if not layoutNode.IsLayoutDescription(self._views.layoutID):
            layoutNode.AddLayoutDescription(self._views.layoutID, _description(self._views))
        manager.setLayout(self._views.layoutID)
        for name, volume in zip(self._views.names, (first, second)):  # noqa: B905
            logic = manager.sliceWidget(name).sliceLogic()
            composite = logic.GetSliceCompositeNode()
            composite.SetLinkedControl(False)  # else the second volume would go into the first view too
            composite.SetBackgroundVolumeID(volume.GetID())
            composite.SetForegroundVolumeID(None)
            composite.SetLabelVolumeID(None)
            self._place(logic)
        for name in self._views.names:
            manager.sliceWidget(name).sliceLogic().GetSliceCompositeNode().SetLinkedControl(True)
        # Views that have just been made go to their first slice when they get their size, in the event loop.
        qt.QTimer.singleShot(0, self.placeAgain)

    def placeAgain(self):
        """Both views where they opened."""
        manager = slicer.app.layoutManager()
        if manager.layout == self._views.layoutID:
            for name in self._views.names:
                self._place(manager.sliceWidget(name).sliceLogic())

    def hide(self):
        """The user's layout again, unless another one was chosen meanwhile."""
        before, self._before = self._before, None
        if before is not None and slicer.app.layoutManager().layout == self._views.layoutID:
            restoreLayout(before)


def _description(shown):
    labels = zip(shown.names, shown.labels, ("#4A90D9", "#F0A030"))  # noqa: B905
    views = "".join(_VIEW.format(name=name, label=label, color=color) for name, label, color in labels)
    return f'<layout type="horizontal" split="true">{views}\n</layout>'


def _lookLikeRed(logic):
    """The plane, the center and the scale of the red view, or the whole volume where there is none."""
    red = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeRed")
    node = logic.GetSliceNode()
    logic.FitSliceToBackground()
    if red is None:
        return
    width, height = node.GetDimensions()[:2]
    across, _down, depth = red.GetFieldOfView()
    scale = across / max(red.GetDimensions()[0], 1)  # mm a pixel
    if width > 0 and height > 0:  # a view that has just been made gets its size in the event loop
        node.SetFieldOfView(scale * width, scale * height, depth)
    node.GetSliceToRAS().DeepCopy(red.GetSliceToRAS())
    node.UpdateMatrices()
