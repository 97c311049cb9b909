"""Nodes and choices of the panel as the worker's client takes them."""

from dataclasses import dataclass
from typing import Any

from ..nodes.segmentationArrays import anatomyFromSegmentation, maskFromSegmentation
from ..nodes.volumeNodes import copying, volumeFromNode


@dataclass
class RunChoices:
    """What besides the CT decides about a run: the library's settings, and nodes whose voxels it reads.

    :param settings: ``MedDiffFMLib.runner.settings.RunSettings``.
    :param mask: vtkMRMLSegmentationNode whose segments together are the mask, or None.
    :param anatomy: vtkMRMLSegmentationNode with TotalSegmentator's structures, or None.
    """

    settings: Any
    mask: Any = None
    anatomy: Any = None

    @property
    def task(self):
        """Name in the library's table."""
        return self.settings.task


def runChoices(task, mask=None, anatomy=None, **settings):
    """RunChoices from nodes and the fields of RunSettings: parameters, region, seed, model, device ..."""
    from MedDiffFMLib.runner.settings import RunSettings

    return RunChoices(RunSettings(task, **settings), mask, anatomy)


def makeRequest(inputNode, choices):
    """The request, and the index box (k, j, i) of the CT that travels; None for the whole CT.

    A generator of short steps. Its voxels are copies: the user may edit the CT before they are sent.

    :param choices: RunChoices.
    :return: (RunRequest, box).
    :raises MedDiffFMError: a mask or an organ map that does not fit.
    """
    from MedDiffFMLib.tasks.registry import TASKS
    from MedDiffFMLib.worker.client import RunRequest

    arrays, piece = yield from _arrays(TASKS[choices.task], inputNode, choices)
    return RunRequest(choices.settings, **arrays), piece


def _arrays(row, inputNode, choices):
    """The request's arrays by name, and the box that they cover; a generator of short steps."""
    if inputNode is None:
        return {}, None
    volume = volumeFromNode(inputNode)
    anatomy = yield from anatomyFromSegmentation(choices.anatomy, inputNode)
    if not row.needs_volume:  # a CT is made on the grid of the organ map
        matrix = None if anatomy is None else volume.ijk_to_ras.tolist()
        return {"anatomy": anatomy, "ijk_to_ras": matrix}, None
    mask = None
    if row.takes_mask or row.needs_mask:
        mask = yield from maskFromSegmentation(choices.mask, inputNode)
    piece = None if mask is None else _neededPiece(choices.settings, volume, mask)
    arrays = {"mask": mask, "anatomy": anatomy}
    if piece is None:
        voxels = yield from copying(volume.voxels)
        return {"voxels": voxels, "ijk_to_ras": volume.ijk_to_ras.tolist(), **arrays}, None
    part = _cut(volume, piece)
    arrays = {name: None if array is None else array[piece].copy() for name, array in arrays.items()}
    arrays["whole"] = (part.whole.voxels, part.whole.ijk_to_ras.tolist())
    return {"voxels": part.voxels, "ijk_to_ras": part.ijk_to_ras.tolist(), **arrays}, piece


def _neededPiece(settings, volume, mask):
    from MedDiffFMLib.tasks.needed_piece import needed_piece

    return needed_piece(settings.task, volume, mask, settings.checked().parameters)


def _cut(volume, piece):
    from MedDiffFMLib.preprocessing.mask_crop import crop

    return crop(volume, piece)
