"""Volume nodes to library volumes and back: geometry to the last bit, display and place as the input's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from Testing.harness.geometries import GEOMETRIES


def matrix(slicer: Any, node: Any) -> np.ndarray:
    import vtk

    found = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(found)
    return slicer.util.arrayFromVTKMatrix(found)


@pytest.mark.parametrize("ct", GEOMETRIES, indirect=True)
def test_result_lies_exactly_on_the_input(app: Any, module: Any, ct: Any) -> None:
    from MedDiffFMGui.nodes.volumeNodes import addResultNode, volumeFromNode

    before = app.slicer.util.arrayFromVolume(ct).copy()
    volume = volumeFromNode(ct)
    assert np.array_equal(volume.voxels, before)
    assert np.array_equal(volume.ijk_to_ras, matrix(app.slicer, ct))

    result = addResultNode(volume.voxels * 2.0, ct, "thorax denoised", sameDisplay=True)
    assert np.array_equal(matrix(app.slicer, result), matrix(app.slicer, ct))
    assert np.array_equal(app.slicer.util.arrayFromVolume(result), before * 2.0)
    assert np.array_equal(app.slicer.util.arrayFromVolume(ct), before)


@pytest.mark.parametrize("ct", GEOMETRIES, indirect=True)
def test_finer_result_lies_where_its_matrix_says(app: Any, module: Any, ct: Any) -> None:
    from MedDiffFMGui.nodes.volumeNodes import addResultNode, volumeFromNode

    volume = volumeFromNode(ct)
    halved = np.diag([0.5, 0.5, 0.5, 1.0])
    halved[:3, 3] = -0.25
    fine = volume.voxels.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    ijkToRAS = (volume.ijk_to_ras @ halved).tolist()
    result = addResultNode(fine, ct, "thorax fine", sameDisplay=True, ijkToRAS=ijkToRAS)
    assert np.allclose(matrix(app.slicer, result), ijkToRAS, atol=1e-9)
    assert np.array_equal(app.slicer.util.arrayFromVolume(result), fine)


def test_a_voxel_is_found_where_slicer_shows_it(app: Any, module: Any, ct: Any) -> None:
    """The library's (k, j, i) and matrix agree with VTK's own point of that voxel."""
    from MedDiffFMGui.nodes.volumeNodes import volumeFromNode

    volume = volumeFromNode(ct)
    i, j, k = 3, 5, 7
    assert volume.voxels[k, j, i] == ct.GetImageData().GetScalarComponentAsDouble(i, j, k, 0)
    transformed = matrix(app.slicer, ct) @ [i, j, k, 1]
    assert np.allclose(volume.ijk_to_ras @ [i, j, k, 1], transformed, atol=0)


def test_result_takes_window_transform_and_study(app: Any, module: Any, ct: Any) -> None:
    from MedDiffFMGui.nodes.volumeNodes import addResultNode, volumeFromNode

    slicer = app.slicer
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "CT of the chest")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(ct), study)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    ct.SetAndObserveTransformNodeID(transform.GetID())

    result = addResultNode(volumeFromNode(ct).voxels, ct, "thorax denoised", sameDisplay=True)

    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(result)) == study
    assert result.GetParentTransformNode() is transform
    display = result.GetDisplayNode()
    assert (display.GetWindow(), display.GetLevel(), display.GetAutoWindowLevel()) == (350, 40, 0)


def test_names_of_results_do_not_repeat(app: Any, module: Any, ct: Any) -> None:
    from MedDiffFMGui.nodes.volumeNodes import addResultNode, volumeFromNode

    names = [addResultNode(volumeFromNode(ct).voxels, ct, "denoised", True).GetName() for _ in range(3)]
    assert len(set(names)) == 3


# ------------------------------------------------------------------------------------------ segments on a CT's grid


def numbers_of(app: Any, segmentation: Any, ct: Any) -> np.ndarray:
    """Segments 1, 2, ... as Slicer's own export gives them; the later one counts."""
    ids = segmentation.GetSegmentation().GetSegmentIDs()
    whole = np.zeros(app.slicer.util.arrayFromVolume(ct).shape, np.uint8)
    for number, segment in enumerate(ids, start=1):
        whole[app.slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment, ct) > 0] = number
    return whole


def outlined(app: Any, ct: Any, boxes: list[tuple[slice, ...]]) -> Any:
    node = app.slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    node.SetReferenceImageGeometryParameterFromVolumeNode(ct)
    for n, box in enumerate(boxes):
        inside = np.zeros(app.slicer.util.arrayFromVolume(ct).shape, np.uint8)
        inside[box] = 1
        node.GetSegmentation().AddEmptySegment(f"s{n}", f"s{n}")
        app.slicer.util.updateSegmentBinaryLabelmapFromArray(inside, node, f"s{n}", ct)
    return node


BOXES = [np.s_[2:9, 3:12, 4:20], np.s_[10:15, 3:8, 4:9], np.s_[12:20, 5:12, 2:6]]  # the last two overlap: two layers


@pytest.mark.slow
@pytest.mark.parametrize("ct", sorted(GEOMETRIES), indirect=True)
def test_segments_are_where_slicers_export_puts_them(app: Any, module: Any, ct: Any) -> None:
    """Drawn on the CT, on another grid, under a transform, and after a segment of a shared labelmap was deleted."""
    from MedDiffFMGui.nodes.segmentationArrays import _numbered, layers, maskFromSegmentation
    from MedDiffFMGui.worker.eventLoopTasks import drained

    def check(node: Any, on: Any, quick: bool) -> None:
        ids = node.GetSegmentation().GetSegmentIDs()
        found = drained(_numbered(node, on, {segment: n for n, segment in enumerate(ids, start=1)}))
        expected = numbers_of(app, node, on)
        assert expected.any() and np.array_equal(found, expected)
        assert np.array_equal(drained(maskFromSegmentation(node, on)), expected > 0)
        whole = tuple(slice(None) for _ in range(3))
        assert all((layer.box != whole) == quick for layer in layers(node, on, ids))

    node = outlined(app, ct, BOXES)
    check(node, ct, quick=True)
    node.GetSegmentation().RemoveSegment("s0")
    check(node, ct, quick=True)
    shifted = app.slicer.util.addVolumeFromArray(app.slicer.util.arrayFromVolume(ct)[1:, 2:, :-3].copy())
    import vtk

    matrix = vtk.vtkMatrix4x4()
    ct.GetIJKToRASMatrix(matrix)
    corner = matrix.MultiplyPoint((0, 2, 1, 1))
    for axis in range(3):
        matrix.SetElement(axis, 3, corner[axis])
    shifted.SetIJKToRASMatrix(matrix)
    check(node, shifted, quick=True)
    matrix.SetElement(0, 3, corner[0] + 0.4)
    shifted.SetIJKToRASMatrix(matrix)
    check(node, shifted, quick=False)
    transform = app.slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode")
    ct.SetAndObserveTransformNodeID(transform.GetID())
    check(node, ct, quick=False)
    node.SetAndObserveTransformNodeID(transform.GetID())
    check(node, ct, quick=True)


def test_an_empty_segmentation_is_no_mask(app: Any, module: Any, ct: Any) -> None:
    from MedDiffFMGui.nodes.segmentationArrays import maskFromSegmentation
    from MedDiffFMGui.worker.eventLoopTasks import drained

    node = outlined(app, ct, [])
    assert drained(maskFromSegmentation(None, ct)) is None and drained(maskFromSegmentation(node, ct)) is None
    node.GetSegmentation().AddEmptySegment("region")
    assert drained(maskFromSegmentation(node, ct)) is None
