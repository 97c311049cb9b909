"""Segmentation nodes to arrays on a volume's grid."""

import slicer


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
