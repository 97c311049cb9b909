"""Anomaly detector judged on patients that it was not trained on, by folds.

    python Testing/experiments/anomaly_folds.py DATALIST -o FOLDER [--folds 5]

DATALIST is a MONAI decathlon JSON whose cases name their "patient"; a case's "label" outlines lesions. Patients are
dealt out to the folds in turn.
Every case is judged on its working grid by a detector that has not seen its patient: AUROC and average precision of
the lesions' voxels beside the local residual's, which of the map's peaks is the first in each lesion of 8 mm or more,
whether the list of the task holds it, and how many findings the list of a case without lesions holds. How rare the
answers on normal tissue are is counted on all cases by detectors that have not seen them. Rows are the networks that
learned from lumps of misplaced tissue alone (``lumps``) and from outlined lesions, too (``lesions``), each by its own
z-score, and the detector, whose z-score is the larger of both, calibrated again (``fused``).

What fills a hundredth of its scan or more is judged once more in a part of the scan, cut so that it lies beside the end
(``cut``): where scans are cut around what is outlined, its place in the middle must not be what is found.

Beside the peaks stands the chance of four random places: a mass that fills a tenth of its scan is hit by luck.
FOLDER gets ``anomaly-folds.json`` and ``.md``, each case's z-scores, and ``anomaly-detector.safetensors``: what
``meddifffm pretrain-anomaly`` makes of DATALIST, at no further cost.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from MedDiffFMLib.conditioning.region import body_mask, grown
from MedDiffFMLib.datasets.datalist import Entry, read_datalist
from MedDiffFMLib.evaluation.quality.baselines.classical import local_residual
from MedDiffFMLib.evaluation.quality.detection import HIT_MM, LARGE_MM, diameters, peaks, ranks
from MedDiffFMLib.evaluation.quality.detection import listed as region_peaks
from MedDiffFMLib.evaluation.quality.metrics import bootstrap, ranking
from MedDiffFMLib.imaging.io import read_volume
from MedDiffFMLib.tasks.anomaly.detector import Detector, save_detector, search_area, smoothed_odds
from MedDiffFMLib.tasks.anomaly.spec import Anomaly
from MedDiffFMLib.training.pretrain.anomaly_detector import (
    DetectorConfig,
    PreparedScan,
    Samples,
    calibrated,
    deal_folds,
    detector_without,
    draw_samples,
    facts_of,
    fit_detector,
    normal_odds,
    prepare_scan,
)

MEMBERS = ("lumps", "lesions")
FUSED, CUT = "fused", "cut"
CUT_SHARE = 0.01
"""Of the search area that lesions fill where the scan is judged in a part, too."""
THRESHOLDS = (3.5, 3.0, 2.5, 2.0)
FIRST = 4
"""Findings that a reader looks at."""


@dataclass
class Held:
    """A case, what was drawn of it, and the part of it that is judged, too."""

    entry: Entry
    scan: PreparedScan
    samples: Samples
    part: PreparedScan | None


def beside_the_end(scan: PreparedScan) -> PreparedScan | None:
    """The part of a scan, cut within its slices, in which its lesions lie three times as near to one end as to another.

    None where they fill little of it.
    """
    lesions = scan.lesions * scan.search > 0
    if lesions.sum() < CUT_SHARE * scan.search.sum():
        return None
    _, j, i = np.argwhere(lesions).mean(0)
    first = [max(0, int(at - (n - at) / 3)) for at, n in zip((j, i), scan.search.shape[1:], strict=True)]
    box = (slice(None), slice(first[0], None), slice(first[1], None))
    body = body_mask(scan.hounsfield[box])
    search = search_area(body, scan.spacing_kji)
    return replace(
        scan, hounsfield=scan.hounsfield[box], body=body, search=search, normal=search, lesions=scan.lesions[box]
    )


def hold(entries: Sequence[Entry], config: DetectorConfig) -> list[Held]:
    """All cases, read once."""
    held = []
    for number, entry in enumerate(entries):
        volume = read_volume(entry.image)
        path = entry.file("label")
        outlines = None if path is None else read_volume(path, modality="mask").voxels > 0
        scan = prepare_scan(volume, outlines, config.spacing)
        samples = draw_samples(scan, config, number)
        held.append(Held(entry, scan, samples, beside_the_end(scan)))
        print(f"{number + 1} of {len(entries)}: {entry.name}, {time.process_time():.0f} s", flush=True)
    return held


def odds_of(detector: Detector, scan: PreparedScan) -> np.ndarray:
    """(members, n): smoothed log odds of a scan's search area."""
    return smoothed_odds(detector, scan.hounsfield, scan.body, scan.search, scan.spacing_kji)[:, scan.search]


def odds_of_folds(
    held: Sequence[Held], folds: Sequence[int], config: DetectorConfig
) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """Of each case and of its part, by the detector that has not seen its patient: see :func:`odds_of`."""
    found: dict[int, tuple[np.ndarray, np.ndarray | None]] = {}
    samples = [one.samples for one in held]
    for fold in sorted(set(folds)):
        detector = detector_without(samples, folds, fold, config)
        assert detector is not None
        for n, one in enumerate(held):
            if folds[n] == fold:
                part = None if one.part is None else odds_of(detector, one.part)
                found[n] = odds_of(detector, one.scan), part
        print(f"fold {fold + 1}, {time.process_time():.0f} s", flush=True)
    return [found[n] for n in range(len(held))]


def calibrated_detector(
    held: Sequence[Held], odds: Sequence[np.ndarray], config: DetectorConfig, path: Path
) -> Detector:
    """The detector trained on all cases, calibrated by what the folds say of normal tissue; written to ``path``."""
    samples = [one.samples for one in held]
    fitted, losses = fit_detector(samples, config)
    normal = [one.scan.normal[one.scan.search] for one in held]
    detector = calibrated(
        fitted, [normal_odds(o, mask, n) for n, (o, mask) in enumerate(zip(odds, normal, strict=True))]
    )
    save_detector(path, detector, facts_of(samples, config, losses))
    return detector


def scores(detector: Detector, odds: np.ndarray) -> dict[str, np.ndarray]:
    """z-scores of each member and of all together."""
    each = dict(zip(MEMBERS, detector.z_scores(odds), strict=False))
    return each | ({FUSED: detector.z_score(odds)} if len(each) > 1 else {})


def judged(scan: PreparedScan, score: np.ndarray, listed: bool) -> dict[str, Any]:
    """Figures of one map; ``listed``: it is a z-score, of which the task would list regions."""
    spacing = scan.spacing_kji[::-1]
    lesions = scan.lesions * scan.search
    _, places = peaks(score, scan.search, spacing)
    answer: dict[str, Any] = {"peaks": len(places)}
    if lesions.any():
        order = ranking(score[scan.search], lesions[scan.search] > 0)
        answer |= {"auroc": order.auroc, "ap": order.average_precision, "chance": order.prevalence}
        answer["ranks"] = ranks(places, lesions, spacing)
    if listed:
        for threshold in THRESHOLDS:
            region = region_peaks(score, scan.search, spacing, threshold, Anomaly().minimum_volume)
            answer[f"listed {threshold:g}"] = min(len(region), Anomaly().at_most)
            if lesions.any():
                answer[f"list {threshold:g}"] = ranks(region[: Anomaly().at_most], lesions, spacing)
    return answer


def by_chance(one: Held) -> list[float]:
    """Chance that one of four random places of the search area hits each lesion."""
    lesions = one.scan.lesions * one.scan.search
    near = [grown(lesions == n, HIT_MM, one.scan.spacing_kji) for n in np.unique(lesions[lesions > 0])]
    return [1 - (1 - float(mask[one.scan.search].mean())) ** FIRST for mask in near]


def figures(held: Sequence[Held], config: DetectorConfig, folds: int, output: Path) -> list[dict[str, Any]]:
    """A row a case."""
    fold = deal_folds([one.entry.patient for one in held], folds)
    rows: list[dict[str, Any]] = []
    for one, own in zip(held, fold, strict=True):
        scan = one.scan
        row: dict[str, Any] = {"name": one.entry.name, "patient": one.entry.patient, "fold": own}
        numbers = scan.lesions * scan.search
        if numbers.any():
            row["mm"] = diameters(np.unique(numbers, return_inverse=True)[1].reshape(numbers.shape), (3.0, 3.0, 3.0))
            row["chance of first four"] = by_chance(one)
            residual = local_residual(scan.hounsfield, scan.body, scan.spacing_kji[::-1])
            row["residual"] = judged(scan, residual, False)
        rows.append(row)
    found = odds_of_folds(held, fold, config)
    whole = [odds for odds, _ in found]
    detector = calibrated_detector(held, whole, config, output / "anomaly-detector.safetensors")
    for one, row, (odds, cut) in zip(held, rows, found, strict=True):
        for name, z in scores(detector, odds).items():
            score = on_grid(one.scan, z)
            row[name] = judged(one.scan, score, True)
            np.savez_compressed(output / f"{name}-{one.entry.name}.npz", z=score.astype(np.float16))
        if one.part is not None and cut is not None:
            row[CUT] = judged(one.part, on_grid(one.part, detector.z_score(cut)), True)
    return rows


def on_grid(scan: PreparedScan, values: np.ndarray) -> np.ndarray:
    """Values (n,) of the search area on its grid, 0 elsewhere."""
    score = np.zeros(scan.search.shape, np.float32)
    score[scan.search] = values
    return score


def summary(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    """The table of a page."""
    with_lesions = [row for row in rows if "mm" in row]
    large = [(row, n) for row in with_lesions for n, mm in enumerate(row["mm"]) if mm >= LARGE_MM]
    owners = [row["patient"] for row, _ in large]

    def shown(values: list[float], groups: list[str]) -> str:
        one = bootstrap(values, groups)
        return f"{one.mean:.3f} [{one.low:.3f}, {one.high:.3f}]"

    def share(key: str, what: str, most: int) -> str:
        hits = [float((row[key][what][n] or 999) <= most) for row, n in large]
        return f"{int(sum(hits))} of {len(hits)}, {shown(hits, owners)}"

    lines = ["| | AUROC | average precision | peaks: first 1 | first 4 | list, first 4, by threshold | "
             "list of a case without lesions, mean (most) |", "|---|---|---|---|---|---|---|"]  # fmt: skip
    patients = [row["patient"] for row in with_lesions]
    free = [row for row in rows if "mm" not in row]
    for name in ("residual", *names):
        area = shown([row[name]["auroc"] for row in with_lesions], patients)
        precision = shown([row[name]["ap"] for row in with_lesions], patients)
        lists, empty = [], []
        for threshold in THRESHOLDS if name != "residual" else ():
            lists.append(f"{threshold:g}: {share(name, f'list {threshold:g}', FIRST)}")
            counts = [row[name][f"listed {threshold:g}"] for row in free]
            empty.append(f"{threshold:g}: {np.mean(counts):.1f} ({max(counts)})" if counts else "-")
        cells = [
            name,
            area,
            precision,
            share(name, "ranks", 1),
            share(name, "ranks", FIRST),
            "; ".join(lists),
            "; ".join(empty),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    chance = shown([row["chance of first four"][n] for row, n in large], owners)
    prevalence = shown([row["residual"]["chance"] for row in with_lesions], patients)
    lines.append(f"\nFour random places: {chance}. Chance of average precision: {prevalence}.\n")
    parts = [row for row in rows if CUT in row]
    if parts:
        owners = [row["patient"] for row in parts]
        places = [place for row in parts for place in row[CUT]["list 2"]]
        area, precision = (shown([row[CUT][what] for row in parts], owners) for what in ("auroc", "ap"))
        first, four = (sum((place or 999) <= most for place in places) for most in (1, FIRST))
        lines.append(
            f"Cut beside what is outlined, {len(parts)} scans: AUROC {area}, average precision {precision}; list above "
            f"2: first 4 {four} of {len(places)}, first 1 {first}.\n"
        )
    lines += ["| case | lesions, mm | " + " | ".join(f"{n}: AUROC, AP, peaks, list at 3" for n in names) + " |",
              "|---" * (2 + len(names)) + "|"]  # fmt: skip
    for row in with_lesions:
        cells = [row["name"], ", ".join(f"{mm:.0f}" for mm in row["mm"])]
        for n in names:
            one = row[n]
            places = ["-" if r is None else str(r) for r in one["ranks"]]
            in_list = ["-" if r is None else str(r) for r in one["list 3"]]
            cells.append(f"{one['auroc']:.3f}, {one['ap']:.3f}, {' '.join(places)}, {' '.join(in_list)}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datalist", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    config = DetectorConfig(seed=args.seed)
    held = hold(read_datalist(args.datalist), config)
    rows = figures(held, config, args.folds, args.output)
    names = [name for name in (*MEMBERS, FUSED) if name in rows[0]]
    (args.output / "anomaly-folds.json").write_text(json.dumps(rows, indent=1))
    (args.output / "anomaly-folds.md").write_text(summary(rows, names))
    print(summary(rows, names), flush=True)


if __name__ == "__main__":
    main()
