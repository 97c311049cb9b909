"""Surfaces of what is inside an array."""

import vtk

from .volumeNodes import imageData

SMOOTHING_STEPS, PASS_BAND = 15, 0.05


def surface(array, value, toRAS, steps=SMOOTHING_STEPS):
    """Smoothed surface around what is at least ``value``, open where that reaches the array's end.

    :param array: voxels (k, j, i), of a kind that VTK knows.
    :param toRAS: vtkTransform from the array's indexes (i, j, k) to RAS, mm; it may mirror.
    :param steps: of smoothing; more for a mask, whose surface has stairs, than for gray values.
    :return: vtkPolyData in RAS, whose triangles face outward.
    """
    edges = vtk.vtkFlyingEdges3D()
    edges.SetInputData(imageData(array))
    edges.SetValue(0, value)
    edges.ComputeNormalsOff()
    smooth = vtk.vtkWindowedSincPolyDataFilter()
    smooth.SetInputConnection(edges.GetOutputPort())
    smooth.SetNumberOfIterations(steps)
    smooth.SetPassBand(PASS_BAND)
    smooth.NormalizeCoordinatesOn()
    placed = vtk.vtkTransformPolyDataFilter()
    placed.SetInputConnection(smooth.GetOutputPort())
    placed.SetTransform(toRAS)
    last = placed
    if toRAS.GetMatrix().Determinant() < 0:
        last = vtk.vtkReverseSense()
        last.SetInputConnection(placed.GetOutputPort())
    normals = vtk.vtkPolyDataNormals()
    normals.SetInputConnection(last.GetOutputPort())
    normals.ConsistencyOff()  # they are
    normals.SplittingOff()
    normals.Update()
    return normals.GetOutput()


def indexToRAS(image, first=(0.0, 0.0, 0.0), step=(1.0, 1.0, 1.0)):
    """Indexes (i, j, k) of part of a volume -> RAS, mm, without the volume's transform.

    :param image: volume node.
    :param first: index in the volume of the part's first voxel.
    :param step: voxels of the volume from one voxel of the part to the next.
    """
    matrix = vtk.vtkMatrix4x4()
    image.GetIJKToRASMatrix(matrix)
    transform = vtk.vtkTransform()
    transform.SetMatrix(matrix)
    transform.Translate(*first)
    transform.Scale(*step)
    return transform
