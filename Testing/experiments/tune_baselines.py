"""Choose the constants of the baselines on training cases, so that they meet the model at their best.

    python Testing/experiments/tune_baselines.py TRAINING_DATALIST_OR_FOLDER [--cache FOLDER] [--cases N] [--slab MM]

Prints one table a constant; the best values are written by hand into
MedDiffFMLib/evaluation/quality/baselines/classical.py.
"""

from __future__ import annotations

import argparse
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from MedDiffFMLib.evaluation.quality.baselines import classical as baselines
from MedDiffFMLib.evaluation.quality.baselines.bm3d import spectrum
from MedDiffFMLib.evaluation.quality.cases import LoadedCase, load_case, read_cases
from MedDiffFMLib.evaluation.quality.degradations import Plan, quarter_dose, stored
from MedDiffFMLib.evaluation.quality.protocols import PROTOCOLS, Method, Row


def candidates(task: str, loaded: LoadedCase, plan: Plan, cache: Path | None) -> dict[str, Method]:
    """Name with constants -> method."""
    spacing, body = loaded.volume.spacing, loaded.body
    if task == "denoise":
        noisy = stored(quarter_dose, loaded, plan, cache)["noisy"]
        noise = noisy - loaded.volume.voxels
        white, told = float(noise[body].std()), spectrum(noise, body)
        tried = {
            "non_local_means": (baselines.non_local_means, white, (0.6, 0.8, 1.0, 1.2, 1.4)),
            "total_variation": (baselines.total_variation, white, (0.5, 0.7, 1.0)),
            "BM3D": (baselines.block_matching, white, (1.5, 2.0, 2.5, 3.0)),
            "BM3D, spectrum told": (baselines.block_matching, told, (1.0, 1.2, 1.4, 1.6)),
        }
        return {
            f"{name} {strength}": partial(_on_voxels, function, noise_level, strength)
            for name, (function, noise_level, strengths) in tried.items()
            for strength in strengths
        }
    if task == "inpaint":
        return {
            f"mean {shell} mm": partial(_fill, baselines.mean_fill, spacing, shell) for shell in (1.0, 2.0, 4.0, 8.0)
        }
    options = product((6.0, 8.0, 12.0), (3.0, 5.0), ((-1000.0, 1000.0), (-160.0, 240.0)))
    return {f"residual {o}": partial(_residual, body, spacing, o) for o in options}


def _on_voxels(function, sigma, strength, volume, part):
    return function(volume.voxels, sigma, strength)


def _fill(function, spacing, length, volume, mask):
    return function(volume.voxels, mask, spacing, length)


def _residual(body, spacing, options, volume):
    return baselines.local_residual(volume.voxels, body, spacing, *options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--cases", type=int, default=10)
    parser.add_argument("--slab", type=float, default=48.0, help="extent along the patient in mm")
    parser.add_argument("--tasks", nargs="+", choices=tuple(PROTOCOLS), default=tuple(PROTOCOLS))
    options = parser.parse_args()
    plan = Plan(slab_mm=options.slab, noise_kinds=("dose",))
    rows: list[Row] = []
    for case in read_cases(options.source)[: options.cases]:
        loaded = load_case(case, plan.slab_mm)
        for task in options.tasks:
            rows += PROTOCOLS[task](loaded, plan, options.cache, candidates(task, loaded, plan, options.cache))
        print(f"after {case.name}")
        show(rows)


def show(rows: list[Row]) -> None:
    """Means of what counts: every case and size weighs the same, parts of the anomaly question are left out."""
    kept = [row for row in rows if row.task != "anomaly" or row.group == "synthetic lesions"]
    for task, name in dict.fromkeys((row.task, row.method) for row in kept):
        part = [row for row in kept if (row.task, row.method) == (task, name)]
        means = {key: np.nanmean([row.values[key] for row in part]) for key in part[0].values}
        figures = "  ".join(f"{key} {value:.4f}" for key, value in means.items())
        print(f"{task:8} {name:50} {figures}", flush=True)


if __name__ == "__main__":
    main()
