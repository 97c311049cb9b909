"""Windows in which a CT or an MR is read."""

import slicer

from ..nodes.resultRecord import OUTPUT, TASK
from ..nodes.volumeNodes import thinnedOut
from .viewState import compositeNodes

WINDOWS = {"lung": (1400, -500), "soft": (400, 40), "bone": (1800, 400)}
"""Width and level, HU."""
MR_WINDOWS = {"lung": (0.4, 0.2), "soft": (0.8, 0.4), "bone": (1.3, 0.65)}
"""Width and level of an MR, in units of its bright tissue: what is dark, muscle, fat and marrow."""
GREY = "vtkMRMLColorTableNodeGrey"


def setWindow(name):
    """Show every grey CT and MR of the slice views, before and after alike, in a window; X-rays stay as they are.

    :param name: "lung", "soft" or "bone".
    """
    identifiers = set()
    for composite in compositeNodes():
        identifiers |= {composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID()}
    with slicer.util.RenderBlocker():
        for identifier in filter(None, identifiers):
            node = slicer.mrmlScene.GetNodeByID(identifier)
            display = node.GetDisplayNode() if node else None
            if display and display.IsA("vtkMRMLScalarVolumeDisplayNode") and display.GetColorNodeID() == GREY:
                window = _window(name, node)
                if window is not None:
                    with slicer.util.NodeModify(display):
                        display.SetAutoWindowLevel(False)
                        display.SetWindowLevel(*window)


def _window(name, node):
    """Width and level for one volume; None for an X-ray."""
    import numpy as np

    from MedDiffFMLib.tasks.output_kinds import OutputKind
    from MedDiffFMLib.tasks.registry import TASKS

    task = TASKS.get(node.GetAttribute(TASK) or "")
    if task is not None and task.output(node.GetAttribute(OUTPUT)).kind is OutputKind.XRAY:
        return None
    values = thinnedOut(slicer.util.arrayFromVolume(node))
    if values.min() < 0:  # the signal of an MR is not negative
        return WINDOWS[name]
    bright = float(np.percentile(values[values >= values.mean()], 95))
    return tuple(bright * part for part in MR_WINDOWS[name])
