"""Paired tests: two methods on the same cases, wins and differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .metrics import bootstrap, wins
from .protocols import Row
from .tables import is_part

CLAIMS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("denoise", "PSNR", ("non-local means", "total variation", "BM3D", "BM3D, spectrum told")),
    ("denoise", "SSIM", ("non-local means", "total variation", "BM3D", "BM3D, spectrum told")),
    ("inpaint", "MAE", ("biharmonic fill",)),
    ("inpaint", "told apart", ("biharmonic fill",)),
    ("anomaly", "AP", ("local residual",)),
    ("anomaly", "AUROC", ("local residual",)),
    ("anomaly", "found 4", ("local residual",)),
)
"""Task, figure and baselines of the verdict: what the model should win, group by group."""
QUESTIONS = {"anomaly": ("synthetic lesions", "real lesions")}
"""Groups that a verdict is about, where they are not all."""
PARTS = {"denoise": ("PSNR", ("non-local means", "BM3D, spectrum told"))}
"""Figure and baselines of a verdict about a part of a question: a kind and level of noise."""


@dataclass(frozen=True)
class Difference:
    """One method against another.

    Attributes:
        better: on how many cases the first is strictly better; ``cases``: that both have.
        patients: independent ones among them.
        mean: of the paired differences, positive where the first is better, in the figure's unit.
        low, high: 95 % interval from drawing patients with replacement.
    """

    better: int
    cases: int
    patients: int
    mean: float
    low: float
    high: float

    @property
    def word(self) -> str:
        """ "better" or "worse" where the interval says so, "open" where it holds 0, "one patient" without one."""
        if self.patients < 2:
            return "one patient" if self.patients else "no case"
        return "better" if self.low > 0 else "worse" if self.high < 0 else "open"


def difference(rows: Sequence[Row], others: Sequence[Row], figure: str, higher_is_better: bool) -> Difference:
    """Rows of two methods, paired by case."""
    other = {row.case: _value(row, figure) for row in others}
    pairs = [(_value(row, figure), other[row.case], row.patient) for row in rows if row.case in other]
    pairs = [p for p in pairs if np.isfinite(p[0]) and np.isfinite(p[1])]
    sign = 1 if higher_is_better else -1
    better, cases = wins([a for a, _, _ in pairs], [b for _, b, _ in pairs], higher_is_better)
    patients = [patient for _, _, patient in pairs]
    interval = bootstrap([sign * (a - b) for a, b, _ in pairs], patients)
    return Difference(better, cases, len(set(patients)), interval.mean, interval.low, interval.high)


def verdicts(rows: Sequence[Row], model: str | None, higher: dict[tuple[str, str], bool]) -> list[dict[str, Any]]:
    """The model against each baseline it should beat, in the order of :data:`CLAIMS`; empty without a model.

    Args:
        higher: (task, figure) -> whether higher is better.
    """
    verdicts = []
    for task, figure, baselines in CLAIMS:
        groups = dict.fromkeys(row.group for row in rows if row.task == task)
        for group in [g for g in groups if g in QUESTIONS.get(task, groups)]:
            part = [row for row in rows if row.task == task and row.group == group]
            own = [row for row in part if row.method == model]
            for baseline in [b for b in baselines if _claimed(task, group, figure, b)]:
                others = [row for row in part if row.method == baseline]
                paired = difference(own, others, figure, higher[task, figure])
                if paired.cases:
                    verdicts.append(
                        {
                            "task": task,
                            "group": group,
                            "figure": figure,
                            "against": baseline,
                            **asdict(paired),
                            "verdict": paired.word,
                        }
                    )
    return verdicts


def _claimed(task: str, group: str, figure: str, baseline: str) -> bool:
    """Whether the verdict has a row about it."""
    if task not in PARTS or not is_part(task, group):
        return True
    return figure == PARTS[task][0] and baseline in PARTS[task][1]


def _value(row: Row, figure: str) -> float:
    """NaN where the row lacks the figure; JSON knows no NaN and writes null."""
    value = row.values.get(figure)
    return float("nan") if value is None else float(value)
