"""Temperature scaling (Guo et al. 2017, arXiv 1706.04599): probabilities that are frequencies on unseen patients.

A head that learned from few cases is too sure in others. One number a class, by which its logits are divided, is fitted
on patients that it did not learn from. A probability of 0.5 stays where it is; thresholds follow (:mod:`.outline`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .method import Prediction

LARGEST_LOGIT, BINS = 20.0, 800
"""Logits are counted in so many bins between minus and plus the largest."""
LOWEST, HIGHEST = 0.2, 20.0
"""Limits of a temperature."""


class LogitCounts:
    """Voxels counted by the logit of each class and whether they are inside: all that a temperature is fitted on.

    Attributes:
        counts: (C, 2, BINS), outside and inside.
    """

    def __init__(self, classes: int) -> None:
        self.counts = np.zeros((classes, 2, BINS))

    @property
    def logits(self) -> np.ndarray:
        """(BINS,) middle of each bin."""
        return (np.arange(BINS) + 0.5) * (2 * LARGEST_LOGIT / BINS) - LARGEST_LOGIT

    def add(self, probabilities: torch.Tensor, truth: torch.Tensor, known: Sequence[bool]) -> None:
        """Count a case: (C, D, H, W) probabilities and masks; classes that it does not know are left out."""
        for number in np.flatnonzero(known):
            logit = _logit(probabilities[number]).flatten().numpy()
            place = np.clip((logit + LARGEST_LOGIT) * (BINS / 2 / LARGEST_LOGIT), 0, BINS - 1).astype(int)
            inside = (truth[number] > 0.5).flatten().numpy()
            for value in (0, 1):
                self.counts[number, value] += np.bincount(place[inside == value], minlength=BINS)

    def temperatures(self) -> list[float]:
        """Of each class the temperature of the least cross-entropy; 1 for a class that no case shows."""
        return [self._fit(*pair) if pair[1].any() else 1.0 for pair in self.counts]

    def _fit(self, outside: np.ndarray, inside: np.ndarray) -> float:
        from scipy.optimize import minimize_scalar

        def entropy(log_temperature: float) -> float:
            scaled = self.logits / np.exp(log_temperature)
            return float((inside * np.logaddexp(0, -scaled) + outside * np.logaddexp(0, scaled)).sum())

        found = minimize_scalar(entropy, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded")
        return round(float(np.exp(found.x)), 3)


def scaled(probabilities: torch.Tensor, temperatures: Sequence[float]) -> torch.Tensor:
    """Probabilities (C, ...) with the logits of each class divided by its temperature."""
    divisor = torch.tensor(temperatures).reshape(-1, *[1] * (probabilities.ndim - 1))
    return torch.where(
        (probabilities <= 0) | (probabilities >= 1), probabilities, (_logit(probabilities) / divisor).sigmoid()
    )


def calibrated(prediction: Prediction, temperatures: Sequence[float]) -> Prediction:
    """A prediction with its probabilities scaled.

    The uncertainty that is a coin's with that probability follows; the spread among samples is measured, and stays.
    """
    before = prediction.probabilities
    coin = (before * (1 - before)).sqrt()
    after = scaled(before, temperatures)
    if not torch.allclose(coin, prediction.uncertainty, atol=1e-4):
        return Prediction(after, prediction.uncertainty)
    return Prediction(after, (after * (1 - after)).sqrt())


def _logit(probabilities: torch.Tensor) -> torch.Tensor:
    """Finite logits, float32."""
    tiny = float(np.exp(-LARGEST_LOGIT))
    p = probabilities.double().clamp(tiny, 1 - tiny)
    return (p.log() - (1 - p).log()).float()
