"""Realism of synthetic CTs: windows compared with those of real patients in a feature space.

Everything is asked of one body at a time, be it a patient or a synthetic volume, and always against the same number of
*other* real patients, so that a patient is never compared with itself and rows are like for like:

* MMD: discrepancy between the body's windows and those of the other patients;
* precision: share of the body's windows that lie on the manifold of the other patients' windows;
* recall: share of a real patient's windows that lie on the manifold of as many bodies of the kind as there are other
  patients.

Real patients give the best that can be expected; blurred, noisy and shuffled ones tell what a bad figure looks like.
MMD and the Frechet distance are computed in random features too, and with reference volumes it is looked up how like a
window is to the nearest one of them.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...core.errors import InputError
from ...imaging.volume import Volume
from .cases import Case
from .distribution_metrics import coverage, frechet, mmd
from .memorization import MOST_WINDOWS as MOST_LOOKED_UP
from .memorization import SPACING as COARSE
from .memorization import References, coarse
from .protocols import Answer, Row, seam_details
from .random_features import NAME as RANDOM
from .random_features import random_features
from .window_features import WINDOW_MM, FeatureSpace, windows_of

TASK = "synthesize"
REAL = "real, other patients"
COPIES = "references again, half a voxel off"
FEWEST_PATIENTS = 2
MOST_WINDOWS = 60
"""Windows of one body that count, drawn at random; else large patients would outweigh small ones."""
WORST = 5.0
"""Features further than so many standard deviations from real ones count as so many."""
NOT_ONE_BOX = ("whole-body", "none")
"""Regions of which a synthetic box of usual size shows a part only, or that are none."""

Generator = Callable[[str, int], tuple[Volume, Answer]]
"""``generate(region, seed)`` -> the CT, and the same voxels with what the method tells of them."""
Views = dict[str, np.ndarray]


@dataclass(frozen=True)
class SynthesisPlan:
    """Plan of what is synthesized.

    Attributes:
        volumes: synthetic volumes of each region.
        seed: of the first volume; the next ones follow.
        regions: that are asked about; every one that can be judged when empty.
    """

    volumes: int = 4
    seed: int = 0
    regions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Body:
    """One patient or one synthetic volume, as features of its windows.

    Attributes:
        patient: the patient it is or was made from; empty for a synthetic one.
        views: view -> (windows, features).
        values: figures that no other body is needed for.
        seconds, details, evaluations: see :class:`.protocols.Row`.
    """

    name: str
    patient: str
    views: Views
    values: dict[str, float]
    seconds: float = 0.0
    details: dict[str, Any] | None = None
    evaluations: int | None = None


class SynthesisQuestion:
    """The real patients of each region, and how kinds of bodies compare with them.

    Args:
        cases: real CTs. A region with fewer than two patients cannot be judged.
        space: see :mod:`.window_features`.
        references: volumes that synthetic ones must not repeat; None to leave that out.
    """

    def __init__(
        self, cases: Sequence[Case], space: FeatureSpace, plan: SynthesisPlan, references: References | None = None
    ) -> None:
        self.space, self.plan, self.references = space, plan, references
        gathered: dict[str, dict[str, list[Body]]] = {}
        for patient in dict.fromkeys(case.patient or case.name for case in cases):
            own = [case for case in cases if (case.patient or case.name) == patient]
            for region, windows in _windows_by_region(own, patient, space.spacing).items():
                kinds = gathered.setdefault(region, {kind: [] for kind in CHANGES})
                asked = not plan.regions or region in plan.regions
                for kind, change in CHANGES.items() if asked else ():
                    kinds[kind].append(
                        self._described(patient, patient, change(windows, patient, space.spacing), kind == REAL)
                    )
        enough = {region: len(kinds[REAL]) >= FEWEST_PATIENTS for region, kinds in sorted(gathered.items())}
        self.kinds = {region: gathered[region] for region in enough if enough[region]}
        self.left_out = {
            region: len(gathered[region][REAL])
            for region in enough
            if not enough[region] and (not plan.regions or region in plan.regions)
        }
        self.scale = _scale([body.views for kinds in self.kinds.values() for body in kinds[REAL]])

    @property
    def regions(self) -> list[str]:
        """Regions that can be judged."""
        return list(self.kinds)

    def baseline_rows(self) -> list[Row]:
        """Real patients, and real patients made worse; windows of the references, to show what a copy looks like."""
        rows = [row for region in self.regions for kind in CHANGES for row in self._rows(region, kind)]
        if self.references is None:
            return rows
        copies = self.references.controls(round(WINDOW_MM / COARSE))
        values = self._nearest(copies)
        return rows + [Row(TASK, COPIES, COPIES, region, COPIES, values, 0.0) for region in self.regions if len(copies)]

    def _described(self, name: str, patient: str, windows: np.ndarray, looked_up: bool = True) -> Body:
        """A body from its windows in HU."""
        views = self.space(windows) | {RANDOM: random_features(windows)}
        few = _thinned(windows, name, MOST_LOOKED_UP)
        values = self._nearest(coarse(few, self.space.spacing)) if looked_up else {}
        return Body(name, patient, views, values)

    def _nearest(self, windows: np.ndarray) -> dict[str, float]:
        """Correlation of windows at 6 mm with the nearest ones of the references."""
        if self.references is None or not len(windows):
            return {}
        correlations = self.references.nearest(windows)
        return {"nearest": float(correlations.mean()), "nearest, highest": float(correlations.max())}

    def rows_of(self, method: str, generate: Generator, region: str) -> list[Row]:
        """Rows of a method: its volumes of one region."""
        bodies = []
        for seed in range(self.plan.seed, self.plan.seed + self.plan.volumes):
            start = time.perf_counter()
            volume, answer = generate(region, seed)
            seconds = time.perf_counter() - start
            name = f"synthetic {region} {seed}"
            windows = windows_of(volume, self.space.spacing, always=True)
            if len(windows) < 2:
                raise InputError(
                    f"The synthetic volumes are too small for several windows of {WINDOW_MM:g} mm.",
                    "Leave out --set synthesize.size, or raise it.",
                )
            body = self._described(name, "", _thinned(windows, name))
            bodies.append(replace(body, seconds=seconds, details=seam_details(answer), evaluations=answer.evaluations))
        self.kinds[region][method] = bodies
        return self._rows(region, method)

    def _rows(self, region: str, kind: str) -> list[Row]:
        real, bodies = self.kinds[region][REAL], self.kinds[region][kind]
        rows = []
        for turn, body in enumerate(bodies):
            values = self._figures(real, bodies, body, turn) | body.values
            rows.append(
                Row(
                    TASK,
                    body.name,
                    body.patient or body.name,
                    region,
                    kind,
                    values,
                    body.seconds,
                    body.details or {},
                    body.evaluations,
                )
            )
        return rows

    def _figures(self, real: list[Body], bodies: list[Body], body: Body, turn: int) -> dict[str, float]:
        """Means over the ways to leave one patient out: the body's own one, or each in turn for a synthetic body."""
        figures: dict[str, list[float]] = {}
        for left_out in [p for p in real if body.patient in ("", p.patient)]:
            others = [p for p in real if p is not left_out]
            alike = _neighbors(bodies, body, turn, left_out, len(others))
            for view in [v for v in body.views if v != RANDOM]:
                own, others_windows = self._scaled([body], view), self._scaled(others, view)
                figures.setdefault("MMD", []).append(mmd(own, others_windows))
                figures.setdefault("precision", []).append(coverage(own, others_windows))
                figures.setdefault("recall", []).append(
                    coverage(self._scaled([left_out], view), self._scaled(alike, view))
                )
                if self.space.frechet:
                    figures.setdefault("FID", []).append(frechet(_pooled([body], view), _pooled(others, view)))
            own, others_windows = self._scaled([body], RANDOM), self._scaled(others, RANDOM)
            figures.setdefault("random FID", []).append(frechet(own, others_windows))
            figures.setdefault("random MMD", []).append(mmd(own, others_windows))
        return {name: float(np.mean(values)) for name, values in figures.items()}

    def _scaled(self, bodies: list[Body], view: str) -> np.ndarray:
        middle, width = self.scale[view]
        return np.clip((_pooled(bodies, view) - middle) / width, -WORST, WORST)


def _neighbors(bodies: list[Body], body: Body, turn: int, left_out: Body, count: int) -> list[Body]:
    """Bodies of a kind that together are to cover the patient left out: never made from it, ``count`` if there are."""
    if body.patient:
        return [b for b in bodies if b.patient != left_out.patient]
    return [bodies[(turn + n) % len(bodies)] for n in range(min(count, len(bodies)))]


def _pooled(bodies: list[Body], view: str) -> np.ndarray:
    return np.concatenate([body.views[view] for body in bodies])


def _scale(views: list[Views]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and standard deviation of each feature over all real windows, view by view."""
    scales = {}
    for view in views[0] if views else ():
        together = np.concatenate([v[view] for v in views])
        width = together.std(axis=0)
        # A feature that hardly varies among real windows must not decide everything.
        scales[view] = together.mean(axis=0), np.maximum(width, max(0.05 * float(np.median(width)), 1e-9))
    return scales


def _windows_by_region(cases: Sequence[Case], patient: str, spacing: float) -> dict[str, np.ndarray]:
    """Region -> windows in HU of all the cases of one patient that show it."""
    from ...imaging.io import read_volume

    by_region: dict[str, list[np.ndarray]] = {}
    for case in cases:
        volume = read_volume(case.image)
        region = case.region or _guessed(volume)
        if region is not None and region not in NOT_ONE_BOX:
            by_region.setdefault(region, []).append(windows_of(volume, spacing))
    together = {region: np.concatenate(windows) for region, windows in by_region.items()}
    return {region: _thinned(windows, patient) for region, windows in together.items() if len(windows) > 1}


def _guessed(volume: Volume) -> str | None:
    from ...preprocessing.body_localization import localize_body

    return localize_body(volume).guessed


def _thinned(windows: np.ndarray, name: str, most: int = MOST_WINDOWS) -> np.ndarray:
    """At most ``most`` of them."""
    if len(windows) <= most:
        return windows
    chosen = np.random.default_rng(zlib.crc32(name.encode())).choice(len(windows), most, replace=False)
    return windows[np.sort(chosen)]


def blurred(windows: np.ndarray, patient: str, spacing: float, width_mm: float = 6.0) -> np.ndarray:
    """As if the model had learned averages only."""
    from scipy.ndimage import gaussian_filter

    width = width_mm / spacing
    return gaussian_filter(windows, (0, width, width, width))


def noisy(windows: np.ndarray, patient: str, spacing: float, level_hu: float = 100.0) -> np.ndarray:
    """As if sampling had stopped too early."""
    rng = np.random.default_rng(zlib.crc32(patient.encode()))
    return windows + level_hu * rng.standard_normal(windows.shape, dtype=np.float32)


def shuffled(windows: np.ndarray, patient: str, spacing: float, cubes: int = 4) -> np.ndarray:
    """As if tissue were right and anatomy wrong: cubes of 24 mm change places within their window."""
    rng = np.random.default_rng(zlib.crc32(patient.encode()))
    count, size = len(windows), windows.shape[1] // cubes
    parts = windows.reshape(count, cubes, size, cubes, size, cubes, size).transpose(0, 1, 3, 5, 2, 4, 6)
    parts = parts.reshape(count, cubes**3, size**3)
    moved = np.stack([part[rng.permutation(cubes**3)] for part in parts])
    back = moved.reshape(count, cubes, cubes, cubes, size, size, size).transpose(0, 1, 4, 2, 5, 3, 6)
    return back.reshape(windows.shape)


CHANGES: dict[str, Callable[[np.ndarray, str, float], np.ndarray]] = {
    REAL: lambda windows, patient, spacing: windows,
    "real, blurred by 6 mm": blurred,
    "real, noise of 100 HU": noisy,
    "real, cubes of 24 mm shuffled": shuffled,
}
