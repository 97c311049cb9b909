"""Many small regions as segments, all at once: one after the other took Slicer seconds for a hundred findings."""

import slicer
import vtk

from .surfaces import indexToRAS, surface
from .volumeNodes import imageData


def replacingRegions(node, regions, image, color):
    """Let a segmentation hold one segment a region, with closed surfaces, and nothing else; a generator of steps.

    :param node: vtkMRMLSegmentationNode, which changes in the last step.
    :param regions: ``MedDiffFMLib.tasks.anomaly.findings.Regions``.
    :param image: volume node on whose grid the regions lie.
    :param color: (r, g, b) of all segments.
    """
    import numpy as np

    segmentation = slicer.vtkSegmentation()
    kinds = slicer.vtkSegmentationConverter
    segmentation.SetSourceRepresentationName(kinds.GetSegmentationBinaryLabelmapRepresentationName())
    labelmap = _orientedImage(regions.numbered, image)
    for number, box in sorted(regions.boxes.items()):
        inside = np.pad(regions.numbered[box] == number, 1)  # a border, so that the surface closes
        segment = slicer.vtkSegment()
        segment.SetName(str(number))
        segment.SetColor(*color)
        segment.SetLabelValue(number)
        segment.AddRepresentation(kinds.GetSegmentationBinaryLabelmapRepresentationName(), labelmap)
        toRAS = indexToRAS(image, [part.start - 1 for part in reversed(box)])
        closed = surface(inside.astype(np.uint8), 0.5, toRAS)
        segment.AddRepresentation(kinds.GetSegmentationClosedSurfaceRepresentationName(), closed)
        segmentation.AddSegment(segment, str(number))
        yield
    before = node.GetSegmentation()
    with slicer.util.RenderBlocker():
        node.SetAndObserveSegmentation(segmentation)
        node.SetReferenceImageGeometryParameterFromVolumeNode(image)
    _empty(before)


def _empty(segmentation):
    """Let a segmentation that no node observes any more go quickly.

    Slicer would wipe each region out of the labelmap that all share, 5 s for a hundred of them. Emptied while a node
    observed it, each region drew all views anew: a minute with a volume rendering.
    """
    for index in range(segmentation.GetNumberOfSegments()):
        segmentation.GetNthSegment(index).RemoveAllRepresentations()


def _orientedImage(array, image):
    """The array as Slicer's image with geometry; it shares the array's memory."""
    oriented = slicer.vtkOrientedImageData()
    oriented.ShallowCopy(imageData(array))
    matrix = vtk.vtkMatrix4x4()
    image.GetIJKToRASMatrix(matrix)
    oriented.SetImageToWorldMatrix(matrix)
    return oriented
