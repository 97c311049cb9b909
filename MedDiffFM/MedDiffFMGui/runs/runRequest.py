"""Nodes and choices of the panel as the worker's client takes them."""

from dataclasses import dataclass, field
from typing import Any

from ..nodes.segmentationArrays import anatomyFromSegmentation, maskFromSegmentation
from ..nodes.volumeNodes import copying, volumeFromNode


@dataclass
class RunSettings:
    """What besides the CT decides about a run.

    :param parameters: values by name; what is left out has the task's default.
    :param mask: vtkMRMLSegmentationNode whose segments together are the mask, or None.
    :param anatomy: vtkMRMLSegmentationNode with TotalSegmentator's structures, or None.
    :param region: body region of the library, "none", or None for a guess from the image.
    :param model: name in the catalogue, or path of a weight file.
    :param device: "auto", "cpu", "cuda" or "cuda:1".
    """

    parameters: dict[str, Any] = field(default_factory=dict)
    mask: Any = None
    anatomy: Any = None
    region: str | None = None
    seed: int = 0
    model: str = "starter-ct"
    device: str = "auto"


def makeRequest(task, inputNode, settings):
    """The request, and the index box (k, j, i) of the CT that travels; None for the whole CT.

    A generator of short steps. Its voxels are copies: the user may edit the CT before they are sent.

    :param settings: RunSettings.
    :return: (RunRequest, box).
    :raises MedDiffFMError: a mask or an organ map that does not fit.
    """
    from MedDiffFMLib.tasks.registry import TASKS
    from MedDiffFMLib.worker.client import RunRequest

    arrays, piece = yield from _arrays(TASKS[task], inputNode, settings)
    request = RunRequest(
        task=task,
        parameters=settings.parameters,
        seed=settings.seed,
        region=settings.region,
        model=settings.model,
        device=settings.device,
        **arrays,
    )
    return request, piece


def _arrays(row, inputNode, settings):
    """The request's arrays by name, and the box that they cover; a generator of short steps."""
    if inputNode is None:
        return {}, None
    volume = volumeFromNode(inputNode)
    anatomy = yield from anatomyFromSegmentation(settings.anatomy, inputNode)
    if not row.needs_volume:  # a CT is made on the grid of the organ map
        matrix = None if anatomy is None else volume.ijk_to_ras.tolist()
        return {"anatomy": anatomy, "ijk_to_ras": matrix}, None
    mask = None
    if row.takes_mask or row.needs_mask:
        mask = yield from maskFromSegmentation(settings.mask, inputNode)
    piece = None if mask is None else _neededPiece(row.name, volume, mask, settings.parameters)
    arrays = {"mask": mask, "anatomy": anatomy}
    if piece is None:
        voxels = yield from copying(volume.voxels)
        return {"voxels": voxels, "ijk_to_ras": volume.ijk_to_ras.tolist(), **arrays}, None
    part = _cut(volume, piece)
    arrays = {name: None if array is None else array[piece].copy() for name, array in arrays.items()}
    arrays["whole"] = (part.whole.voxels, part.whole.ijk_to_ras.tolist())
    return {"voxels": part.voxels, "ijk_to_ras": part.ijk_to_ras.tolist(), **arrays}, piece


def _neededPiece(task, volume, mask, parameters):
    from MedDiffFMLib.tasks.needed_piece import needed_piece
    from MedDiffFMLib.tasks.parameters import from_dict
    from MedDiffFMLib.tasks.registry import TASKS

    return needed_piece(task, volume, mask, from_dict(TASKS[task].parameter_class(), parameters))


def _cut(volume, piece):
    from MedDiffFMLib.preprocessing.mask_crop import crop

    return crop(volume, piece)
