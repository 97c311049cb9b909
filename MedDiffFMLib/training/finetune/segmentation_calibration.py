"""What a trained head gets when its training is over: a context head, temperatures and a way to outline.

They are learned from maps of patients that the head which drew them had not learned from. Heads that are trained as the
one itself, each without some of the patients, draw such maps of its own patients: the context head learns from these.
It is kept where patients that it did not learn from gain by it: the validation cases, or, without any, the patients in
turn. The same tell the temperatures, and whether outlines by best thresholds or from 0.5 on overlap more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...core.progress import ProgressMeter
from ...segmentation.calibration import LogitCounts
from ...segmentation.context import ContextHead, ContextSample, context_sample, train_context
from ...segmentation.features import FeatureMethod, FeatureSegmenter
from ...segmentation.inputs import LabeledInput, class_shares, dice
from ...segmentation.method import InferenceBudget, Segmenter
from ...segmentation.outline import BEST, HALF, outlined

WARMUP = 10
"""Steps of a crossed training in which its rate rises."""
FOLDS = 5
"""Heads, at most, that are trained without some of the patients."""
LEAST_PATIENTS = 3
"""For a context head: with two, each map is of a head that learned from one patient, and nothing was gained."""
MOST_STEPS = 400
"""Of their training, where validation cases tell the temperatures, for which alone it must be as long as the head's."""


@dataclass(frozen=True)
class Pace:
    """Length of the training that the head had.

    Attributes:
        steps: to the kept checkpoint.
    """

    steps: int
    batch: int
    learning_rate: float
    seed: int


@dataclass(frozen=True)
class Completion:
    """What a head gets.

    Attributes:
        temperatures: one a class.
        outline: BEST or HALF.
        context: None where it is not worth its while, or there were too few patients.
        gain: in Dice, by the context, of patients that it did not learn from.
    """

    temperatures: list[float]
    outline: str
    context: ContextHead | None = None
    gain: float = 0.0


@dataclass(frozen=True)
class _Part:
    """Cases that a head did not learn from.

    Attributes:
        samples: what a context head may learn of each.
    """

    segmenter: FeatureSegmenter
    cases: list[LabeledInput]
    samples: list[ContextSample]


class _Tally:
    """Dice and logits, with and without a context head, of cases that neither learned from; before any temperature."""

    def __init__(self, classes: int) -> None:
        self.counts = {with_context: LogitCounts(classes) for with_context in (False, True)}
        self._dice: dict[tuple[bool, str], list[float]] = defaultdict(list)

    def add(self, probabilities: torch.Tensor, example: LabeledInput, context: ContextHead | None) -> None:
        maps = {False: probabilities}
        if context is not None:
            maps[True] = context.refined(np.asarray(example.inputs.voxels), probabilities)
        truth = example.truth()
        for with_context, drawn in maps.items():
            self.counts[with_context].add(drawn, truth, example.known)
            for way in (BEST, HALF):
                scores = dice(outlined(drawn, way), truth).tolist()
                kept = [
                    score for score, known in zip(scores, example.known, strict=True) if known and not np.isnan(score)
                ]
                self._dice[with_context, way] += kept

    def completion(self, context: ContextHead | None) -> Completion:
        """The better of all ways; as it is where nothing was there to be found."""
        means = {key: float(np.mean(scores)) for key, scores in self._dice.items() if scores}
        best = max(means, key=lambda key: means[key]) if means else (False, BEST)
        alone = max((mean for key, mean in means.items() if not key[0]), default=0.0)
        temperatures = self.counts[best[0]].temperatures()
        if not best[0]:
            return Completion(temperatures, best[1])
        return Completion(temperatures, best[1], context, means[best] - alone)


def from_validation(segmenter: Segmenter, examples: Sequence[LabeledInput], budget: InferenceBudget) -> Completion:
    """Temperatures and the way to outline, by whole cases that the head did not learn from."""
    tally = _Tally(len(examples[0].known))
    for example in examples:
        tally.add(segmenter.predict(example.inputs, budget).probabilities, example, None)
    return tally.completion(None)


def completed(
    segmenter: FeatureSegmenter,
    examples: Sequence[LabeledInput],
    patients: Sequence[str],
    validation: Sequence[LabeledInput],
    pace: Pace,
    budget: InferenceBudget,
    meter: ProgressMeter,
) -> Completion:
    """What a head on features gets.

    Args:
        segmenter: the head.
        examples: cases that it learned from, whose features are there already.
        patients: of each of them; two or more.
        validation: cases that it did not learn from; may be none.
    """
    enough, shares = len(set(patients)) >= LEAST_PATIENTS, class_shares(examples)
    if validation and not enough:
        return from_validation(segmenter, validation, budget)
    parts = _parts(segmenter, examples, patients, pace, MOST_STEPS if validation else pace.steps, budget, meter)
    context = train_context([s for part in parts for s in part.samples], shares, pace.seed) if enough else None
    tally = _Tally(len(examples[0].known))
    for example in validation:
        meter.check()
        tally.add(segmenter.predict(example.inputs, budget).probabilities, example, context)
    for part in parts if not validation else ():
        others = [sample for other in parts if other is not part for sample in other.samples]
        crossed = train_context(others, shares, pace.seed) if enough else None
        for example in part.cases:
            meter.check()
            tally.add(part.segmenter.predict(example.inputs, budget).probabilities, example, crossed)
    return tally.completion(context)


def _parts(
    segmenter: FeatureSegmenter,
    examples: Sequence[LabeledInput],
    patients: Sequence[str],
    pace: Pace,
    most_steps: int,
    budget: InferenceBudget,
    meter: ProgressMeter,
) -> list[_Part]:
    """The cases in parts, each with a head that learned from the others alone."""
    names = sorted(set(patients))
    parts = []
    for number in range(min(FOLDS, len(names))):
        out = set(names[number::FOLDS])
        cases = [e for e, patient in zip(examples, patients, strict=True) if patient in out]
        learned = [e for e, patient in zip(examples, patients, strict=True) if patient not in out]
        meter.advance(0, f"Learning what surrounds: {number + 1} of {min(FOLDS, len(names))}")
        head = _trained(segmenter.method, segmenter.prior, learned, pace, most_steps, budget, meter)
        samples = []
        for seed, case in enumerate(cases):
            meter.check()
            drawn = head.predict(case.inputs, budget).probabilities
            known = np.logical_and(case.known, np.any([e.known for e in learned], axis=0)).tolist()
            samples.append(context_sample(np.asarray(case.inputs.voxels), drawn, case.truth(), known, seed))
        parts.append(_Part(head, cases, samples))
    return parts


def _trained(
    method: FeatureMethod,
    prior: torch.nn.Module,
    examples: Sequence[LabeledInput],
    pace: Pace,
    most_steps: int,
    budget: InferenceBudget,
    meter: ProgressMeter,
) -> FeatureSegmenter:
    """A head after as many steps as the one that is completed, if these are not more than ``most_steps``."""
    torch.manual_seed(pace.seed)
    segmenter = method.build(len(examples[0].known), prior)
    assert isinstance(segmenter, FeatureSegmenter)
    segmenter.precompute(examples, budget, meter)
    segmenter.part.to(budget.device).train()
    optimizer = torch.optim.AdamW(segmenter.part.parameters(), pace.learning_rate, weight_decay=0.01)
    steps = min(pace.steps, most_steps)
    samples = method.samples(examples, pace.seed, 0, steps * pace.batch)
    for step in range(steps):
        meter.check()
        optimizer.param_groups[0]["lr"] = pace.learning_rate * min(1.0, (step + 1) / WARMUP)
        batch = method.collate([samples[step * pace.batch + n] for n in range(pace.batch)])
        loss = segmenter.loss(type(batch)(*(part.to(budget.device) for part in batch))).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(segmenter.part.parameters(), 1.0)
        optimizer.step()
    return segmenter.eval()
