"""The window stays usable while much changes at once; counted in draws of a view."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from Testing.harness import pictures
from Testing.harness.geometries import GEOMETRIES

REGIONS = 100


@pytest.mark.slow
def test_a_hundred_regions_are_replaced_without_drawing_for_each(app: Any, module: Any) -> None:
    from MedDiffFMGui.nodes.regionSegments import replacingRegions
    from MedDiffFMGui.worker.eventLoopTasks import drained

    numbered, boxes = np.zeros((60, 100, 100), np.uint8), {}
    for number in range(1, REGIONS + 1):
        k, rest = divmod(number - 1, 25)
        j, i = divmod(rest, 5)
        boxes[number] = (slice(14 * k, 14 * k + 8), slice(19 * j, 19 * j + 8), slice(19 * i, 19 * i + 8))
        numbered[boxes[number]] = number
    regions = SimpleNamespace(numbered=numbered, boxes=boxes)
    ct = app.slicer.util.addVolumeFromArray(np.zeros(numbered.shape, np.int16), None, "ct")
    node = app.slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    node.CreateDefaultDisplayNodes()
    view = pictures.ThreeDView()
    try:
        for _round in range(2):  # the second time there are a hundred to take away
            view.draws = 0
            drained(replacingRegions(node, regions, ct, (0.0, 1.0, 1.0)))
            assert node.GetSegmentation().GetNumberOfSegments() == REGIONS
            assert view.draws <= 2
    finally:
        view.close()


@pytest.mark.parametrize("ct", GEOMETRIES, indirect=True)
def test_body_surrounds_what_is_in_it_on_every_grid(app: Any, module: Any, ct: Any) -> None:
    """Its surface lies on the tissue's border, half a cell away at most, and its triangles face outward."""
    from MedDiffFMGui.nodes.bodySurfaces import CELL_MM, makingSurfaces
    from MedDiffFMGui.nodes.volumeNodes import volumeFromNode
    from MedDiffFMGui.worker.eventLoopTasks import drained
    from vtk.util.numpy_support import vtk_to_numpy

    volume = volumeFromNode(ct)
    body = drained(makingSurfaces(ct))["body"]
    points = vtk_to_numpy(body.GetPoints().GetData())
    center = (volume.ijk_to_ras @ [13.5, 11.5, 9.5, 1])[:3]
    normals = vtk_to_numpy(body.GetPointData().GetNormals())
    assert (np.einsum("ij,ij->i", normals, points - center) > 0).mean() > 0.95
    ijk = (np.c_[points, np.ones(len(points))] @ np.linalg.inv(volume.ijk_to_ras).T)[:, :3]
    away = np.linalg.norm((ijk - [13.5, 11.5, 9.5]) / [12, 10, 9], axis=1)
    cells = max(CELL_MM, max(volume.spacing)) / (9 * min(volume.spacing))
    assert abs(np.median(away) - 1) < cells


def test_nothing_in_3d_is_translucent_or_a_volume(app: Any, module: Any, ct: Any) -> None:
    """Either takes software seconds: 1.1 s for a hundred translucent regions in 1400 x 900 pixels, 0.15 s
    for opaque ones, 20 s for the volume."""
    from MedDiffFMGui.nodes.anomalyNodes import showInOutline
    from MedDiffFMGui.views.bodyView import BodyView

    view, body = pictures.ThreeDView(), BodyView()
    try:
        regions = app.slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        regions.CreateDefaultDisplayNodes()
        showInOutline(regions.GetDisplayNode())
        labels = np.zeros((20, 24, 28), np.uint8)
        labels[8:12, 8:12, 8:12] = 1
        segment = regions.GetSegmentation().AddEmptySegment("1", "1")
        app.slicer.util.updateSegmentBinaryLabelmapFromArray(labels, regions, segment, ct)
        regions.CreateClosedSurfaceRepresentation()
        body.show(ct)
        app.wait(lambda: body.shown)
        drawn = [prop for prop in view.props() if prop.GetVisibility()]
        assert len(drawn) == 3 and {prop.GetClassName() for prop in drawn} == {"vtkOpenGLActor"}
        assert [prop.HasTranslucentPolygonalGeometry() for prop in drawn] == [0, 0, 0]
    finally:
        body.remove()
        view.close()


@pytest.mark.skipif(not hasattr(os, "setpriority") or os.geteuid() != 0, reason="only root may raise its priority")
def test_the_window_does_not_stand_behind_its_worker(app: Any, widget: Any, ct: Any) -> None:
    """Slicer lowers itself to nice 19; a worker that leaves that on all cores would hold up every picture."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, max(before, 5))
    try:
        widget.logic.run("denoise", ct)
        assert os.getpriority(os.PRIO_PROCESS, 0) <= 0
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)
