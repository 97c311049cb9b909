"""Segmentation task of fine-tuning: any method of ``segmentation``, judged by its Dice on whole unseen CTs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from ...core.errors import InputError
from ...core.precision import choose_precision
from ...core.progress import ProgressMeter
from ...datasets.importers import labels_of
from ...datasets.labels import SegmentLabel, label_table
from ...models.checkpoint import read_weights
from ...segmentation.features import FeatureSegmenter
from ...segmentation.head_file import complete_head, read_head, save_head
from ...segmentation.inputs import LabeledInput, dice
from ...segmentation.method import InferenceBudget, Method, Segmenter, make_method, options_of
from ...segmentation.outline import BEST, HALF, outlined
from .adapters import Adapter
from .config import FinetuneConfig
from .interface import ControlCase, ControlTask
from .preview import Preview, Slice
from .segmentation_calibration import Pace, completed, from_validation
from .segmentation_case import make_example

VALIDATION_SAMPLES = 2
"""Of the ensemble of a method with chance, while it is trained."""
MOST_CLASSES = 120


@dataclass(frozen=True)
class SegmentationTask:
    """See :class:`.interface.ControlTask`.

    Attributes:
        method: how it is learned.
        spacing: edge of the working voxels in mm.
        label_names: names for label numbers, instead of those that the data give.
        labels: the classes; empty until the cases are known.
    """

    method: Method
    spacing: float = 2.0
    label_names: tuple[tuple[int, str], ...] = ()
    labels: tuple[SegmentLabel, ...] = ()

    name = "segmentation"
    needs_mask = True
    metric = "dice"
    higher_is_better = True

    @property
    def window(self) -> int:
        """Edge of the training windows."""
        return self.method.window

    @property
    def all_options(self) -> dict[str, Any]:
        """The options of the run with those that were not given, so that none can change between two starts."""
        return {
            "method": self.method.name,
            "spacing": self.spacing,
            "label_names": [list(pair) for pair in self.label_names],
            **options_of(self.method),
        }

    def network(self) -> Any:
        raise NotImplementedError("a segmentation head is no ControlNet")

    def fitted(
        self, cases: Sequence[ControlCase], data: Path, chosen: tuple[int, ...], prior: str, precision: str
    ) -> SegmentationTask:
        """The same task with the classes that the training cases show.

        Args:
            data: dataset folder or datalist, which may name the labels.
            chosen: label numbers that count; empty for all.
            prior: SHA-256 of the prior.
            precision: "float32" or "bfloat16".

        Raises:
            InputError: no class, or more than a label map of organs has.
        """
        values = set(chosen) or {int(n) for case in cases for n in np.unique(np.asarray(case.mask)) if n > 0}
        if not 0 < len(values) <= MOST_CLASSES:
            raise InputError(f"The masks have {len(values)} labels.", "Choose the ones to learn with --labels.")
        named = {**labels_of(data), **dict(self.label_names)}
        method = self.method
        if hasattr(method, "prior"):
            method = replace(cast(Any, method), prior=prior, precision=precision)
        return replace(self, labels=label_table(values, named), method=method)

    def check(self, cases: Sequence[ControlCase]) -> list[str]:
        """Each class that some cases lack: there it counts as not outlined, not as absent."""
        present = {case.case.name: {int(n) for n in np.unique(np.asarray(case.mask)) if n > 0} for case in cases}
        everything = set().union(*present.values()) if present else set()
        if not everything:
            raise InputError("No case has anything outlined.", "Give masks that mark the structures to learn.")
        return [
            f"Label {value} is missing in {name}: there it counts as not outlined, and nothing is learned about it."
            for name, values in present.items()
            for value in sorted(everything - values)
        ]

    def examples(self, cases: Sequence[ControlCase]) -> list[LabeledInput]:
        """The cases on the working grid."""
        return [make_example(case.case, case.mask, self.labels, self.spacing) for case in cases]

    def samples(self, cases: Sequence[ControlCase], seed: int, first: int, count: int) -> Dataset:
        return self.method.samples(self.examples(cases), seed, first, count)

    def collate(self, samples: list[dict[str, Any]]) -> Any:
        return self.method.collate(samples)

    def loss(self, denoiser: nn.Module, batch: Any) -> torch.Tensor:
        return cast(Segmenter, denoiser).loss(batch)

    def validate(
        self,
        denoiser: nn.Module,
        cases: Sequence[ControlCase],
        preview: Preview | None = None,
        precision: str = "auto",
    ) -> dict[str, float]:
        """Dice of whole CTs: ``dice``, mean over classes and cases, and ``dice_<label>`` where there are several."""
        segmenter = cast(Segmenter, denoiser)
        device = next(segmenter.parameters()).device
        dtype = choose_precision(precision, device)
        scores = []
        training = segmenter.part.training
        way = BEST if isinstance(segmenter, FeatureSegmenter) else HALF  # as without a word of other patients
        segmenter.part.eval()
        for example in self.examples(cases):
            budget = InferenceBudget(device, dtype, window=self.window, samples=VALIDATION_SAMPLES)
            masks = outlined(segmenter.predict(example.inputs, budget).probabilities, way)
            scores_by_class = dice(masks, example.truth())
            if preview is not None:
                preview.add(*_shown(example, masks.any(0).numpy()))
            scores.append(
                [float(value) if known else np.nan for value, known in zip(scores_by_class, example.known, strict=True)]
            )
        segmenter.part.train(training)
        return self._figures(np.array(scores, dtype=float))

    def _figures(self, scores: np.ndarray) -> dict[str, float]:
        """Means of (cases, classes) over what is known."""
        if not np.isfinite(scores).any():
            return {}
        figures = {"dice": round(float(np.nanmean(scores)), 4)}
        if len(self.labels) > 1:
            for label, column in zip(self.labels, scores.T, strict=True):
                if np.isfinite(column).any():
                    figures[f"dice_{label.value}"] = round(float(np.nanmean(column)), 4)
        return figures

    def settings(self, cases: Sequence[ControlCase]) -> dict[str, Any]:
        """``classes``: of each one its name and the training cases that show it."""
        examples = self.examples(cases)
        return {"cases": {label.name: sum(e.known[n] for e in examples) for n, label in enumerate(self.labels)}}


def _shown(example: LabeledInput, predicted: np.ndarray) -> list[Slice]:
    """The axial slice with most of what is outlined: what the head marks beside what was outlined by hand."""
    truth = example.target > 0
    k = int(truth.sum((1, 2)).argmax())
    image = np.asarray(example.inputs.voxels[k], dtype=np.float32)
    return [Slice("now", image, ((predicted[k], "orange"),)), Slice("outlined", image, ((truth[k], "cyan"),))]


class SegmentationAdapter(Adapter):
    """A segmentation head, see :class:`.adapters.Adapter`."""

    kind = "segmentation"
    does_task_untrained = False

    def attach(self, denoiser: nn.Module, task: ControlTask) -> nn.Module:
        segmentation = cast(SegmentationTask, task)
        return segmentation.method.build(len(segmentation.labels), denoiser.requires_grad_(False))

    def part(self, denoiser: nn.Module) -> nn.Module:
        return cast(Segmenter, denoiser).part

    def fitted(
        self,
        task: ControlTask,
        cases: Sequence[ControlCase],
        data: Path,
        labels: tuple[int, ...],
        prior: dict[str, str],
        precision: str,
    ) -> ControlTask:
        fitted = cast(SegmentationTask, task).fitted(cases, data, labels, prior["sha256"], precision)
        return cast(ControlTask, fitted)

    def precompute(
        self,
        denoiser: nn.Module,
        task: ControlTask,
        training: Sequence[ControlCase],
        meter: ProgressMeter,
        precision: str,
    ) -> None:
        segmentation, segmenter = cast(SegmentationTask, task), cast(Segmenter, denoiser)
        device = next(segmenter.parameters()).device
        budget = InferenceBudget(device, choose_precision(precision, device), window=segmentation.window)
        segmenter.precompute(segmentation.examples(training), budget, meter)

    def save(
        self,
        path: Path,
        denoiser: nn.Module,
        task: ControlTask,
        prior: dict[str, str],
        settings: dict[str, Any],
        training: dict[str, Any],
    ) -> str:
        segmentation = cast(SegmentationTask, task)
        return save_head(
            path,
            self.part(denoiser),
            method=segmentation.method.name,
            options=options_of(segmentation.method),
            labels=segmentation.labels,
            spacing=segmentation.spacing,
            prior=prior,
            settings=settings,
            training=training,
        )

    def finish(
        self,
        path: Path,
        denoiser: nn.Module,
        task: ControlTask,
        training: Sequence[ControlCase],
        validation: Sequence[ControlCase],
        config: FinetuneConfig,
        steps: int,
        precision: str,
        meter: ProgressMeter,
    ) -> list[str]:
        """A second look, temperatures and a way to outline, by patients that were not learned from."""
        if "temperature" in read_head(path):  # of a run that was finished before
            return []
        segmentation, segmenter = cast(SegmentationTask, task), cast(Segmenter, denoiser)
        part = self.part(denoiser)
        part.load_state_dict(read_weights(path).state)
        part.eval()
        device = next(segmenter.parameters()).device
        budget = InferenceBudget(
            device, choose_precision(precision, device), window=segmentation.window, samples=VALIDATION_SAMPLES
        )
        patients, aside = [case.case.patient for case in training], segmentation.examples(validation)
        several = len(set(patients)) if isinstance(segmenter, FeatureSegmenter) else 0
        if several > 1:
            pace = Pace(steps, config.batch, config.loop.learning_rate, config.seed)
            head, examples = cast(FeatureSegmenter, segmenter), segmentation.examples(training)
            found = completed(head, examples, patients, aside, pace, budget, meter)
        elif validation:
            found = from_validation(segmenter, aside, budget)
        else:
            return ["Its probabilities are not calibrated: no patient was left to do it with."]
        source = (
            f"{len(validation)} validation cases" if validation else f"{several} training patients, left out in turn"
        )
        complete_head(
            path, temperatures=found.temperatures, source=source, outline=found.outline,
            context=found.context, patients=several, gain=found.gain,
        )  # fmt: skip
        return []


def segmentation_task(
    *,
    method: str = "features",
    spacing: float = 2.0,
    window: int = 64,
    label_names: Sequence[Sequence[Any]] = (),
    **options: Any,
) -> SegmentationTask:
    """The task from the options of a run.

    Args:
        method: row of METHODS.
        label_names: pairs of label number and name.
        options: of the method.

    Raises:
        InputError: no such method or option, or a spacing out of range.
    """
    if not 0.3 <= spacing <= 10:
        raise InputError(f"A spacing of {spacing:g} mm is out of range.", "Give 0.3 to 10 mm.")
    names = tuple((int(number), str(words)) for number, words in label_names)
    return SegmentationTask(make_method(method, {"window": window, **options}), spacing, names)
