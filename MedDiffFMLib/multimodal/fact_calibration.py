"""Calibration of what is said of an image: how sure one has to be for nine of ten statements to hold.

Patients count, not images: ten boxes of one patient are right or wrong together. All rules are conservative, and where
none keeps the promise nothing is said.

Words: the least sureness at which the lower end of Wilson's interval (1927; one-sided, 95 %) of the precision is still
0.9, each patient taken as one trial. Sureness is lowered step by step and stops where the promise breaks for the first
time, so that the many steps cost nothing (fixed-sequence testing, Angelopoulos et al., "Learn then Test", 2021).

Groups: what holds for necks need not hold for legs. In each group of images of which anything would be said, the share
that is right is to be 0.9, too, if without a bound, for which groups are too small.

Numbers: an interval that reaches so many spreads of the draws to either side (as in Lei et al., JASA 2018), narrowed
step by step by the same rule, judged on what would be told. The bound of split-conformal prediction itself is about all
images, not about those whose interval is narrow: of these it was seen to hold for 0.7 to 0.89 of other patients.
Nor is a number told that errs by more than half of what the same one for every image would.
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
NEARER = 0.5
"""Of the error of the training's median: what an estimate that is told errs by at most."""


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


def keeps(right: np.ndarray, patient: np.ndarray, group: np.ndarray | None, asked: float = PRECISION) -> bool:
    """Whether what is said is right often enough: surely in all, and by what was seen in each group.

    Args:
        right: (n,) bool, of all that is said.
        patient, group: (n,).
    """
    share, patients = precision_of(right, patient)
    if lower_bound(share, patients) < asked:
        return False
    groups = [] if group is None else [group == name for name in np.unique(group)]
    return all(precision_of(right[one], patient[one])[0] >= asked for one in groups)


def word_threshold(
    sureness: np.ndarray, right: np.ndarray, patient: np.ndarray, group: np.ndarray | None = None,
    asked: float = PRECISION,
) -> float:  # fmt: skip
    """Sureness from which on a word is said; ``NEVER`` where none keeps what is asked.

    The steps begin where so many patients are told something that a faultless record would do.

    Args:
        sureness: (n,) 0 to 1.
        right: (n,) whether the likeliest word is right.
        patient: (n,).
        group: (n,) names of groups in each of which it is to hold; None for one.
    """
    best = NEVER
    for step in STEPS:
        said = sureness >= step
        if lower_bound(1.0, len(np.unique(patient[said]))) < asked:
            continue
        if not keeps(right[said], patient[said], None if group is None else group[said], asked):
            break
        best = float(step)
    return best


def interval_scale(
    error: np.ndarray, spread: np.ndarray, patient: np.ndarray, widest: float = np.inf, asked: float = PRECISION,
    group: np.ndarray | None = None, usual: np.ndarray | None = None,
) -> float:  # fmt: skip
    """By how many spreads an interval reaches to either side; infinite where nothing keeps what is asked.

    Args:
        error: (n,) of the estimate, absolute.
        spread: (n,) expected error, above 0.
        patient: (n,).
        widest: interval that is told.
        group: see :func:`word_threshold`.
        usual: (n,) error of the same number for every image; None to ask for nothing better.
    """
    best = float("inf")
    for scale in SCALES:
        told = 2 * scale * spread <= widest
        if lower_bound(1.0, len(np.unique(patient[told]))) < asked:
            continue
        right = error[told] <= scale * spread[told]
        if not keeps(right, patient[told], None if group is None else group[told], asked):
            break
        if usual is None or error[told].mean() <= NEARER * usual[told].mean():
            best = float(scale)
    return best
