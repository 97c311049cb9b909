"""What is drawn at findings: their numbers in the slices, and a line along the longest diameter."""

import slicer

from .volumeNodes import moveToStudyOf, uniqueName, volumeFromNode

TEXT_SCALE, GLYPH_SCALE = 3.0, 0.6
OWN_ATTRIBUTE = "MedDiffFM.SegmentedFindings"
COLOR = (0.20, 0.85, 0.95)


def markNumbers(node, image, rows):
    """Let a markups node have one point a finding, its number as label.

    :param node: vtkMRMLMarkupsFiducialNode; None makes one.
    :param rows: dicts with number, r_mm, a_mm, s_mm.
    :return: the node.
    """
    if node is None:
        name = slicer.mrmlScene.GenerateUniqueName(f"{image.GetName()} finding numbers")
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", name)
        node.CreateDefaultDisplayNodes()
        node.SetLocked(True)
        display = node.GetDisplayNode()
        display.SetTextScale(TEXT_SCALE)
        display.SetGlyphScale(GLYPH_SCALE)
        display.SetColor(*COLOR)
        display.SetSelectedColor(*COLOR)
        display.SetVisibility3D(False)
        moveToStudyOf(image, node)
    with slicer.util.NodeModify(node):
        node.RemoveAllControlPoints()
        node.SetAndObserveTransformNodeID(image.GetTransformNodeID())
        for row in rows:
            index = node.AddControlPoint(row["r_mm"], row["a_mm"], row["s_mm"])
            node.SetNthControlPointLabel(index, str(row["number"]))
    return node


def measureRegion(regions, segmentID, image, name):
    """Add a line along a region's longest diameter in the slice where it is largest, as lesions are measured.

    :param regions: vtkMRMLSegmentationNode on the grid of ``image``.
    :return: (line node, mm).
    """
    import numpy as np

    covered = slicer.util.arrayFromSegmentBinaryLabelmap(regions, segmentID, image) > 0
    k = int(np.argmax(covered.sum(axis=(1, 2))))
    toRAS = volumeFromNode(image).ijk_to_ras
    j, i = np.nonzero(covered[k])
    points = np.stack([i, j, np.full_like(i, k), np.ones_like(i)], axis=1) @ toRAS.T
    rim = _outermost(points[:, :3])
    away = np.linalg.norm(rim[:, None] - rim[None], axis=-1)
    first, second = np.unravel_index(int(np.argmax(away)), away.shape)
    line = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", uniqueName(slicer.mrmlScene, name))
    line.CreateDefaultDisplayNodes()
    for end in (rim[first], rim[second]):
        line.AddControlPoint(*map(float, end))
    line.SetAndObserveTransformNodeID(image.GetTransformNodeID())
    moveToStudyOf(image, line)
    return line, float(away[first, second])


def copyRegion(regions, segmentID, image, name):
    """Add a region to the user's own segmentation of findings on this CT, which is made for the first one.

    :return: (segmentation node, identifier of the new segment).
    """
    covered = slicer.util.arrayFromSegmentBinaryLabelmap(regions, segmentID, image)
    node = next(filter(lambda one: _isOwn(one, image), slicer.util.getNodesByClass("vtkMRMLSegmentationNode")), None)
    if node is None:
        title = uniqueName(slicer.mrmlScene, f"{image.GetName()} segmented findings")
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", title)
        node.SetAttribute(OWN_ATTRIBUTE, "1")
        node.CreateDefaultDisplayNodes()
        node.SetReferenceImageGeometryParameterFromVolumeNode(image)
        node.SetAndObserveTransformNodeID(image.GetTransformNodeID())
        moveToStudyOf(image, node)
    added = node.GetSegmentation().AddEmptySegment("", name)
    slicer.util.updateSegmentBinaryLabelmapFromArray(covered, node, added, image)
    return node, added


def _isOwn(node, image):
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    return node.GetAttribute(OWN_ATTRIBUTE) and node.GetNodeReference(role) is image


def _outermost(points):
    """The points that may be an end of the longest line: those farthest in each of some directions."""
    import numpy as np

    center = points.mean(axis=0)
    spread = points - center
    _u, _s, axes = np.linalg.svd(spread, full_matrices=False)
    angles = np.linspace(0, np.pi, 60, endpoint=False)
    plane = spread @ axes[:2].T if len(axes) > 1 else np.pad(spread @ axes[:1].T, ((0, 0), (0, 1)))
    reach = plane @ np.stack([np.cos(angles), np.sin(angles)])
    return points[np.unique(np.concatenate([reach.argmax(axis=0), reach.argmin(axis=0)]))]
