"""Many small regions as segments, all at once: one after the other took Slicer seconds for a hundred findings."""

import slicer
import vtk

SMOOTHING_STEPS, PASS_BAND = 15, 0.05


def replaceRegions(node, numbered, image, color):
    """Let a segmentation hold one segment a region, with closed surfaces, and nothing else.

    :param node: vtkMRMLSegmentationNode.
    :param numbered: (k, j, i) uint8, the number of the region in each voxel, 0 in none.
    :param image: volume node on whose grid ``numbered`` lies.
    :param color: (r, g, b) of all segments.
    """
    segmentation = slicer.vtkSegmentation()
    kinds = slicer.vtkSegmentationConverter
    segmentation.SetSourceRepresentationName(kinds.GetSegmentationBinaryLabelmapRepresentationName())
    labelmap = _orientedImage(numbered, image)
    for number, (box, inside) in _boxes(numbered).items():
        segment = slicer.vtkSegment()
        segment.SetName(str(number))
        segment.SetColor(*color)
        segment.SetLabelValue(number)
        segment.AddRepresentation(kinds.GetSegmentationBinaryLabelmapRepresentationName(), labelmap)
        segment.AddRepresentation(kinds.GetSegmentationClosedSurfaceRepresentationName(), _surface(inside, box, image))
        segmentation.AddSegment(segment, str(number))
    _empty(node.GetSegmentation())
    node.SetAndObserveSegmentation(segmentation)
    node.SetReferenceImageGeometryParameterFromVolumeNode(image)


def _empty(segmentation):
    """Slicer would wipe each region out of the labelmap that all share; 5 s for a hundred of them."""
    for index in range(segmentation.GetNumberOfSegments()):
        segmentation.GetNthSegment(index).RemoveAllRepresentations()


def _boxes(numbered):
    """Number -> (box, bool array) of each region, with a border of one voxel around it."""
    import numpy as np
    from scipy.ndimage import find_objects

    found = {}
    for number, box in enumerate(find_objects(numbered), start=1):
        if box is not None:
            found[number] = (box, np.pad(numbered[box] == number, 1))
    return found


def _orientedImage(array, image):
    """The array as Slicer's image with geometry."""
    oriented = slicer.vtkOrientedImageData()
    oriented.DeepCopy(_imageData(array))
    matrix = vtk.vtkMatrix4x4()
    image.GetIJKToRASMatrix(matrix)
    oriented.SetImageToWorldMatrix(matrix)
    return oriented


def _imageData(array):
    import vtk.util.numpy_support as numpySupport

    data = vtk.vtkImageData()
    data.SetDimensions(*array.shape[::-1])
    data.GetPointData().SetScalars(numpySupport.numpy_to_vtk(array.ravel(), deep=True))
    return data


def _surface(inside, box, image):
    """Smoothed surface of one region, RAS of the volume."""
    import numpy as np

    edges = vtk.vtkFlyingEdges3D()
    edges.SetInputData(_imageData(inside.astype(np.uint8)))
    edges.SetValue(0, 0.5)
    smooth = vtk.vtkWindowedSincPolyDataFilter()
    smooth.SetInputConnection(edges.GetOutputPort())
    smooth.SetNumberOfIterations(SMOOTHING_STEPS)
    smooth.SetPassBand(PASS_BAND)
    smooth.NormalizeCoordinatesOn()
    placed = vtk.vtkTransformPolyDataFilter()
    placed.SetInputConnection(smooth.GetOutputPort())
    placed.SetTransform(_toRAS(box, image))
    normals = vtk.vtkPolyDataNormals()
    normals.SetInputConnection(placed.GetOutputPort())
    normals.ConsistencyOn()
    normals.AutoOrientNormalsOn()  # a grid may be mirrored
    normals.SplittingOff()
    normals.Update()
    return normals.GetOutput()


def _toRAS(box, image):
    """Voxel coordinates in a padded box -> RAS."""
    matrix = vtk.vtkMatrix4x4()
    image.GetIJKToRASMatrix(matrix)
    transform = vtk.vtkTransform()
    transform.SetMatrix(matrix)
    transform.Translate(*(part.start - 1 for part in reversed(box)))
    return transform
