"""Two linked slice views next to each other: before and after."""

import qt
import slicer

from .viewState import restoreLayout

LAYOUT_ID = 7310
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


class SideBySide:
    """The layout with the two views; ``hide`` brings the user's own layout back."""

    def __init__(self):
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
        if not layoutNode.IsLayoutDescription(LAYOUT_ID):
            layoutNode.AddLayoutDescription(LAYOUT_ID, _description())
        manager.setLayout(LAYOUT_ID)
        for name, volume in zip(VIEW_NAMES, (first, second)):  # noqa: B905
            logic = manager.sliceWidget(name).sliceLogic()
            composite = logic.GetSliceCompositeNode()
            composite.SetLinkedControl(False)  # else the second volume would go into the first view too
            composite.SetBackgroundVolumeID(volume.GetID())
            composite.SetForegroundVolumeID(None)
            composite.SetLabelVolumeID(None)
            _lookLikeRed(logic)
        for name in VIEW_NAMES:
            manager.sliceWidget(name).sliceLogic().GetSliceCompositeNode().SetLinkedControl(True)
        # Views that have just been made go to their first slice when they get their size, in the event loop.
        qt.QTimer.singleShot(0, self._placeAgain)

    def _placeAgain(self):
        manager = slicer.app.layoutManager()
        if manager.layout == LAYOUT_ID:
            for name in VIEW_NAMES:
                _lookLikeRed(manager.sliceWidget(name).sliceLogic())

    def hide(self):
        """The user's layout again, unless another one was chosen meanwhile."""
        before, self._before = self._before, None
        if before is not None and slicer.app.layoutManager().layout == LAYOUT_ID:
            restoreLayout(before)


def _description():
    labels = zip(VIEW_NAMES, ("B", "A"), ("#4A90D9", "#F0A030"))  # noqa: B905
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
