"""Segmentation by a head that ``meddifffm finetune --task segmentation`` trained on a few outlined scans."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.errors import ModelError
from ..base import Case, Run, TaskResult
from .spec import Segment

if TYPE_CHECKING:
    import torch

    from ...core.progress import ProgressMeter
    from ...imaging.volume import Volume
    from ...models.checkpoint import FoundationModel
    from ...preprocessing.working_image import WorkingImage
    from ...segmentation.head_file import Head
    from ...segmentation.inputs import SegmentationInput
    from ...segmentation.method import Prediction


def segment(parameters: Segment, case: Case, run: Run) -> TaskResult:
    """Find the structures that a head was trained on.

    Args:
        case: its mask is where to search; everywhere when None. Its anatomy is not used.
        run: its seed is that of a method that samples.

    Returns:
        ``segmentation`` (label numbers of the training masks, uint8 or uint16), ``uncertainty`` (standard deviation of
        the most uncertain label, 0 to 0.5) and, with several structures, ``uncertainty_<name>`` of each, on the
        input's grid. ``facts["labels"]`` has value, name, color, terminology, volume, mean uncertainty and threshold of
        each.

    Raises:
        ModelError: there is no head, it is damaged, or it was made for another prior.
    """
    from ...preprocessing.body_coordinates import locate
    from ...preprocessing.working_image import working_image
    from ...segmentation.calibration import calibrated
    from ...segmentation.head_file import find_head, load_head
    from ...segmentation.inputs import SegmentationInput

    volume, model = case.scan, run.model
    name = parameters.head or find_head(model)
    if name is None:
        raise ModelError(
            f"There is no segmentation head for the model {model.name}.",
            "Train one on scans that you outlined: meddifffm finetune --task segmentation --data FOLDER -o RUN.",
        )
    head = load_head(name, model)
    image = working_image(volume, head.spacing, region=run.region)
    place = locate(volume)
    meter = run.meter(1.0, f"looking for {', '.join(label.name for label in head.labels[:4])}")
    inputs = SegmentationInput(image.hounsfield, image.condition, place.field(image.grid))
    prediction = _predict(head, inputs, model, parameters, run.seed, meter)
    if head.temperatures is not None:
        prediction = calibrated(prediction, head.temperatures)
    result, thresholds = _on_input(prediction, image, head, parameters, case.mask)
    facts: dict[str, Any] = {
        "head": head.facts(),
        "region": image.region,
        "labels": _label_facts(result, thresholds, head, volume),
        "body": {"understood": place.understood, "flipped": list(place.flipped)},
    }
    warnings: list[str] = []
    empty = [row["name"] for row in facts["labels"] if not row["volume_ml"]]
    if head.other_body:
        warnings.append(f"{head.name} was trained with older body coordinates: train it again for its best.")
    warnings += [f"Nothing was found of: {', '.join(empty)}."] if empty else []
    return TaskResult(result, facts=facts, warnings=warnings)


def _predict(
    head: Head,
    inputs: SegmentationInput,
    model: FoundationModel,
    parameters: Segment,
    seed: int,
    meter: ProgressMeter,
) -> Prediction:
    """The method's prediction on the working grid; lowers the memory level instead of failing."""
    from ...inference.engine import repeatable
    from ...segmentation.method import InferenceBudget

    engine = model.engine

    def predict() -> Prediction:
        level, meter.done = engine.memory_level, 0.0
        head.segmenter.to(level.device)
        budget = InferenceBudget(level.device, engine.dtype, level.batch, level.window, parameters.samples, seed)
        with repeatable(level.device):
            return head.segmenter.predict(inputs, budget, meter)

    return engine.retry_on_oom(predict)


def _on_input(
    prediction: Prediction, image: WorkingImage, head: Head, parameters: Segment, mask: np.ndarray | None
) -> tuple[dict[str, np.ndarray], list[float]]:
    """Label numbers and uncertainties on the input's voxels, and the threshold of each structure.

    Where structures meet, the one that is more probable, beside its threshold, wins.
    """
    from ...segmentation.outline import BEST, HIGHEST, best_threshold

    shape = image.volume.voxels.shape
    largest = max(label.value for label in head.labels)
    labels = np.zeros(shape, np.uint8 if largest < 256 else np.uint16)
    best = np.ones(shape, np.float32)
    uncertainty = np.zeros(shape, np.float32)
    single: dict[str, np.ndarray] = {}
    thresholds = []
    for number, label in enumerate(head.labels):
        probability = _inside(prediction.probabilities[number], image, mask)
        spread = _inside(prediction.uncertainty[number], image, mask)
        threshold = parameters.threshold
        if threshold is None:
            threshold = best_threshold(probability) if head.outline == BEST else HIGHEST
        thresholds.append(threshold)
        probability = probability / threshold
        inside = _large_pieces(probability >= best, image.volume, parameters.minimum_volume)
        labels[inside] = label.value
        best = np.where(inside, probability, best)
        np.maximum(uncertainty, spread, out=uncertainty)
        if len(head.labels) > 1:
            single[f"uncertainty_{file_word(label.name, label.value)}"] = spread
    return {"segmentation": labels, "uncertainty": uncertainty, **single}, thresholds


def _inside(values: torch.Tensor, image: WorkingImage, mask: np.ndarray | None) -> np.ndarray:
    """Values on the input's voxels, 0 outside of the mask and where nothing was scanned."""
    from ...imaging.intensity import is_padding

    on_input = image.on_input(values.numpy())
    on_input[is_padding(image.volume.voxels)] = 0
    return on_input if mask is None else on_input * mask


def _large_pieces(inside: np.ndarray, volume: Volume, minimum_mm3: float) -> np.ndarray:
    """The mask without pieces that are too small."""
    if minimum_mm3 <= 0 or not inside.any():
        return inside
    from scipy import ndimage

    pieces, _ = ndimage.label(inside)
    keep = np.bincount(pieces.ravel()) * volume.voxel_volume >= minimum_mm3
    keep[0] = False
    return keep[pieces]


def _label_facts(
    result: dict[str, np.ndarray], thresholds: list[float], head: Head, volume: Volume
) -> list[dict[str, Any]]:
    """Rows of what each structure is, how much of it was found, and from which probability on; mean uncertainty inside
    of it."""
    rows = []
    for label, threshold in zip(head.labels, thresholds, strict=True):
        inside = result["segmentation"] == label.value
        count = int(np.count_nonzero(inside))
        spread = round(float(result["uncertainty"][inside].mean()), 3) if count else None
        milliliters = round(count * volume.voxel_volume / 1000, 3)
        rows.append(
            {**label.as_dict(), "volume_ml": milliliters, "uncertainty": spread, "threshold": round(threshold, 3)}
        )
    return rows


def file_word(name: str, value: int) -> str:
    """A structure's name as part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or f"label-{value}"
