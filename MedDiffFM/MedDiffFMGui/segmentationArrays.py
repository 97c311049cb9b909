"""Segmentation nodes to arrays on a volume's grid."""

from collections.abc import Mapping

import slicer
import vtk


def maskFromSegmentation(segmentation, volumeNode):
    """All segments together on the volume's grid, bool (k, j, i); None where there is no segmentation or no voxel."""
    if segmentation is None:
        return None
    mask = None
    for _segmentID, array in _segments(segmentation, volumeNode):
        mask = array > 0 if mask is None else mask | (array > 0)
    return mask if mask is not None and mask.any() else None


def anatomyFromSegmentation(segmentation, volumeNode):
    """TotalSegmentator's label numbers on the volume's grid, uint8 (k, j, i).

    Segments are recognized by their identifier or name, as TotalSegmentator calls them.

    :raises MedDiffFMError: no segment has such a name.
    """
    import numpy as np

    from MedDiffFMLib.conditioning.organs import organ_number
    from MedDiffFMLib.errors import InputError

    if segmentation is None:
        return None
    labels = None
    for segmentID, array in _segments(segmentation, volumeNode):
        name = segmentation.GetSegmentation().GetSegment(segmentID).GetName()
        number = organ_number(segmentID) or organ_number(name)
        if number:
            labels = np.zeros(array.shape, np.uint8) if labels is None else labels
            labels[array > 0] = number
    if labels is None:
        raise InputError(
            f"No segment of {segmentation.GetName()} has a name that TotalSegmentator gives.",
            "Choose its result, or none.",
        )
    return labels


def _segments(segmentation, volumeNode):
    segmentIDs = segmentation.GetSegmentation().GetSegmentIDs()
    for segmentID in segmentIDs:
        yield segmentID, slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segmentID, volumeNode)


def labelsFromSegmentation(segmentation, volumeNode, segmentIDs=None):
    """Segments as one label map on the volume's grid, numbered from 1 in their order.

    :param segmentIDs: the segments; all if None.
    :return: (uint16 array (k, j, i), what the numbers stand for as in a datalist, sentences for the user).
    :raises MedDiffFMError: no segment, an empty one, two of one name or of the same voxels.
    """
    from MedDiffFMLib.errors import InputError
    from MedDiffFMLib.segmentation.segments import merge_segments

    allIDs = segmentation.GetSegmentation().GetSegmentIDs()
    chosen = list(allIDs) if segmentIDs is None else [one for one in allIDs if one in segmentIDs]
    masks = _MasksByName(segmentation, volumeNode, chosen)
    if len(masks) < len(chosen):
        raise InputError(
            f"Two chosen segments of {segmentation.GetName()} have the same name.", "Rename one, or leave it out."
        )
    numbers = {name: number for number, name in enumerate(masks, start=1)}
    labels, warnings = merge_segments(masks, numbers)
    return labels, {number: masks.look(name) for name, number in numbers.items()}, warnings


class _MasksByName(Mapping):
    """Name -> mask of a segment, exported when it is asked for: all at once may not fit into memory."""

    def __init__(self, segmentation, volumeNode, segmentIDs):
        self._segmentation, self._volumeNode = segmentation, volumeNode
        self._ids = {self._segment(segmentID).GetName(): segmentID for segmentID in segmentIDs}

    def __getitem__(self, name):
        return slicer.util.arrayFromSegmentBinaryLabelmap(self._segmentation, self._ids[name], self._volumeNode)

    def __iter__(self):
        return iter(self._ids)

    def __len__(self):
        return len(self._ids)

    def look(self, name):
        """Name, color and terminology of a segment, as a datalist has them."""
        segment = self._segment(self._ids[name])
        terminology = vtk.reference("")
        segment.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), terminology)
        color = [round(255 * part) for part in segment.GetColor()]
        return {"name": name, "color": color, "terminology": str(terminology)}

    def _segment(self, segmentID):
        return self._segmentation.GetSegmentation().GetSegment(segmentID)
