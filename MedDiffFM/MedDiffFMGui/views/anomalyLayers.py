"""How an anomaly map and what belongs to it look in the slice and 3D views."""

from dataclasses import dataclass

import slicer
from slicer.i18n import tr as _

from ..nodes.colors import INFERNO, differenceColors
from .viewState import compositeNodes

HEAT_WINDOW = (0.0, 10.0)  # fixed, so that the same color means the same z-score in every patient
LEGEND_POINTS = 8
LEGEND_SIZE, LEGEND_PLACE = (0.09, 0.28), (0.97, 0.97)
"""Shares of the view; a corner of one view is enough, for all have the same colors."""
LEGEND_VIEWS = ("vtkMRMLSliceNodeRed", "vtkMRMLSliceNodeMedDiffFMAfter")
UNCERTAINTY_WINDOW = (0.0, 200.0)
DIFFERENCE_WINDOW = (-500.0, 500.0)


@dataclass(frozen=True)
class Layer:
    """One choice of the Show buttons.

    :param role: of the volume among the nodes of the map.
    :param legend: title of its color legend; empty for a CT.
    :param opacity: at first.
    """

    role: str
    legend: str
    opacity: float


def layers():
    """The choices by name, in the panel's order."""
    return {
        "heat": Layer("anomaly", _("z"), 0.7),
        "healthy": Layer("healthy", "", 1.0),
        "difference": Layer("difference", _("HU"), 0.8),
        "uncertainty": Layer("uncertainty", _("HU"), 0.6),
    }


def styleLayer(name, node, threshold):
    """Colors, window and transparent values of a layer's volume."""
    display = node.GetDisplayNode()
    if name == "healthy":
        return  # the input's own window
    with slicer.util.NodeModify(display):
        display.SetAutoWindowLevel(False)
        display.SetAutoThreshold(False)
        if name == "difference":
            display.SetAndObserveColorNodeID(differenceColors().GetID())
            display.SetWindowLevelMinMax(*DIFFERENCE_WINDOW)
            return
        display.SetAndObserveColorNodeID(INFERNO)
        display.SetWindowLevelMinMax(*(HEAT_WINDOW if name == "heat" else UNCERTAINTY_WINDOW))
        # Below the threshold transparent; the uncertainty is 0 where nothing was judged.
        lower = threshold if name == "heat" else 1e-3
        display.SetThreshold(lower, 1e6)
        display.SetApplyThreshold(True)


def setThreshold(node, threshold):
    """Move the limit below which the heat map is transparent."""
    node.GetDisplayNode().SetThreshold(threshold, 1e6)


def showLayer(image, node, opacity):
    """The layer over the CT in every slice view."""
    with slicer.util.RenderBlocker():
        for composite in compositeNodes():
            with slicer.util.NodeModify(composite):
                composite.SetBackgroundVolumeID(image.GetID())
                composite.SetForegroundVolumeID(node.GetID() if node else None)
                composite.SetForegroundOpacity(opacity)


def showLegend(node, title, visible, labelFormat="%.0f"):
    """The color legend of a layer; a legend that was never shown is not made."""
    logic = slicer.modules.colors.logic()
    legend = logic.GetColorLegendDisplayNode(node)
    if legend is None:
        if not visible:
            return
        legend = logic.AddDefaultColorLegendDisplayNode(node)
        legend.SetTitleText(title)
        for text in (legend.GetTitleTextProperty(), legend.GetLabelTextProperty()):
            text.SetFontSize(LEGEND_POINTS)
        legend.SetNumberOfLabels(3)
        legend.SetSize(*LEGEND_SIZE)
        legend.SetPosition(*LEGEND_PLACE)
        legend.SetViewNodeIDs(LEGEND_VIEWS)
        legend.SetLabelFormat(labelFormat)
    legend.SetVisibility(visible)


def jump(location):
    """All slice views go to a place; a view in whose picture it would not be is centered on it.

    :param location: world (R, A, S), mm.
    """
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        if _inPicture(node, location):
            node.JumpSliceByOffsetting(*location)
        else:
            node.JumpSliceByCentering(*location)


def _inPicture(sliceNode, location):
    import vtk

    toView = vtk.vtkMatrix4x4()
    vtk.vtkMatrix4x4.Invert(sliceNode.GetXYToRAS(), toView)
    x, y = toView.MultiplyPoint((*location, 1.0))[:2]
    width, height = sliceNode.GetDimensions()[:2]
    return 0 <= x < width and 0 <= y < height
