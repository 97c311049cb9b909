"""Boxes (vtkMRMLMarkupsROINode) as masks: what lies inside is looked at, so a part of a CT takes a part of the time."""

import slicer
import vtk

from .volumeNodes import slabs, volumeFromNode

NEW_BOX_MM = 80.0


def isBox(node):
    """Whether a node is a box and no segmentation."""
    return node is not None and node.IsA("vtkMRMLMarkupsROINode")


def maskFromBox(box, volumeNode):
    """The voxels whose centers lie in a box, wherever box and volume are transformed to; a generator of short steps.

    :return: bool (k, j, i); None where there is no voxel.
    """
    import numpy as np

    volume = volumeFromNode(volumeNode)
    toWorld, toObject = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(volumeNode.GetParentTransformNode(), None, toWorld)
    vtk.vtkMatrix4x4.Invert(box.GetObjectToWorldMatrix(), toObject)
    arrays = [slicer.util.arrayFromVTKMatrix(matrix) for matrix in (toObject, toWorld)]
    fromIndex = arrays[0] @ arrays[1] @ volume.ijk_to_ras
    half = np.array(box.GetSize()) / 2
    mask = np.ones(volume.voxels.shape, bool)
    k, j, i = np.ogrid[tuple(slice(size) for size in mask.shape)]
    for slab in slabs(mask):
        for axis in range(3):
            row = fromIndex[axis]
            place = row[0] * i + row[1] * j + row[2] * k[slab] + row[3]
            mask[slab] &= np.abs(place) <= half[axis]
        yield
    return mask if mask.any() else None


def addBox(volumeNode):
    """A box in the middle of the red view, to be moved and sized by its handles."""
    name = slicer.mrmlScene.GenerateUniqueName(f"{volumeNode.GetName()} box")
    box = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", name)
    box.CreateDefaultDisplayNodes()
    red = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeRed")
    toRAS = red.GetSliceToRAS()
    box.SetCenter(*(toRAS.GetElement(row, 3) for row in range(3)))
    box.SetSize(NEW_BOX_MM, NEW_BOX_MM, NEW_BOX_MM)
    return box
