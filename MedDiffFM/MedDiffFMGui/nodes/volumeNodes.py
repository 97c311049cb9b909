"""MRML volume nodes to library volumes and back."""

import slicer
import vtk

SAMPLE_VOXELS = 300_000
BYTES_AT_A_TIME = 8 * 1024 * 1024


BEAM_SOURCE, PARALLEL = "xray_source_ras_mm", "parallel"
"""Attribute of an X-ray that knows where its source stood, as in the header of its file; and its value for none."""


def beamSource(node):
    """RAS mm of the source of an X-ray, [] for parallel rays, None where the node says nothing that makes sense."""
    said = node.GetAttribute(BEAM_SOURCE)
    if not said or said == PARALLEL:
        return [] if said else None
    try:
        r, a, s = (float(word) for word in said.split())
    except ValueError:
        return None
    return [r, a, s]


def volumeFromNode(node, modality="CT"):
    """The node's voxels and geometry as a library Volume; it shares the node's memory, so it is only to be read."""
    from MedDiffFMLib.imaging.volume import Volume

    ijkToRAS = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(ijkToRAS)
    return Volume(slicer.util.arrayFromVolume(node), slicer.util.arrayFromVTKMatrix(ijkToRAS), modality)


def voxelsTime(node):
    """When the voxels were last modified, VTK's count; 0 where there are none."""
    image = node.GetImageData()
    scalars = image.GetPointData().GetScalars() if image else None
    return scalars.GetMTime() if scalars else 0


def addResultNode(array, inputNode, name, sameDisplay, ijkToRAS=None):
    """Add a new volume with the input's transform and study, and exactly its geometry or another one.

    :param array: voxels (k, j, i), which from now on belong to the node.
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
    _showWithWindow(result, array)
    result.SetAndObserveImageData(imageData(array if array.flags.owndata else array.copy()))
    if inputNode:
        result.SetAndObserveTransformNodeID(inputNode.GetTransformNodeID())
        moveToStudyOf(inputNode, result)
    return result


def _showWithWindow(node, array):
    """A display node with the window of a sample; Slicer's own choice takes a second for a large volume."""
    import numpy as np

    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    if not display.IsA("vtkMRMLScalarVolumeDisplayNode"):  # of labels
        return
    low, high = np.percentile(thinnedOut(array), (0.1, 99.9))
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(float(low), float(max(high, low + 1e-3)))


def imageData(array):
    """The array (k, j, i) as VTK's image, without a copy."""
    import numpy as np
    import vtk.util.numpy_support as numpySupport

    data = vtk.vtkImageData()
    data.SetDimensions(*array.shape[::-1])
    data.GetPointData().SetScalars(numpySupport.numpy_to_vtk(np.ascontiguousarray(array).reshape(-1), deep=False))
    return data


def slabs(array):
    """Slices of the first axis that together are the array, each worked through in some hundredths of a second."""
    step = max(1, len(array) * BYTES_AT_A_TIME // max(array.nbytes, 1))
    return [slice(first, first + step) for first in range(0, len(array), step)]


def copying(array):
    """A copy of the array, as the value of a generator of short steps."""
    import numpy as np

    copy = np.empty(array.shape, array.dtype)
    for slab in slabs(copy):
        copy[slab] = array[slab]
        yield
    return copy


def subtracting(array, other):
    """``array`` - ``other``, float32, as the value of a generator of short steps."""
    import numpy as np

    difference = np.empty(array.shape, np.float32)
    for slab in slabs(difference):
        np.subtract(array[slab], other[slab], out=difference[slab], dtype=np.float32)
        yield
    return difference


def thinnedOut(array):
    """Every few voxels, SAMPLE_VOXELS or so in all: enough to choose a window."""
    step = max(1, round((array.size / SAMPLE_VOXELS) ** (1 / 3)))
    return array[::step, ::step, ::step]


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
