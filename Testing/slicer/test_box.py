"""Looking only inside a box: which voxels it covers, on every grid and under transforms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


@pytest.mark.parametrize("ct", ["plain", "oblique", "flipped"], indirect=True)
def test_a_new_box_limits_the_search_to_the_voxels_inside(app: Any, widget: Any, ct: Any) -> None:
    from MedDiffFMGui.runs.runRequest import makeRequest
    from MedDiffFMGui.worker.eventLoopTasks import drained

    slicer = app.slicer
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    widget.taskPanel.choose("anomaly")
    slicer.util.setSliceViewerLayers(background=ct, fit=True)
    widget.ui.newBoxButton.click()
    box = widget.logic.getParameterNode().searchArea
    assert box.IsA("vtkMRMLMarkupsROINode") and widget.ui.searchAreaSelector.currentNode() is box
    bounds = [0.0] * 6
    ct.GetRASBounds(bounds)
    center = np.array(bounds).reshape(3, 2).mean(axis=1)
    box.SetCenter(*center)
    box.SetSize(12.0, 16.0, 20.0)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = np.eye(4)
    matrix[:3, 3] = 4.0, -3.0, 2.0
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    ct.SetAndObserveTransformNodeID(transform.GetID())
    request, _piece = drained(makeRequest(ct, widget.taskPanel.choices()))
    toRAS = slicer.util.arrayFromVTKMatrix(_matrix(ct))
    k, j, i = np.indices(request.mask.shape)
    world = np.stack([i, j, k, np.ones_like(i)], axis=-1) @ (matrix @ toRAS).T
    expected = (np.abs(world[..., :3] - center) <= np.array([6.0, 8.0, 10.0])).all(axis=-1)
    assert expected.any() and np.array_equal(request.mask, expected)


def _matrix(node: Any) -> Any:
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return matrix
