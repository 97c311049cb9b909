"""MRML volume nodes to library volumes and back."""

import slicer
import vtk


def volumeFromNode(node):
    """The node's voxels and geometry as a library Volume; it shares the node's memory, so it is only to be read."""
    from MedDiffFMLib.volume import Volume

    ijkToRAS = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(ijkToRAS)
    return Volume(slicer.util.arrayFromVolume(node), slicer.util.arrayFromVTKMatrix(ijkToRAS))


def addResultNode(array, inputNode, name, sameDisplay, ijkToRAS=None):
    """Add a new volume with the input's transform and study, and exactly its geometry or another one.

    :param array: voxels (k, j, i).
    :param inputNode: the volume the result was computed from, which is not changed; None where there is none.
    :param sameDisplay: show with the input's window, level and colors; else Slicer chooses them from the voxels.
    :param ijkToRAS: 4x4 nested lists where the voxels do not lie on the input's grid.
    """
    result = _addVolume("vtkMRMLScalarVolumeNode", array, inputNode, name, ijkToRAS)
    if sameDisplay and inputNode and inputNode.GetDisplayNode():
        copyWindow(inputNode.GetDisplayNode(), result.GetDisplayNode())
    return result


def addLabelNode(array, inputNode, name, ijkToRAS=None):
    """Add a mask or label map (k, j, i) as a label map volume."""
    import numpy as np

    return _addVolume("vtkMRMLLabelMapVolumeNode", array.astype(np.uint8), inputNode, name, ijkToRAS)


def _addVolume(nodeClass, array, inputNode, name, ijkToRAS):
    scene = inputNode.GetScene() if inputNode else slicer.mrmlScene
    result = scene.AddNewNodeByClass(nodeClass, uniqueName(scene, name))
    if ijkToRAS is None:
        result.CopyOrientation(inputNode)  # spacing, origin and directions as they are, without a matrix decomposition
    else:
        matrix = vtk.vtkMatrix4x4()
        matrix.DeepCopy([number for row in ijkToRAS for number in row])
        result.SetIJKToRASMatrix(matrix)
    slicer.util.updateVolumeFromArray(result, array)
    result.CreateDefaultDisplayNodes()
    if inputNode:
        result.SetAndObserveTransformNodeID(inputNode.GetTransformNodeID())
        moveToStudyOf(inputNode, result)
    return result


def uniqueName(scene, name):
    """``name`` as it is where no node has it; the scene itself also avoids names of nodes that are gone."""
    return scene.GenerateUniqueName(name) if scene.GetFirstNodeByName(name) else name


def copyWindow(source, target):
    """Window, level, colors and interpolation of one scalar volume display node to another."""
    with slicer.util.NodeModify(target):
        target.SetAndObserveColorNodeID(source.GetColorNodeID())
        target.SetAutoWindowLevel(False)
        target.SetWindowLevel(source.GetWindow(), source.GetLevel())
        target.SetInterpolate(source.GetInterpolate())


def moveToStudyOf(inputNode, node):
    """Put ``node`` beside the input in the subject hierarchy."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(inputNode.GetScene())
    if not hierarchy:
        return
    inputItem, item = hierarchy.GetItemByDataNode(inputNode), hierarchy.GetItemByDataNode(node)
    if inputItem and item:
        hierarchy.SetItemParent(item, hierarchy.GetItemParent(inputItem))
