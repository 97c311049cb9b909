"""Temperatures of a trained head: from its validation cases, or else from patients left out of like heads in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...core.progress import ProgressMeter
from ...segmentation.calibration import LogitCounts
from ...segmentation.features import FeatureMethod
from ...segmentation.inputs import LabeledInput
from ...segmentation.method import InferenceBudget, Segmenter

WARMUP = 10
"""Steps of a crossed training in which its rate rises."""


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


def from_validation(segmenter: Segmenter, examples: Sequence[LabeledInput], budget: InferenceBudget) -> list[float]:
    """Temperature of each class on whole cases that the head did not learn from."""
    counts = LogitCounts(len(examples[0].known))
    for example in examples:
        counts.add(segmenter.predict(example.inputs, budget).probabilities, example.truth(), example.known)
    return counts.temperatures()


def crossed(
    method: FeatureMethod,
    prior: torch.nn.Module,
    examples: Sequence[LabeledInput],
    patients: Sequence[str],
    pace: Pace,
    budget: InferenceBudget,
    meter: ProgressMeter,
) -> list[float]:
    """Temperature of each class from heads that are trained as this one was, each without one of the patients.

    Args:
        prior: whose features they read; those of the examples are there already.
        patients: of each example; two or more.
    """
    counts = LogitCounts(len(examples[0].known))
    for patient in sorted(set(patients)):
        learned = [e for e, p in zip(examples, patients, strict=True) if p != patient]
        segmenter = _trained(method, prior, learned, pace, budget, meter)
        for example, name in zip(examples, patients, strict=True):
            if name == patient:
                counts.add(segmenter.predict(example.inputs, budget).probabilities, example.truth(), example.known)
    return counts.temperatures()


def _trained(
    method: FeatureMethod,
    prior: torch.nn.Module,
    examples: Sequence[LabeledInput],
    pace: Pace,
    budget: InferenceBudget,
    meter: ProgressMeter,
) -> Segmenter:
    """A head after as many steps as the one that is calibrated."""
    torch.manual_seed(pace.seed)
    segmenter = method.build(len(examples[0].known), prior)
    segmenter.precompute(examples, budget, meter)
    segmenter.part.to(budget.device).train()
    optimizer = torch.optim.AdamW(segmenter.part.parameters(), pace.learning_rate, weight_decay=0.01)
    samples = method.samples(examples, pace.seed, 0, pace.steps * pace.batch)
    for step in range(pace.steps):
        meter.check()
        optimizer.param_groups[0]["lr"] = pace.learning_rate * min(1.0, (step + 1) / WARMUP)
        batch = method.collate([samples[step * pace.batch + n] for n in range(pace.batch)])
        loss = segmenter.loss(type(batch)(*(part.to(budget.device) for part in batch))).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(segmenter.part.parameters(), 1.0)
        optimizer.step()
    return segmenter.eval()
