"""Denoising of added noise by kind and level beside non-local means that are told the level, in minutes.

    python Testing/experiments/denoise_levels.py CASES -o FOLDER [--levels 15 30 60] [--slab 96] [--quick] [--tune]

The questions are those of ``meddifffm evaluate --tasks denoise`` (``evaluation/quality/added_noise.py``), which also
asks BM3D and total variation and takes an hour. FOLDER/denoising.md holds the gain of the default over non-local means
in dB of PSNR in [-160, 240] HU, of every case and their mean, and the error of the estimated level against added and
own noise together; with ``--quick`` the gain of the network alone, with ``--tune`` that of tuning over the default.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

KINDS = ("projections", "ramp", "white")


def asked(loaded: Any, kind: str, level: float, model: Any, quick: bool, tune: bool) -> dict[str, float]:
    """Figures of one question."""
    from MedDiffFMLib.evaluation.quality.added_noise import noisy_part, noisy_voxels
    from MedDiffFMLib.evaluation.quality.baselines.classical import non_local_means
    from MedDiffFMLib.evaluation.quality.degradations import Plan
    from MedDiffFMLib.evaluation.quality.metrics import psnr
    from MedDiffFMLib.tasks.base import Case, Run
    from MedDiffFMLib.tasks.denoise.spec import Denoise

    plan = Plan(noise_kinds=(kind,), noise_levels_hu=(level,), told_levels_hu=())
    part = noisy_part(loaded, plan, noisy_voxels(loaded, plan)["noisy"])
    scored = part.scored

    def quality(image: np.ndarray) -> float:
        return psnr(image, part.clean.voxels[scored], part.body[scored])

    case, run = Case(part.clean.with_voxels(part.noisy)), Run(model)
    start = time.process_time()
    result = Denoise().run(case, run)
    seconds = time.process_time() - start
    default = quality(result.volumes["denoised"][scored])
    baseline = quality(non_local_means(part.noisy[scored], part.told))
    row = {
        "gain": default - baseline,
        "level": 100 * (result.facts["noise_hu"] / part.total - 1),
        "seconds": seconds,
    }
    if quick:
        start = time.process_time()
        filtered = Denoise(quick=True).run(case, run)
        row["quick seconds"] = time.process_time() - start
        row["quick"] = quality(filtered.volumes["denoised"][scored]) - baseline
    if tune:
        tuned = Denoise(tune=True).run(case, run)
        row |= {"tuned": quality(tuned.volumes["denoised"][scored]) - default, "kept": float(tuned.facts["tuned"])}
    return row


def table(rows: dict[tuple[str, str, float], dict[str, float]], figure: str) -> str:
    """Markdown: questions by cases."""
    cases = list(dict.fromkeys(case for case, _, _ in rows))
    lines = [f"| {figure} | {' | '.join(cases)} | mean |", "|---|" + "---:|" * (len(cases) + 1)]
    for kind, level in dict.fromkeys((kind, level) for _, kind, level in rows):
        cells = [rows[case, kind, level][figure] for case in cases]
        # A case without soft tissue has no truth for its level.
        numbers = " | ".join("" if np.isnan(cell) else f"{cell:+.2f}" for cell in cells)
        lines.append(f"| {kind}, {level:g} HU | {numbers} | {np.nanmean(cells):+.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    import torch

    from MedDiffFMLib.evaluation.quality.cases import load_case, read_cases
    from MedDiffFMLib.models.checkpoint import load_model

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--model", default="starter-ct")
    parser.add_argument("--levels", type=float, nargs="+", default=[15.0, 30.0, 60.0])
    parser.add_argument("--slab", type=float, default=96.0, help="extent whose middle is taken, mm")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--tune", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(options.model)
    rows = {}
    for case in read_cases(options.cases):
        loaded = load_case(case, options.slab)
        for kind in KINDS:
            for level in options.levels:
                rows[case.name, kind, level] = asked(loaded, kind, level, model, options.quick, options.tune)
                print(case.name, kind, level, rows[case.name, kind, level], flush=True)
    text = "\n".join(table(rows, figure) for figure in next(iter(rows.values())))
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "denoising.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
