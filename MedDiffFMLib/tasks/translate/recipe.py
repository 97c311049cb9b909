"""Translation: a guess by intensities, corrected by the flow on 2 mm voxels, back on the input's voxels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...core.errors import InputError
from ...imaging.modality import CT, MR
from ...multimodal.names import CT as TO_CT
from ...multimodal.names import MR_T1
from ...multimodal.prepared import Prepared, prepare_mr
from ..base import Case, Run, TaskResult
from .spec import Translate

if TYPE_CHECKING:
    from ...imaging.volume import Volume

FAT_VALUE = 1000.0
"""Of fat in a translated MR."""
NO_FAT = (
    "The MR has no clear peak of fat, by which its values are told: what is translated may be off by a factor. "
    "Only T1-weighted images of trunk and limbs were trained on."
)
STRANGE = (
    "The MR looks unlike the T1-weighted MRs of trunk and limbs that the model has seen, {share:.0%} of the body "
    "markedly: the mask shows where. Do not trust the result."
)
STRANGE_SHARE = 0.25
"""Of the body, from which on a sentence says so."""


def translate(task: Translate, case: Case, run: Run) -> TaskResult:
    """Translate a scan.

    Returns:
        ``ct`` (HU, int16) with ``uncertainty`` (HU, standard deviation) and ``outside`` (bool), or ``mr`` (fat is
        1000, int16) with ``mr_uncertainty``; on the input's grid.
        facts: ``outside_share`` of the body; ``fat_peak``: whether the MR's scale rests on one.

    Raises:
        InputError: an image of the other kind, or one without a body.
    """
    import torch

    from ...imaging.modality_checks import as_modality
    from ...multimodal.familiarity import strangeness
    from ...multimodal.flow_file import shipped_flows
    from ...multimodal.pairs import SPACING_MM
    from ...multimodal.translation import translate_image

    to_ct = task.to == TO_CT
    meter = run.meter(1, "reading the scan")
    volume = as_modality(case.scan, MR if to_ct else CT)
    source = prepare_mr(volume) if to_ct else _ct(volume)
    if not source.body.any():
        raise InputError("No body is seen in the image.", "Give a scan that shows one.")
    flows = shipped_flows(run.device)
    distance = (
        flows.familiarity.distance(source.image, source.body, SPACING_MM) if to_ct else np.zeros(source.body.shape)
    )
    outside = distance > 1
    meter.stage = "translating"
    arrays = (source.image, source.seen, source.body)
    scan, seen, body = (torch.from_numpy(np.ascontiguousarray(array, np.float32)) for array in arrays)
    first = torch.from_numpy(flows.guess.of_image(source.image, source.body, SPACING_MM)) if to_ct else None
    found = translate_image(flows.flows[task.to], scan, seen, body, first, flows.strength[task.to], meter.advance)
    image = found.image.numpy()
    if task.fade and to_ct:
        table = flows.flows[TO_CT].lookup[MR_T1]
        usual = table(torch.from_numpy(source.image)[None, None], torch.zeros(1))[0, 0].numpy()
        image = np.where(outside & source.body, usual, image)
    spread = flows.spread[task.to] * found.variance.sqrt().numpy()
    result = _on_input(volume, source, image, spread, to_ct)
    share = float(outside[source.body].mean())
    strange = strangeness(distance, source.body, source.fat_from_peak) if to_ct else 0.0
    result.facts = {
        "outside_share": round(share, 3), "strangeness": round(strange, 3), "fat_peak": source.fat_from_peak,
    }  # fmt: skip
    if to_ct:
        unseen = (outside | ~source.seen).astype(np.float32)
        result.volumes["outside"] = _back(unseen, source, volume, 0) > 0.5
    result.warnings += doubts(source, share, strange)
    return result


def doubts(source: Prepared, outside_share: float, strange: float) -> list[str]:
    """What speaks against the result, one sentence each."""
    sentences = [] if source.fat_from_peak else [NO_FAT]
    return sentences + ([STRANGE.format(share=outside_share)] if strange > 1 or outside_share > STRANGE_SHARE else [])


def _ct(volume: Volume) -> Prepared:
    """A CT without its table."""
    from ...imaging.grid import working_grid
    from ...imaging.intensity import to_network
    from ...multimodal.pairs import SPACING_MM, ct_on_grid

    grid = working_grid(volume, SPACING_MM)
    hounsfield, body, covered = ct_on_grid(volume, grid)
    return Prepared(grid, to_network(hounsfield), covered, body & covered)


def _on_input(volume: Volume, source: Prepared, image: np.ndarray, spread: np.ndarray, to_ct: bool) -> TaskResult:
    """Network range -> HU or units of fat, on the input's voxels."""
    from ...imaging.intensity import HU_LIMIT
    from ...multimodal.mr_intensity import MRScale

    half = HU_LIMIT if to_ct else MRScale(FAT_VALUE).to_values(np.zeros(1))[0]
    values = image * half if to_ct else (image + 1) * half
    background = -HU_LIMIT if to_ct else 0.0
    voxels = np.rint(_back(np.where(source.seen, values, background), source, volume, background)).astype(np.int16)
    likely = _back(np.where(source.body, spread * half, 0), source, volume, 0)
    return TaskResult({"ct": voxels, "uncertainty": likely} if to_ct else {"mr": voxels, "mr_uncertainty": likely})


def _back(values: np.ndarray, source: Prepared, volume: Volume, fill: float) -> np.ndarray:
    from ...imaging.grid import from_grid

    return from_grid(np.ascontiguousarray(values, np.float32), source.grid, volume, fill=fill).astype(np.float32)
