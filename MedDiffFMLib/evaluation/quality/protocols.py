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

from ...core.errors import InputError
from ...imaging.volume import Volume
from .added_noise import NoisyPart, noisy_part, noisy_voxels
from .baselines import classical as baselines
from .baselines.bm3d import spectrum
from .cases import LoadedCase
from .degradations import Plan, near_lesions, spheres, stored, synthetic_lesions
from .detection import diameters, listed, peaks, ranks, scored
from .ldct_benchmark import ldct_figures, window_of
from .metrics import EARLY, areas, false_positive_rates, mean_absolute_error, psnr, rank_against, ssim, texture_ratio
from .patch_classifier import patches
from .regions import distance_to
from .texture import BANDS, band_name, spectrum_distance, spectrum_ratios
from .window_seams import Borders, seam_ratio


@dataclass(frozen=True)
class Answer:
    """Answer of a method that has more to tell than its result.

    Attributes:
        voxels: (k, j, i).
        evaluations: of the network, each on the whole volume; None for a method without one.
        borders: where the network's windows end.
        facts: of the task: ``noise_hu`` and ``noise_estimated``; those of its list (``candidates.LISTING``).
    """

    voxels: np.ndarray
    evaluations: int | None = None
    borders: Borders | None = None
    facts: dict[str, Any] = field(default_factory=dict)


OWN = "this task"
"""Method name of a task that needs no prior."""

Method = Callable[..., "np.ndarray | Answer | None"]
"""``denoise(volume, part) | inpaint(volume, mask) | anomaly(volume)`` -> array (k, j, i); None where it has no answer.

``part``, a :class:`evaluation.quality.added_noise.NoisyPart`, is for methods that are given what was added."""

KEPT_SCORES = 400
"""Scores of normal voxels that a row keeps, evenly spaced in their order, to rank all cases together; lesions: half."""
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
    """PSNR and SSIM against the volume before noise was added, one group a kind and level of noise; seams."""
    rows = []
    for question in plan.questions("denoise"):
        part = noisy_part(loaded, question, stored(noisy_voxels, loaded, question, cache)["noisy"])
        for name, method in methods.items() if part.body[part.scored].any() else ():
            try:
                answer, seconds = _timed(method, part.clean.with_voxels(part.noisy), part)
            except InputError as error:  # too little soft tissue to estimate the level from
                rows.append(_row("denoise", loaded, part.group, name, {}, 0.0, {"refused": str(error)}))
                continue
            if answer is not None:
                details = seam_details(answer) if not part.group else {}
                values = _denoised_values(answer, part, loaded)
                rows.append(_row("denoise", loaded, part.group, name, values, seconds, details, answer.evaluations))
    return rows


def _denoised_values(answer: Answer, part: NoisyPart, loaded: LoadedCase) -> dict[str, float]:
    """In the soft-tissue window over the body, as LDCT-benchmark has it, and the level that was estimated."""
    image, truth, body = answer.voxels[part.scored], part.clean.voxels[part.scored], part.body[part.scored]
    values = {"PSNR": psnr(image, truth, body), "SSIM": ssim(image, truth, body)}
    values |= ldct_figures(image, truth, np.any(body, axis=(1, 2)), _display_window(loaded))
    if answer.facts.get("noise_estimated") and np.isfinite(part.added):
        level = float(answer.facts["noise_hu"])
        over = {"added": level / part.added, "total": level / part.total}
        for what, ratio in over.items():
            if np.isfinite(ratio):
                values |= {f"level over {what}": ratio, f"level error, {what}": 100 * abs(ratio - 1)}
    return values


def _display_window(loaded: LoadedCase) -> str:
    """The case's own, else that of its region, given or guessed."""
    from ...preprocessing.body_localization import localize_body

    case = loaded.case
    return case.window or window_of(case.region if case.region is not None else localize_body(loaded.volume).guessed)


def seam_details(answer: Answer) -> dict[str, Any]:
    """Seam ratio of an answer and what it would be by chance; empty where no window ends inside the volume."""
    if answer.borders is None or not any(len(line) for line in answer.borders):
        return {}
    ratio = seam_ratio(answer.voxels, answer.borders)
    return {"seam": ratio.overall, "seam_chance": ratio.chance}


def inpaint_rows(loaded: LoadedCase, plan: Plan, cache: Path | None, methods: dict[str, Method]) -> list[Row]:
    """Error and texture inside healthy spheres, one run a sphere, averaged over the spheres of a size.

    The voxels inside are overwritten before any method sees them, so that nothing of the truth can leak. Patches of the
    filled and of the untouched volume are described for the classifier, which comes when all cases are there.
    """
    rows = []
    for diameter, labels in stored(spheres, loaded, plan, cache).items():
        holes = [labels == number for number in range(1, int(labels.max()) + 1)]
        untouched = [patches(loaded.volume.voxels, hole) for hole in holes]
        for name, method in methods.items():
            each = [filling for filling in (_filled(loaded, hole, method) for hole in holes) if filling is not None]
            if not each:
                continue
            values = {key: float(np.mean([filling[key] for filling in each])) for key in ("MAE", "texture")}
            values |= _spectrum_values(np.array([filling["ratios"] for filling in each]))
            seconds = sum(filling["seconds"] for filling in each)
            details = {
                "filled": _rounded(np.concatenate([filling["patches"] for filling in each])),
                "untouched": _rounded(np.concatenate(untouched)),
            }
            rows.append(
                _row(
                    "inpaint",
                    loaded,
                    f"{diameter} mm",
                    name,
                    values,
                    seconds,
                    {"patches": details},
                    each[0]["evaluations"],
                )
            )
    return rows


def _filled(loaded: LoadedCase, hole: np.ndarray, method: Method) -> dict[str, Any] | None:
    """Figures of one sphere; None where the method has no answer."""
    truth, spacing = loaded.volume.voxels, loaded.volume.spacing
    hollow = loaded.volume.with_voxels(baselines.mean_fill(truth, hole, spacing))
    answer, seconds = _timed(method, hollow, hole)
    if answer is None:
        return None
    error, texture = mean_absolute_error(answer.voxels, truth, hole), texture_ratio(answer.voxels, truth, hole)
    ratios = spectrum_ratios(answer.voxels, truth, hole, spacing)
    return {
        "MAE": error,
        "texture": texture,
        "ratios": ratios,
        "patches": patches(answer.voxels, hole),
        "seconds": seconds,
        "evaluations": answer.evaluations,
    }


def _spectrum_values(ratios: np.ndarray) -> dict[str, float]:
    """Geometric means over the spheres (spheres, bands), and the mean distance from the truth."""
    values = {}
    for band, line in zip(BANDS, ratios.T, strict=True):
        known = line[np.isfinite(line)]
        values[band_name(band)] = float(np.exp(np.log(known).mean())) if known.size else float("nan")
    distances = np.array([spectrum_distance(one) for one in ratios])
    known = distances[np.isfinite(distances)]
    return values | {"spectrum": float(known.mean()) if known.size else float("nan")}


def _rounded(features: np.ndarray) -> list[list[float]]:
    return np.round(features, 4).tolist()


def anomaly_rows(loaded: LoadedCase, plan: Plan, cache: Path | None, methods: dict[str, Method]) -> list[Row]:
    """Rows on how a map ranks voxels of synthetic and, in the same run, of real lesions above the rest of the body."""
    arrays = stored(synthetic_lesions, loaded, plan, cache)
    volume = loaded.volume.with_voxels(arrays["changed"].astype(np.float32))
    labels, lesions = arrays["labels"], json.loads(str(arrays["lesions"]))
    lesions = [lesion for lesion in lesions if (labels == lesion["label"]).any()]
    groups = {"synthetic lesions": [lesion["label"] for lesion in lesions]}
    for lesion in lesions:
        contrast = "lung nodule" if lesion["kind"] == "lung" else f"{lesion['contrast_hu']:+g} HU"
        groups.setdefault(f"{lesion['diameter_mm']:g} mm", []).append(lesion["label"])
        groups.setdefault(contrast, []).append(lesion["label"])
    normal = loaded.body & ~near_lesions(loaded) & (labels == 0)
    rows = []
    for name, method in methods.items():
        answer, seconds = _timed(method, volume)
        if answer is None:
            continue
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


def baseline_methods(task: str, loaded: LoadedCase) -> dict[str, Method]:
    """The classical methods of a task; the denoisers know the true noise of the case, but where a name says not."""
    spacing, body = loaded.volume.spacing, loaded.body
    if task == "denoise":
        return {
            "noisy input": lambda v, part: v.voxels,
            "non-local means": lambda v, part: _on_scored(v, part, baselines.non_local_means, part.told),
            "non-local means, level estimated": _estimating_non_local_means,
            "total variation": lambda v, part: _on_scored(v, part, baselines.total_variation, part.told),
            "BM3D": lambda v, part: None if part.group else _on_scored(v, part, baselines.block_matching, part.told),
            "BM3D, spectrum told": lambda v, part: _on_scored(
                v, part, baselines.block_matching, spectrum(part.noise, part.body), baselines.BM3D_SPECTRUM_STRENGTH
            ),
        }
    if task == "inpaint":
        return {
            "mean fill": lambda v, mask: baselines.mean_fill(v.voxels, mask, spacing),
            "biharmonic fill": lambda v, mask: baselines.biharmonic_fill(v.voxels, mask, spacing),
        }
    return {"local residual": lambda v: baselines.local_residual(v.voxels, body, spacing)}


def _on_scored(volume: Volume, part: NoisyPart, method: Callable[..., np.ndarray], *settings: Any) -> np.ndarray:
    """A method that works slice by slice, on the slices that count; the others stay as they are."""
    result = np.array(volume.voxels, dtype=np.float32)
    result[part.scored] = method(result[part.scored], *settings)
    return result


def _estimating_non_local_means(volume: Volume, part: NoisyPart) -> Answer:
    """Non-local means as on a scan of unknown noise."""
    level = baselines.wavelet_level(volume.voxels, part.body)
    smooth = _on_scored(volume, part, baselines.non_local_means, level)
    return Answer(smooth, facts={"noise_hu": level, "noise_estimated": True})


PROTOCOLS: dict[str, Callable[..., list[Row]]] = {
    "denoise": denoise_rows,
    "inpaint": inpaint_rows,
    "anomaly": anomaly_rows,
}


def _ranked(
    loaded: LoadedCase,
    group: str,
    method: str,
    answer: Answer,
    labels: np.ndarray,
    normal: np.ndarray,
    ordered: np.ndarray,
    seconds: float,
) -> Row:
    """Row of one group of lesions: its voxels ranked among the normal ones' sorted scores, findings for detection."""
    score, marked = answer.voxels, labels > 0
    lesion = score[marked]
    ranking = rank_against(ordered, lesion)
    values = {"AUROC": ranking.auroc, "AP": ranking.average_precision, "prevalence": ranking.prevalence}
    details: dict[str, Any] = {}
    if group in DETECTED:
        values |= _early_values(ordered, lesion, labels[marked])
        details = _detected(answer, labels, normal | marked, loaded.volume.spacing)
        values["found 4"] = float(np.mean([r is not None and r <= 4 for r in details["ranks"]] or [np.nan]))
        kept = {"normal": _spread(ordered, KEPT_SCORES), "lesion": _spread(np.sort(lesion), KEPT_SCORES // 2)}
        details["scores"] = {**kept, "voxels": [ordered.size, lesion.size]}
    return _row("anomaly", loaded, group, method, values, seconds, details, answer.evaluations)


def _early_values(ordered: np.ndarray, lesion: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Areas up to a false positive rate of 0.3, as Screener reports them beside the AUROC."""
    if not (ordered.size and lesion.size):
        return {"AUROC30": float("nan"), "AUPRO30": float("nan")}
    each = areas(*false_positive_rates(ordered, lesion), EARLY)
    by_lesion = np.bincount(labels, each) / np.maximum(np.bincount(labels), 1)
    return {"AUROC30": float(each.mean()), "AUPRO30": float(by_lesion[np.unique(labels)].mean())}


def _detected(
    answer: Answer, labels: np.ndarray, mask: np.ndarray, spacing: tuple[float, float, float]
) -> dict[str, Any]:
    """Findings of the map, and of the method's own list where it has one; see :mod:`.detection`."""
    heights, voxels = peaks(answer.voxels, mask, spacing)
    false, best = scored(heights, voxels, labels)
    details = {
        "false": false,
        "best": best,
        "ranks": ranks(voxels, labels, spacing),
        "diameters": diameters(labels, spacing),
    }
    if "threshold" in answer.facts:
        own = listed(answer.voxels, mask, spacing, answer.facts["threshold"], answer.facts["minimum_volume"])
        own = own[: answer.facts["at_most"]]
        details |= {"listed": len(own), "listed ranks": ranks(own, labels, spacing)}
    return details


def _spread(ordered: np.ndarray, count: int) -> list[float]:
    """``count`` of the sorted values, evenly spaced in their order."""
    if ordered.size > count:
        ordered = ordered[((np.arange(count) + 0.5) * ordered.size / count).astype(int)]
    return [float(f"{value:.5g}") for value in ordered]


def _row(
    task: str,
    loaded: LoadedCase,
    group: str,
    method: str,
    values: dict[str, float],
    seconds: float,
    details: dict[str, Any] | None = None,
    evaluations: int | None = None,
) -> Row:
    case = loaded.case
    patient = case.patient or case.name
    return Row(task, case.name, patient, group, method, values, seconds, details or {}, evaluations)


def _timed(method: Method, volume: Volume, *arguments: Any) -> tuple[Answer | None, float]:
    start = time.perf_counter()
    result = method(volume, *arguments)
    seconds = time.perf_counter() - start
    return Answer(result) if isinstance(result, np.ndarray) else result, seconds
