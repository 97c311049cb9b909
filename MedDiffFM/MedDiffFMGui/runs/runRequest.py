"""Nodes and choices of the panel as the worker's client takes them."""

from dataclasses import dataclass, field
from typing import Any

from ..nodes.boxMasks import isBox, maskFromBox
from ..nodes.segmentationArrays import anatomyFromSegmentation, maskFromSegmentation
from ..nodes.volumeNodes import beamSource, copying, volumeFromNode


@dataclass
class RunChoices:
    """What besides the first scan decides about a run: the library's settings, nodes whose voxels it reads, texts.

    :param settings: ``MedDiffFMLib.runner.settings.RunSettings``.
    :param mask: vtkMRMLSegmentationNode whose segments together are the mask, or vtkMRMLMarkupsROINode, or None.
    :param anatomy: vtkMRMLSegmentationNode with TotalSegmentator's structures, or None.
    :param scans: name of a further scan of the task -> volume node.
    :param texts: name -> text.
    """

    settings: Any
    mask: Any = None
    anatomy: Any = None
    scans: dict[str, Any] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    @property
    def task(self):
        """Name in the library's table."""
        return self.settings.task


def runChoices(task, mask=None, anatomy=None, scans=None, texts=None, **settings):
    """RunChoices from nodes, texts and the fields of RunSettings: parameters, region, seed, model, device ..."""
    from MedDiffFMLib.runner.settings import RunSettings

    return RunChoices(RunSettings(task, **settings), mask, anatomy, scans or {}, texts or {})


def makeRequest(inputNode, choices):
    """The request, and the index box (k, j, i) of the scan that travels; None for the whole scan.

    A generator of short steps. Its voxels are copies: the user may edit the scan before they are sent.

    :param choices: RunChoices.
    :return: (RunRequest, box).
    :raises MedDiffFMError: a mask or an organ map that does not fit.
    """
    from MedDiffFMLib.tasks.registry import TASKS
    from MedDiffFMLib.worker.client import RunRequest

    arrays, piece = yield from _arrays(inputNode, choices)
    scans, inputs = {}, TASKS[choices.task].inputs
    for name, node in choices.scans.items():
        grid = inputs.grid_of(name)
        if grid != "volume":
            mask = yield from maskFromSegmentation(node, choices.scans[grid])
            scans[name] = (mask.astype("uint8"), volumeFromNode(choices.scans[grid]).ijk_to_ras.tolist())
            continue
        scan = volumeFromNode(node)
        voxels = yield from copying(scan.voxels)
        scans[name] = (voxels, scan.ijk_to_ras.tolist())
    beams = {name: beamSource(node) for name, node in {"volume": inputNode, **choices.scans}.items() if node}
    beams = {name: source for name, source in beams.items() if source is not None}
    return RunRequest(choices.settings, **arrays, scans=scans, texts=choices.texts, beams=beams), piece


def _arrays(inputNode, choices):
    """The request's arrays on the grid of the first scan by name, and the box that they cover; in short steps."""
    from MedDiffFMLib.preprocessing.mask_crop import crop
    from MedDiffFMLib.tasks.inputs import NONE
    from MedDiffFMLib.tasks.registry import TASKS

    inputs = TASKS[choices.task].inputs
    if inputNode is None:
        return {}, None
    volume = volumeFromNode(inputNode)
    anatomy = yield from anatomyFromSegmentation(choices.anatomy, inputNode)
    if inputs.volume is NONE:  # a CT is made on the grid of the organ map
        matrix = None if anatomy is None else volume.ijk_to_ras.tolist()
        return {"anatomy": anatomy, "ijk_to_ras": matrix}, None
    mask = None
    if inputs.mask is not NONE:
        read = maskFromBox if isBox(choices.mask) else maskFromSegmentation
        mask = yield from read(choices.mask, inputNode)
    piece = None if mask is None else choices.settings.checked().parameters.needed_piece(volume, mask)
    arrays = {"mask": mask, "anatomy": anatomy}
    if piece is None:
        voxels = yield from copying(volume.voxels)
        return {"voxels": voxels, "ijk_to_ras": volume.ijk_to_ras.tolist(), **arrays}, None
    part = crop(volume, piece)
    assert part.whole is not None
    arrays = {name: None if array is None else array[piece].copy() for name, array in arrays.items()}
    arrays["whole"] = (part.whole.voxels, part.whole.ijk_to_ras.tolist())
    return {"voxels": part.voxels, "ijk_to_ras": part.ijk_to_ras.tolist(), **arrays}, piece
