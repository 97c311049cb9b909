"""Calibration of what is said of an image: how sure one has to be for nine of ten statements to hold.

Patients count, not images: ten boxes of one patient are right or wrong together. All rules are conservative, and where
none keeps the promise nothing is said.

Words: the least sureness at which the lower end of Wilson's interval (1927; one-sided, 95 %) of the precision is still
0.9, each patient taken as one trial. Sureness is lowered step by step and stops where the promise breaks for the first
time, so that the many steps cost nothing (fixed-sequence testing, Angelopoulos et al., "Learn then Test", 2021).

Numbers: an interval as in split-conformal prediction with the spread of the draws as its scale (Lei et al., JASA 2018),
in which each patient weighs the same and the one to come counts as one that misses; judged on what would be told.
"""

from __future__ import annotations

import numpy as np

PRECISION = 0.9
"""That what is said is to have."""
Z = 1.645
"""Of the one-sided interval."""
STEPS = np.round(np.arange(1.0, 0.5, -0.03125), 5)
"""Sureness that is tried, from the surest on: shares of 32 draws."""
NEVER = 2.0
"""Threshold above every sureness."""
SCALES = np.geomspace(20, 0.2, 200)
"""Reaches of an interval that are tried, from the widest on."""
HELD = 0.9
"""Share of the patients whose number lies in the interval."""


def lower_bound(share: float, trials: float) -> float:
    """Lower end of Wilson's interval of a share."""
    if trials <= 0:
        return 0.0
    square = Z**2 / trials
    middle = share + square / 2
    return float((middle - np.sqrt(square * (share * (1 - share) + square / 4))) / (1 + square))


def precision_of(right: np.ndarray, patient: np.ndarray) -> tuple[float, int]:
    """Mean over patients of the share of theirs that is right, and how many patients there are.

    Args:
        right: (n,) bool.
        patient: (n,) numbers of the patients.
    """
    names, number = np.unique(patient, return_inverse=True)
    if not len(names):
        return float("nan"), 0
    shares = np.bincount(number, right) / np.bincount(number)
    return float(shares.mean()), len(names)


def word_threshold(sureness: np.ndarray, right: np.ndarray, patient: np.ndarray, asked: float = PRECISION) -> float:
    """Sureness from which on a word is said; ``NEVER`` where none keeps what is asked.

    The steps begin where so many patients are told something that a faultless record would do.

    Args:
        sureness: (n,) 0 to 1.
        right: (n,) whether the likeliest word is right.
        patient: (n,).
    """
    best = NEVER
    for step in STEPS:
        said = sureness >= step
        share, patients = precision_of(right[said], patient[said])
        if lower_bound(1.0, patients) < asked:
            continue
        if lower_bound(share, patients) < asked:
            break
        best = float(step)
    return best


def interval_scale(
    error: np.ndarray, spread: np.ndarray, patient: np.ndarray, widest: float = np.inf, held: float = HELD
) -> float:
    """By how many spreads an interval reaches to either side; infinite where nothing keeps what is asked.

    Only intervals that are narrow enough to be told are judged: those with little spread hold less than all together.

    Args:
        error: (n,) of the estimate, absolute.
        spread: (n,) expected error, above 0.
        patient: (n,).
        widest: interval that is told.
    """
    best = float("inf")
    for scale in SCALES:
        told = 2 * scale * spread <= widest
        share, patients = precision_of(error[told] <= scale * spread[told], patient[told])
        if patients < held * (patients + 1):
            continue
        if share * patients < held * (patients + 1):
            break
        best = float(scale)
    return best
