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
    from MedDiffFMGui.volumeNodes import addResultNode, volumeFromNode

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
    from MedDiffFMGui.volumeNodes import addResultNode, volumeFromNode

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
    from MedDiffFMGui.volumeNodes import volumeFromNode

    volume = volumeFromNode(ct)
    i, j, k = 3, 5, 7
    assert volume.voxels[k, j, i] == ct.GetImageData().GetScalarComponentAsDouble(i, j, k, 0)
    transformed = matrix(app.slicer, ct) @ [i, j, k, 1]
    assert np.allclose(volume.ijk_to_ras @ [i, j, k, 1], transformed, atol=0)


def test_result_takes_window_transform_and_study(app: Any, module: Any, ct: Any) -> None:
    from MedDiffFMGui.volumeNodes import addResultNode, volumeFromNode

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
    from MedDiffFMGui.volumeNodes import addResultNode, volumeFromNode

    names = [addResultNode(volumeFromNode(ct).voxels, ct, "denoised", True).GetName() for _ in range(3)]
    assert len(set(names)) == 3
