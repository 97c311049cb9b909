"""Comparison of two CTs: registration, change in units of noise, lesions of both scans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.errors import InputError
from ..base import Case, Run, TaskResult
from .lesions import FEW_VOXELS, Lesion, Rule, listed, marked, matched, rows_of
from .registration import STAGES, Registration
from .spec import Compare

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...core.progress import ProgressMeter
    from ...imaging.volume import Volume
    from .change import Change

STRANGERS, UNLIKE = 0.6, 0.9
"""Correlation in the body after registration under which two scans are refused, and under which they are warned of."""
FLAT = 0.3
"""Tissue is flat where the misfit of edges is under this part of the noise."""
CHANGING = "change in units of noise"


def compare(task: Compare, case: Case, run: Run) -> TaskResult:
    """Bring the earlier scan onto the later one and say what changed.

    Returns:
        ``aligned``: the earlier scan's HU on the later grid, int16; ``change``: later less earlier in standard
        deviations of the noise of both, float32, 0 where only one scan is; ``lesions`` and ``changes``: a row a lesion
        and a row a changed region, in the later scan's places; ``summary``: sentences.
        facts: motion, deformation, correlation, noise of both, days between.

    Raises:
        DependencyError: SimpleITK is missing.
        InputError: no overlap, too unlike to be of one patient, no soft tissue, a mask or table that does not fit.
    """
    from .change import averaged, changing, noise_of
    from .registration import registering

    later, earlier = case.scan, case.scans["earlier"]
    found = _lesions(task, case)
    meter = run.meter(len(STAGES) + 4, STAGES[0])
    registration = _last(registering(later, earlier), meter, STAGES)
    warnings = _checked(registration)
    noises = noise_of(later, "later"), noise_of(earlier, "earlier")
    meter.advance(stage=CHANGING)
    change: Change = _last(changing(later, earlier, registration, noises, task.misfit), meter, ())
    lesions = _rows(task, case, found, registration)
    changes = _regions(task, later, change, averaged(change, later), case.anatomy)
    warnings += [
        f"Lesion {lesion.number} of the {name} scan has only {lesion.voxels} voxels: its volume is uncertain."
        for name, those in zip(("earlier", "later"), found, strict=True)
        for lesion in those
        if lesion.voxels is not None and lesion.voxels < FEW_VOXELS
    ]
    facts = _facts(task, later, registration, change, noises)
    meter.advance(stage=CHANGING)
    from .sentences import summary

    return TaskResult(
        {"aligned": _stored(change.aligned, earlier), "change": change.score},
        {"lesions": lesions, "changes": changes},
        {"summary": summary(facts, lesions, changes, task.threshold)},
        facts,
        warnings,
    )


def _last(steps: Iterator[Any], meter: ProgressMeter, stages: Sequence[str]) -> Any:
    """The last item of work in steps; a cancel is heard after each."""
    last: Any = None
    for number, item in enumerate(steps, 1):
        last = item
        if number < len(stages):
            meter.advance(stage=stages[number])
        meter.check()
    return last


def _checked(registration: Registration) -> list[str]:
    """Warnings about scans that are hardly alike.

    Raises:
        InputError: they are not.
    """
    alike = registration.correlation
    if alike < STRANGERS:
        raise InputError(
            f"The scans are too unlike (correlation {alike:.2f} after registration): other patients, other parts of "
            "the body, or one of them is no CT in HU.",
            "Give two CTs of the same part of one patient.",
        )
    if alike < UNLIKE:
        return [
            f"The scans are little alike (correlation {alike:.2f} after registration): check that both are of the same "
            "patient, and look at the moved scan before you trust the changes."
        ]
    return []


def _lesions(task: Compare, case: Case) -> tuple[list[Lesion], list[Lesion]]:
    """Those of the earlier and of the later scan, from masks or tables."""
    before = case.scans.get("earlier_mask")
    masks = None if before is None else before.voxels, case.mask
    scans, tables = (case.scans["earlier"], case.scan), (task.earlier_findings, task.later_findings)
    found = []
    for name, mask, scan, table in zip(("earlier", "later"), masks, scans, tables, strict=True):
        if mask is not None and table:
            option = "--earlier-mask" if name == "earlier" else "--mask"
            raise InputError(
                f"Both a mask and a table of the {name} scan's lesions are given.",
                f"Leave out {option} or --{name}-findings.",
            )
        found.append(listed(table) if table else [] if mask is None else marked(mask, scan))
    return found[0], found[1]


def _rows(
    task: Compare, case: Case, found: tuple[list[Lesion], list[Lesion]], registration: Registration
) -> list[dict[str, Any]]:
    pairs = matched(*found, registration)
    organs = case.anatomy

    def organ(point: np.ndarray) -> str:
        from ..anomaly.findings import most_frequent

        if organs is None:
            return ""
        i, j, k, _ = np.rint(np.linalg.inv(case.scan.ijk_to_ras) @ [*point, 1.0]).astype(int)
        inside = all(0 <= x < n for x, n in zip((k, j, i), organs.shape, strict=True))
        return most_frequent(np.bincount([organs[k, j, i]], minlength=256)) if inside else ""

    return rows_of(pairs, registration, (case.scans["earlier"], case.scan), Rule(task.growth, task.days()), organ)


def _regions(
    task: Compare, later: Volume, change: Change, score: np.ndarray, anatomy: np.ndarray | None
) -> list[dict[str, Any]]:
    """Rows of the changed regions, the strongest first."""
    from ..anomaly.findings import list_findings

    difference = later.with_voxels(np.where(change.shared, later.voxels - change.aligned, 0))
    rows = list_findings(np.abs(score), difference, task.threshold, task.minimum_volume, anatomy, apart=False)
    return [
        {
            "direction": "denser" if row["mean_hu"] > 0 else "less dense",
            **{n: v for n, v in row.items() if n != "mean_z"},
        }
        for row in rows
    ]


def _facts(
    task: Compare, later: Volume, registration: Registration, change: Change, noises: tuple[Any, Any]
) -> dict[str, Any]:
    """What was found about the pair as a whole."""
    rigid = registration.rigid
    middle = (later.ijk_to_ras @ [*((n - 1) / 2 for n in later.voxels.shape[::-1]), 1.0])[:3]
    shift = rigid[:3, :3] @ middle + rigid[:3, 3] - middle
    angle = np.degrees(np.arccos(np.clip((np.trace(rigid[:3, :3]) - 1) / 2, -1, 1)))
    flat = change.shared & (later.voxels > -150) & (later.voxels < 150) & (change.misfit < FLAT * noises[0].hu)
    return {
        "days_between": task.days(),
        "shift_mm": round(float(np.linalg.norm(shift)), 1),
        "angle_degrees": round(float(angle), 2),
        "deformation_mm": round(registration.deformation(), 1),
        "correlation": round(registration.correlation, 4),
        "correlation_before": None if registration.before is None else round(registration.before, 4),
        "earlier_noise_hu": round(noises[1].hu, 1),
        "later_noise_hu": round(noises[0].hu, 1),
        "shared_percent": round(100 * float(change.shared.mean()), 1),
        "change_deviation": round(float(change.score[flat].std()), 3) if flat.any() else None,
    }


def _stored(aligned: np.ndarray, earlier: Volume) -> np.ndarray:
    """In the number type of the scan that it came from."""
    if earlier.voxels.dtype.kind == "f":
        return aligned
    return np.rint(aligned).astype(earlier.voxels.dtype)
