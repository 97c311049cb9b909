"""Where an X-ray was taken from, as a model: the rays from the source to the corners of the detector, and its edge."""

import vtk

from .volumeNodes import moveToStudyOf, uniqueName

FRUSTUM = "_frustum"
"""What the output's name gets for the name of its frustum."""
COLOR = (0.95, 0.75, 0.2)


def addFrustum(facts, xrayNode, inputNode):
    """Add the beam of one X-ray as lines, in the scan's own coordinates and under its transform.

    :param facts: of the view, as the library tells them: ``source_ras_mm``, ``detector_corners_ras_mm``.
    """
    scene = xrayNode.GetScene()
    node = scene.AddNewNodeByClass("vtkMRMLModelNode", uniqueName(scene, f"{xrayNode.GetName()} beam"))
    node.SetAndObservePolyData(frustumLines(facts["detector_corners_ras_mm"], facts["source_ras_mm"]))
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetColor(*COLOR)
    display.SetLighting(False)
    display.SetLineWidth(2)
    display.SetVisibility(False)  # the view of the result shows one at a time
    node.SetAndObserveTransformNodeID(xrayNode.GetTransformNodeID())
    if inputNode:
        moveToStudyOf(inputNode, node)
    return node


def frustumLines(corners, source=None):
    """vtkPolyData of the detector's edge, and of a line from the source to each corner where there is a source.

    :param corners: four points in a circle, RAS mm.
    :param source: RAS mm; None for parallel rays.
    """
    points, lines = vtk.vtkPoints(), vtk.vtkCellArray()
    for corner in corners:
        points.InsertNextPoint(*corner)
    pairs = [(number, (number + 1) % len(corners)) for number in range(len(corners))]
    if source is not None:
        apex = points.InsertNextPoint(*source)
        pairs += [(apex, number) for number in range(len(corners))]
    for pair in pairs:
        lines.InsertNextCell(2, pair)
    beam = vtk.vtkPolyData()
    beam.SetPoints(points)
    beam.SetLines(lines)
    return beam
