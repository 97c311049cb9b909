"""Segmentation nodes to arrays on a volume's grid.

Slicer's own export takes half a second a segment on a large CT, and an anatomy may have a hundred. So labelmaps that
lie on the CT's grid, as those painted on it or made from it do, are read where they are, all segments of one together.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import slicer
import vtk

from ..worker.eventLoopTasks import drained
from .volumeNodes import slabs

OFF_GRID = 0.01
"""Voxels by which a labelmap may lie beside the CT's grid and still be taken for part of it."""


class Layer(NamedTuple):
    """Labels of one or more segments.

    :param labels: array (k, j, i); it may share memory with the segmentation, so it is only to be read.
    :param box: where it lies on the volume's grid, slices (k, j, i).
    :param segments: label -> identifier of the segment.
    """

    labels: Any
    box: tuple[slice, slice, slice]
    segments: dict[int, str]


def maskFromSegmentation(segmentation, volumeNode):
    """All segments together on the volume's grid; a generator of short steps.

    :return: bool (k, j, i); None where there is no segmentation or no voxel.
    """
    if segmentation is None:
        return None
    numbers = dict.fromkeys(segmentation.GetSegmentation().GetSegmentIDs(), 1)
    mask = (yield from _numbered(segmentation, volumeNode, numbers)).view(bool)
    return mask if mask.any() else None


def segmentFromSegmentation(segmentation, segmentID, volumeNode):
    """One segment on the volume's grid, wherever it lies; uint8 (k, j, i), a generator of short steps."""
    return _numbered(segmentation, volumeNode, {segmentID: 1})


def anatomyFromSegmentation(segmentation, volumeNode):
    """TotalSegmentator's label numbers on the volume's grid; a generator of short steps.

    Segments are recognized by their identifier or name, as TotalSegmentator calls them.

    :return: uint8 (k, j, i); None where there is no segmentation.
    :raises MedDiffFMError: no segment has such a name.
    """
    from MedDiffFMLib.conditioning.totalsegmentator_labels import organ_number
    from MedDiffFMLib.core.errors import InputError

    if segmentation is None:
        return None
    content = segmentation.GetSegmentation()
    numbers = {}
    for segmentID in content.GetSegmentIDs():
        number = organ_number(segmentID) or organ_number(content.GetSegment(segmentID).GetName())
        if number:
            numbers[segmentID] = number
    if not numbers:
        raise InputError(
            f"No segment of {segmentation.GetName()} has a name that TotalSegmentator gives.",
            "Choose its result, or none.",
        )
    return (yield from _numbered(segmentation, volumeNode, numbers))


def _numbered(segmentation, volumeNode, numbers):
    """Segments as numbers on the volume's grid, uint8 (k, j, i); a generator of short steps.

    Where segments of several layers overlap the later one counts.

    :param numbers: identifier of a segment -> 1 to 255; other segments are left out.
    """
    import numpy as np

    whole = np.zeros(volumeNode.GetImageData().GetDimensions()[::-1], np.uint8)
    for layer in layers(segmentation, volumeNode, numbers):
        table = np.zeros(max(layer.segments) + 2, np.uint8)  # labels of deleted segments fall on the last entry, 0
        for label, segmentID in layer.segments.items():
            table[label] = numbers[segmentID]
        part = whole[layer.box]
        for slab in slabs(layer.labels):
            found = np.take(table, layer.labels[slab], mode="clip")
            np.copyto(part[slab], found, where=found > 0)
            yield
        yield
    return whole


def layers(segmentation, volumeNode, segmentIDs):
    """The segments' labelmaps on the volume's grid, one after the other; what lies beside the volume is left out.

    :param segmentIDs: which segments.
    :return: iterator of Layer.
    """
    content = segmentation.GetSegmentation()
    sameTransform = segmentation.GetParentTransformNode() is volumeNode.GetParentTransformNode()
    shared: dict[Any, list[str]] = {}
    for segmentID in segmentIDs:
        if content.GetSegment(segmentID) is None:  # the user has deleted it meanwhile
            continue
        # One object for all segments of a layer; other representations are first turned into labelmaps by the export.
        shared.setdefault(segmentation.GetBinaryLabelmapInternalRepresentation(segmentID), []).append(segmentID)
    for image, ofImage in shared.items():
        shift = _gridShift(image, volumeNode) if image and sameTransform else None
        if shift is None:
            for segmentID in filter(content.GetSegment, ofImage):
                yield _exported(segmentation, segmentID, volumeNode)
            continue
        cut = _cut(image, shift, volumeNode)
        left = [segmentID for segmentID in ofImage if content.GetSegment(segmentID)]
        if cut is not None and left:
            array, box = cut
            yield Layer(array, box, {content.GetSegment(segmentID).GetLabelValue(): segmentID for segmentID in left})


def _gridShift(image, volumeNode):
    """Voxels (i, j, k) from a labelmap's index to the volume's; None where it has a grid of its own."""
    import numpy as np

    toWorld, toRAS = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(toWorld)
    volumeNode.GetIJKToRASMatrix(toRAS)
    change = np.linalg.solve(slicer.util.arrayFromVTKMatrix(toRAS), slicer.util.arrayFromVTKMatrix(toWorld))
    low, high = np.array(image.GetExtent()).reshape(3, 2).T
    corners = np.array([[(low, high)[n >> axis & 1][axis] for axis in range(3)] for n in range(8)])
    shifts = corners @ change[:3, :3].T + change[:3, 3] - corners
    shift = np.rint(shifts[0])
    return shift.astype(int) if np.abs(shifts - shift).max() < OFF_GRID else None


def _cut(image, shift, volumeNode):
    """The part of a labelmap that lies in the volume, and where; None where there is none."""
    import vtk.util.numpy_support as numpySupport

    scalars = image.GetPointData().GetScalars()
    if scalars is None or not scalars.GetNumberOfTuples():
        return None
    part, box = [], []
    extent, size = image.GetExtent(), volumeNode.GetImageData().GetDimensions()
    for axis in (2, 1, 0):
        first = extent[2 * axis] + int(shift[axis])
        start, stop = max(first, 0), min(extent[2 * axis + 1] + int(shift[axis]) + 1, size[axis])
        if start >= stop:
            return None
        part.append(slice(start - first, stop - first))
        box.append(slice(start, stop))
    labels = numpySupport.vtk_to_numpy(scalars).reshape(image.GetDimensions()[::-1])
    return labels[tuple(part)], tuple(box)


def _exported(segmentation, segmentID, volumeNode):
    """A segment with a grid or a transform of its own, resampled by Slicer."""
    import numpy as np

    array = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segmentID, volumeNode)
    return Layer((array > 0).view(np.uint8), (slice(None),) * 3, {1: segmentID})


def labelsFromSegmentation(segmentation, volumeNode, segmentIDs=None):
    """Segments as one label map on the volume's grid, numbered from 1 in their order.

    :param segmentIDs: the segments; all if None.
    :return: (uint16 array (k, j, i), what the numbers stand for as in a datalist, sentences for the user).
    :raises MedDiffFMError: no segment, an empty one, two of one name or of the same voxels.
    """
    from MedDiffFMLib.core.errors import InputError
    from MedDiffFMLib.datasets.segments import merge_segments

    allIDs = segmentation.GetSegmentation().GetSegmentIDs()
    chosen = list(allIDs) if segmentIDs is None else [segmentID for segmentID in allIDs if segmentID in segmentIDs]
    masks = _MasksByName(segmentation, volumeNode, chosen)
    if len(masks) < len(chosen):
        raise InputError(
            f"Two chosen segments of {segmentation.GetName()} have the same name.", "Rename one, or leave it out."
        )
    numbers = {name: number for number, name in enumerate(masks, start=1)}
    labels, warnings = merge_segments(masks, numbers)
    return labels, {number: masks.look(name) for name, number in numbers.items()}, warnings


class _MasksByName(Mapping):
    """Name -> mask of a segment, made when it is asked for: all at once may not fit into memory."""

    def __init__(self, segmentation, volumeNode, segmentIDs):
        self._segmentation, self._volumeNode = segmentation, volumeNode
        self._ids = {self._segment(segmentID).GetName(): segmentID for segmentID in segmentIDs}

    def __getitem__(self, name):
        return drained(_numbered(self._segmentation, self._volumeNode, {self._ids[name]: 1}))

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
