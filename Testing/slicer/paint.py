"""What a brush does to the mask of the module."""

from __future__ import annotations

from typing import Any

import numpy as np


def paint_ball(app: Any, widget: Any, center: tuple[float, ...], radius_mm: float) -> np.ndarray:
    """Add a ball to the mask, with a state for undo as the Paint effect keeps; gives the whole mask (k, j, i).

    Args:
        center: voxel index (k, j, i).
    """
    slicer, mask = app.slicer, widget.maskPanel.parameterNode.mask
    volume = widget.maskPanel.parameterNode.inputVolume
    widget.maskPanel.editor.saveStateForUndo()
    painted = slicer.util.arrayFromSegmentBinaryLabelmap(mask, "region", volume)
    spacing = np.array(volume.GetSpacing())[::-1]
    offsets = (np.indices(painted.shape).T - np.array(center)) * spacing
    ball = (np.linalg.norm(offsets, axis=-1) <= radius_mm).T
    whole = (painted > 0) | ball
    slicer.util.updateSegmentBinaryLabelmapFromArray(whole.astype(np.uint8), mask, "region", volume)
    app.qt.processEvents()
    return whole
