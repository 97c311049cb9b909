"""The nodes of a segmentation that a head made: the segmentation refers to the others, so a saved scene keeps them."""

import slicer
import vtk

from .colors import INFERNO
from .resultRecord import accept, isAccepted
from .volumeNodes import moveToStudyOf, uniqueName

TASK_ATTRIBUTE = "MedDiffFM.Task"
VOLUME_TAG, UNCERTAINTY_TAG = "MedDiffFM.VolumeMl", "MedDiffFM.Uncertainty"
UNCERTAINTY_WINDOW = (0.0, 0.5)  # fixed: 0.5 is the standard deviation of a label that may as well be there as not
SURE = 0.1  # below it transparent
QUICK_VOXELS, QUICK_BORDERS = 10_000_000, 1_500_000
"""Surfaces of larger CTs take a second, those of specks all over a CT, as a head of ten training steps draws them, 15:
only a user who wants to see them should wait. Lungs and bones of a chest have half a million borders."""


class SegmentNodes:
    """One result in the scene.

    :param segmentation: vtkMRMLSegmentationNode that :func:`addSegmentation` made, perhaps in an earlier session.
    """

    def __init__(self, segmentation):
        self.segmentation = segmentation

    @property
    def main(self):
        """The node that stands for the result."""
        return self.segmentation

    @classmethod
    def ofScene(cls):
        """The results that the user has not accepted yet, whose CT is there; the latest last."""
        from MedDiffFMLib.tasks.base import View
        from MedDiffFMLib.tasks.registry import tasks_shown_as

        names = tasks_shown_as(View.STRUCTURES)
        nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        results = [cls(node) for node in nodes if node.GetAttribute(TASK_ATTRIBUTE) in names]
        return [one for one in results if one.complete and not one.accepted]

    @property
    def complete(self):
        """Whether the segmentation and its CT are still in the scene."""
        return slicer.mrmlScene.IsNodePresent(self.segmentation) and self.node("input") is not None

    def node(self, role):
        """The node of a role: input, report, uncertainty; None where it is not (any more) there."""
        return self.segmentation.GetNodeReference(f"MedDiffFM.{role}")

    def maps(self):
        """The uncertainties that are there, that of all structures first."""
        count = self.segmentation.GetNumberOfNodeReferences("MedDiffFM.uncertainty")
        nodes = [self.segmentation.GetNthNodeReference("MedDiffFM.uncertainty", index) for index in range(count)]
        return [node for node in nodes if node is not None]

    def refer(self, inputNode, reportNode, maps):
        """Remember what belongs to the segmentation."""
        self.segmentation.SetNodeReferenceID("MedDiffFM.input", inputNode.GetID())
        self.segmentation.SetNodeReferenceID("MedDiffFM.report", reportNode.GetID())
        for node in maps:
            self.segmentation.AddNodeReferenceID("MedDiffFM.uncertainty", node.GetID())

    def rows(self):
        """The segments: identifier, name, color, volume in ml and mean uncertainty, None where nothing was found."""
        segmentation = self.segmentation.GetSegmentation()
        rows = []
        for segmentID in segmentation.GetSegmentIDs():
            segment = segmentation.GetSegment(segmentID)
            volume, uncertainty = (_number(segment, tag) for tag in (VOLUME_TAG, UNCERTAINTY_TAG))
            rows.append((segmentID, segment.GetName(), segment.GetColor(), volume, uncertainty))
        return rows

    def location(self, segmentID):
        """World coordinates (R, A, S) of a segment, mm; the CT may be under a transform."""
        world = [0.0, 0.0, 0.0]
        self.segmentation.TransformPointToWorld(self.segmentation.GetSegmentCenterRAS(segmentID), world)
        return world

    def show3D(self, visible):
        """Surfaces in the 3D views, or none; made when they are first needed."""
        if visible and not self.has3D():
            with slicer.util.WaitCursor():
                self.segmentation.CreateClosedSurfaceRepresentation()
        self.segmentation.GetDisplayNode().SetVisibility3D(visible)

    def has3D(self):
        """Whether surfaces can be shown at once."""
        surface = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
        return self.segmentation.GetSegmentation().ContainsRepresentation(surface)

    def accept(self):
        """The nodes are the user's from now on."""
        accept(self.segmentation)

    @property
    def accepted(self):
        """Whether the user has kept them."""
        return isAccepted(self.segmentation)

    def remove(self):
        """Take everything but the CT out of the scene."""
        for node in [*self.maps(), self.node("report"), self.segmentation]:
            if node and slicer.mrmlScene.IsNodePresent(node):
                slicer.mrmlScene.RemoveNode(node)


def addSegmentation(array, labels, inputNode, name, surfaces=True):
    """Add one segment a structure, with its name, color and terminology, and for all but large CTs with its surface.

    :param array: label numbers (k, j, i) on the grid of ``inputNode``.
    :param labels: rows of the report's ``labels``: value, name, color, terminology, volume_ml, uncertainty.
    :param surfaces: False for no surfaces, which structures of a whole body take seconds for.
    """
    scene = inputNode.GetScene()
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", uniqueName(scene, name))
    binary = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    segmentation = slicer.vtkSegmentation()
    segmentation.SetSourceRepresentationName(binary)
    labelmap = _orientedImage(array, inputNode)  # shared by all segments, which do not overlap
    for label in labels:
        segment = slicer.vtkSegment()
        segment.SetName(label["name"])
        segment.SetColor(*(part / 255 for part in label["color"]))
        segment.SetLabelValue(label["value"])
        if label["terminology"]:
            segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), label["terminology"])
        segment.SetTag(VOLUME_TAG, repr(label["volume_ml"]))
        if label["uncertainty"] is not None:
            segment.SetTag(UNCERTAINTY_TAG, repr(label["uncertainty"]))
        segment.AddRepresentation(binary, labelmap)
        segmentation.AddSegment(segment, segmentation.GenerateUniqueSegmentID(label["name"]))
    node.SetAndObserveSegmentation(segmentation)
    node.SetReferenceImageGeometryParameterFromVolumeNode(inputNode)
    node.SetAndObserveTransformNodeID(inputNode.GetTransformNodeID())
    node.CreateDefaultDisplayNodes()
    if surfaces and array.size <= QUICK_VOXELS and _borders(array) <= QUICK_BORDERS:
        node.CreateClosedSurfaceRepresentation()
    moveToStudyOf(inputNode, node)
    return node


def styleUncertainty(node):
    """Colors and window of an uncertainty; what the head is sure of is transparent."""
    display = node.GetDisplayNode()
    with slicer.util.NodeModify(display):
        display.SetAutoWindowLevel(False)
        display.SetAutoThreshold(False)
        display.SetAndObserveColorNodeID(INFERNO)
        display.SetWindowLevelMinMax(*UNCERTAINTY_WINDOW)
        display.SetThreshold(SURE, 1.0)
        display.SetApplyThreshold(True)


def _borders(array):
    """Number of pairs of neighboring voxels whose labels differ."""
    import numpy as np

    return sum(int(np.count_nonzero(np.diff(array, axis=axis))) for axis in range(array.ndim))


def _orientedImage(array, image):
    """The array as Slicer's image with the geometry of a volume node."""
    import numpy as np
    import vtk.util.numpy_support as numpySupport

    oriented = slicer.vtkOrientedImageData()
    oriented.SetDimensions(*array.shape[::-1])
    oriented.GetPointData().SetScalars(numpySupport.numpy_to_vtk(np.ascontiguousarray(array).ravel(), deep=True))
    matrix = vtk.vtkMatrix4x4()
    image.GetIJKToRASMatrix(matrix)
    oriented.SetImageToWorldMatrix(matrix)
    return oriented


def _number(segment, tag):
    text = vtk.reference("")
    return float(str(text)) if segment.GetTag(tag, text) else None
