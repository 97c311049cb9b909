"""Evaluation protocols: one a task, question and score of a method on one case.

A method is a function of voxels; the model and every baseline get the same ones. Each protocol returns rows, one a
method and group, whose values are plain numbers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...imaging.volume import Volume
from .baselines import classical as baselines
from .baselines.bm3d import spectrum
from .cases import LoadedCase
from .degradations import Plan, near_lesions, quarter_dose, spheres, stored, synthetic_lesions
from .detection import findings
from .metrics import mean_absolute_error, psnr, rank_against, ssim, texture_ratio
from .regions import distance_to
from .window_seams import Borders, seam_ratio


@dataclass(frozen=True)
class Answer:
    """What a method that has more to tell than its result returns.

    Attributes:
        voxels: (k, j, i).
        evaluations: of the network, each on the whole volume; None for a method without one.
        borders: where the network's windows end.
    """

    voxels: np.ndarray
    evaluations: int | None = None
    borders: Borders | None = None


Method = Callable[..., "np.ndarray | Answer"]
"""``denoise(volume) | inpaint(volume, mask) | anomaly(volume)`` -> array (k, j, i)."""

DETECTED = ("synthetic lesions", "real lesions")
"""Groups for which detection lesion by lesion is measured too."""


@dataclass
class Row:
    """One method's figures on one case.

    Attributes:
        group: which part of the question ("30 mm", "real lesions"); empty where there is one part only.
        values: name of the figure -> number; NaN where the case has nothing to measure.
        seconds: what the method took.
        details: what pooled figures need later.
        evaluations: of the network for one result; None for a method without one.
    """

    task: str
    case: str
    patient: str
    group: str
    method: str
    values: dict[str, float]
    seconds: float
    details: dict[str, Any] = field(default_factory=dict)
    evaluations: int | None = None


def denoise_rows(loaded: LoadedCase, plan: Plan, cache: Path | None, methods: dict[str, Method]) -> list[Row]:
    """PSNR and SSIM over the body, in the soft-tissue window, against the volume before noise was added; seams."""
    noisy = stored(quarter_dose, loaded, plan, cache)["noisy"].astype(np.float32)
    truth, body = loaded.volume.voxels, loaded.body
    rows = []
    for name, method in methods.items():
        answer, seconds = _timed(method, loaded.volume.with_voxels(noisy))
        values = {"PSNR": psnr(answer.voxels, truth, body), "SSIM": ssim(answer.voxels, truth, body)}
        rows.append(_row("denoise", loaded, "", name, values, seconds, seam_details(answer), answer.evaluations))
    return rows


def seam_details(answer: Answer) -> dict[str, Any]:
    """Seam ratio of an answer and what it would be by chance; empty where no window ends inside the volume."""
    if answer.borders is None or not any(len(line) for line in answer.borders):
        return {}
    found = seam_ratio(answer.voxels, answer.borders)
    return {"seam": found.overall, "seam_chance": found.chance}


def inpaint_rows(loaded: LoadedCase, plan: Plan, cache: Path | None, methods: dict[str, Method]) -> list[Row]:
    """Error inside healthy spheres, one run a sphere, averaged over the spheres of a size.

    The voxels inside are overwritten before any method sees them, so that nothing of the truth can leak.
    """
    rows = []
    for diameter, labels in stored(spheres, loaded, plan, cache).items():
        holes = [labels == number for number in range(1, int(labels.max()) + 1)]
        for name, method in methods.items():
            each = [_filled(loaded, hole, method) for hole in holes]
            values = {key: float(np.mean([one[key] for one in each])) for key in ("MAE", "texture")}
            seconds = sum(one["seconds"] for one in each)
            evaluations = each[0]["evaluations"]
            rows.append(_row("inpaint", loaded, f"{diameter} mm", name, values, seconds, evaluations=evaluations))
    return rows


def _filled(loaded: LoadedCase, hole: np.ndarray, method: Method) -> dict[str, Any]:
    """Figures of one sphere."""
    truth = loaded.volume.voxels
    hollow = loaded.volume.with_voxels(baselines.mean_fill(truth, hole, loaded.volume.spacing))
    answer, seconds = _timed(method, hollow, hole)
    error, texture = mean_absolute_error(answer.voxels, truth, hole), texture_ratio(answer.voxels, truth, hole)
    return {"MAE": error, "texture": texture, "seconds": seconds, "evaluations": answer.evaluations}


def anomaly_rows(loaded: LoadedCase, plan: Plan, cache: Path | None, methods: dict[str, Method]) -> list[Row]:
    """How well a map ranks the voxels of synthetic and, in the same run, of real lesions above the rest of the body."""
    made = stored(synthetic_lesions, loaded, plan, cache)
    volume = loaded.volume.with_voxels(made["changed"].astype(np.float32))
    labels, lesions = made["labels"], json.loads(str(made["lesions"]))
    lesions = [one for one in lesions if (labels == one["label"]).any()]
    groups = {"synthetic lesions": [one["label"] for one in lesions]}
    for one in lesions:
        contrast = "lung nodule" if one["kind"] == "lung" else f"{one['contrast_hu']:+g} HU"
        groups.setdefault(f"{one['diameter_mm']:g} mm", []).append(one["label"])
        groups.setdefault(contrast, []).append(one["label"])
    normal = loaded.body & ~near_lesions(loaded) & (labels == 0)
    rows = []
    for name, method in methods.items():
        answer, seconds = _timed(method, volume)
        ordered = np.sort(answer.voxels[normal])
        for group, members in groups.items():
            part = np.where(np.isin(labels, members), labels, 0)
            rows.append(_ranked(loaded, group, name, answer, part, normal, ordered, seconds))
        if loaded.lesions.any():
            far = distance_to(labels > 0, volume.spacing) > 5.0 if labels.any() else np.ones_like(loaded.body)
            rest = loaded.body & far & (loaded.lesions == 0)
            marked = np.where(far, loaded.lesions, 0)
            ordered = np.sort(answer.voxels[rest])
            rows.append(_ranked(loaded, "real lesions", name, answer, marked, rest, ordered, seconds))
    return rows


def baseline_methods(task: str, loaded: LoadedCase, plan: Plan, cache: Path | None) -> dict[str, Method]:
    """The classical methods of a task; the denoisers are told the true noise of the case."""
    spacing, body = loaded.volume.spacing, loaded.body
    if task == "denoise":
        noisy = stored(quarter_dose, loaded, plan, cache)["noisy"].astype(np.float32)
        sigma = float((noisy - loaded.volume.voxels)[body].std())
        return {
            "noisy input": lambda v: v.voxels,
            "non-local means": lambda v: baselines.non_local_means(v.voxels, sigma),
            "total variation": lambda v: baselines.total_variation(v.voxels, sigma),
            "BM3D": lambda v: baselines.block_matching(v.voxels, sigma),
            "BM3D, spectrum told": lambda v: baselines.block_matching(
                v.voxels, spectrum(noisy - loaded.volume.voxels, body), baselines.BM3D_SPECTRUM_STRENGTH
            ),
        }
    if task == "inpaint":
        return {
            "mean fill": lambda v, mask: baselines.mean_fill(v.voxels, mask, spacing),
            "biharmonic fill": lambda v, mask: baselines.biharmonic_fill(v.voxels, mask, spacing),
        }
    return {"local residual": lambda v: baselines.local_residual(v.voxels, body, spacing)}


PROTOCOLS: dict[str, Callable[..., list[Row]]] = {
    "denoise": denoise_rows,
    "inpaint": inpaint_rows,
    "anomaly": anomaly_rows,
}


def _ranked(loaded: LoadedCase, group: str, method: str, answer: Answer, labels: np.ndarray, normal: np.ndarray,
            ordered: np.ndarray, seconds: float) -> Row:  # fmt: skip
    """Row of one group of lesions: its voxels ranked among the normal ones' sorted scores, peaks for detection."""
    score = answer.voxels
    found = rank_against(ordered, score[labels > 0])
    values = {"AUROC": found.auroc, "AP": found.average_precision, "prevalence": found.prevalence}
    details = {}
    if group in DETECTED:
        false, best = findings(score, labels, normal | (labels > 0), loaded.volume.spacing)
        details = {"false": false, "best": best}
    return _row("anomaly", loaded, group, method, values, seconds, details, answer.evaluations)


def _row(task: str, loaded: LoadedCase, group: str, method: str, values: dict[str, float], seconds: float,
         details: dict[str, Any] | None = None, evaluations: int | None = None) -> Row:  # fmt: skip
    case = loaded.case
    patient = case.patient or case.name
    return Row(task, case.name, patient, group, method, values, seconds, details or {}, evaluations)


def _timed(method: Method, volume: Volume, *arguments: Any) -> tuple[Answer, float]:
    start = time.perf_counter()
    result = method(volume, *arguments)
    seconds = time.perf_counter() - start
    return result if isinstance(result, Answer) else Answer(result), seconds
