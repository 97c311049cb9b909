"""Windows in which a CT is read."""

import slicer

from .viewState import compositeNodes

WINDOWS = {"lung": (1400, -500), "soft": (400, 40), "bone": (1800, 400)}
"""Width and level, HU."""
GREY = "vtkMRMLColorTableNodeGrey"


def setWindow(window):
    """Show every grey volume of the slice views, before and after alike, in a window.

    :param window: (width, level), HU.
    """
    identifiers = set()
    for composite in compositeNodes():
        identifiers |= {composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID()}
    with slicer.util.RenderBlocker():
        for identifier in filter(None, identifiers):
            node = slicer.mrmlScene.GetNodeByID(identifier)
            display = node.GetDisplayNode() if node else None
            if display and display.IsA("vtkMRMLScalarVolumeDisplayNode") and display.GetColorNodeID() == GREY:
                with slicer.util.NodeModify(display):
                    display.SetAutoWindowLevel(False)
                    display.SetWindowLevel(*window)
