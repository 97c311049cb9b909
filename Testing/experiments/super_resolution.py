"""Super-resolution on held-out cases: thin voxels are averaged to thick ones, and the way back is judged.

    python Testing/experiments/super_resolution.py CASES [--model starter-ct] [--thick 5] [--slab 60] [--steps 1]
                                                  [--tune] [--output FOLDER]

CASES is a folder or datalist as for ``meddifffm evaluate``; none may be training data. Along the voxel axis whose edge
divides the wished thickness best (factor 2 to 6, edges up to 1.5 mm), voxels are averaged. Judged over the body: PSNR
over 2000 HU, PSNR and SSIM in the soft-tissue window, and how far averages of the result are from what was measured.
Baselines: linear and cubic splines through the thick voxels, the smooth curve with the measured averages (the model's
own first guess), and the prior without ControlNet. With ``--tune`` also what is tuned to each case.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from MedDiffFMLib.evaluation.quality.cases import LoadedCase, load_case, read_cases
from MedDiffFMLib.evaluation.quality.metrics import bootstrap, psnr, ssim
from MedDiffFMLib.imaging.slice_averaging import Factors, average_blocks, interpolate_blocks, smooth_blocks
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.tasks.base import Case, Run
from MedDiffFMLib.tasks.super_resolve.spec import AXES, LARGEST_FACTOR, SuperResolve

LONGEST_MM = 1.5
"""Edge of voxels that count as thin."""
WIDE_HU = (-1000.0, 1000.0)
FIGURES = {
    "PSNR, 2000 HU, dB": lambda image, truth, body: psnr(image, truth, body, WIDE_HU),
    "PSNR, soft tissue, dB": psnr,
    "SSIM, soft tissue": ssim,
}


def choose(loaded: LoadedCase, thick_mm: float) -> tuple[Factors, int] | None:
    """Factors (k, j, i) and the axis whose averages come closest to ``thick_mm``; None where no voxel edge is thin."""
    found = []
    for axis, edge in enumerate(loaded.volume.spacing[::-1]):
        factor = min(round(thick_mm / edge), LARGEST_FACTOR)
        if edge <= LONGEST_MM and factor >= 2:
            found.append((abs(np.log(factor * edge / thick_mm)), axis, factor))
    if not found:
        return None
    _, axis, factor = min(found)
    k, j, i = (factor if n == axis else 1 for n in range(3))
    return (k, j, i), axis


def thickened(loaded: LoadedCase, factors: Factors) -> tuple[Volume, np.ndarray, np.ndarray]:
    """The thick volume, the truth cut to whole blocks, and its body."""
    part = tuple(slice(0, n // f * f) for n, f in zip(loaded.volume.voxels.shape, factors, strict=True))
    truth, body = loaded.volume.voxels[part], loaded.body[part]
    to_thin = np.eye(4)
    for n, factor in enumerate(reversed(factors)):
        to_thin[n, n], to_thin[n, 3] = factor, (factor - 1) / 2
    thick = np.rint(average_blocks(truth, factors)).astype(np.int16)
    return Volume(thick, loaded.volume.ijk_to_ras @ to_thin, loaded.volume.modality), truth, body


def results(thick: Volume, factors: Factors, axis: int, model: Any, steps: int, tune: bool) -> dict[str, np.ndarray]:
    """Method -> thin volume in HU."""
    voxels = thick.voxels.astype(np.float32)
    parameters = SuperResolve(factor=max(factors), axis=AXES[axis], steps=steps)
    found = {
        "linear": interpolate_blocks(voxels, factors, 1),
        "cubic": interpolate_blocks(voxels, factors, 3),
        "smooth curve with the averages": smooth_blocks(voxels, factors),
    }
    asked = {"prior alone": replace(parameters, control="none"), "ControlNet": parameters}
    if tune:
        asked["ControlNet, tuned"] = replace(parameters, tune=True)
    for name, chosen in asked.items():
        answer = chosen.run(Case(thick), Run(model))
        found[name] = answer.volumes["fine"].astype(np.float32)
    return found


def measure(
    loaded: LoadedCase, factors: Factors, axis: int, model: Any, steps: int, tune: bool
) -> dict[str, dict[str, float]]:
    """Method -> figure -> number."""
    thick, truth, body = thickened(loaded, factors)
    rows = {}
    for name, image in results(thick, factors, axis, model, steps, tune).items():
        row = {figure: function(image, truth, body) for figure, function in FIGURES.items()}
        difference = average_blocks(image, factors) - thick.voxels
        row["error of the averages, HU"] = float(np.sqrt(np.mean(np.square(difference, dtype=np.float64))))
        rows[name] = row
    return rows


def table(rows: dict[str, Any], patients: list[str]) -> str:
    """Means with intervals from drawing patients, then the decibels over cubic case by case."""
    cases = list(rows)
    methods = list(rows[cases[0]]["figures"])
    figures = list(rows[cases[0]]["figures"][methods[0]])
    lines = [f"| method | {' | '.join(figures)} |", "|---|" + "---:|" * len(figures)]
    for method in methods:
        cells = []
        for figure in figures:
            mean = bootstrap([rows[c]["figures"][method][figure] for c in cases], patients)
            cells.append(f"{mean.mean:.3f} [{mean.low:.3f}, {mean.high:.3f}]")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    lines += [
        "",
        "| case | voxels, mm | " + " | ".join(f"{m}, dB over cubic" for m in methods if m != "cubic") + " |",
        "|---|---|" + "---:|" * (len(methods) - 1),
    ]
    key = figures[0]
    for case in cases:
        found = rows[case]["figures"]
        gains = [f"{found[m][key] - found['cubic'][key]:+.2f}" for m in methods if m != "cubic"]
        lines.append(f"| {case} | {rows[case]['voxels']} | {' | '.join(gains)} |")
    for method in (m for m in methods if m != "cubic"):
        gain = bootstrap([rows[c]["figures"][method][key] - rows[c]["figures"]["cubic"][key] for c in cases], patients)
        lines.append(f"\n{method} over cubic: {gain.mean:+.2f} dB [{gain.low:+.2f}, {gain.high:+.2f}].")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases")
    parser.add_argument("--model", default="starter-ct")
    parser.add_argument("--thick", type=float, default=5.0, help="mm")
    parser.add_argument("--slab", type=float, default=60.0, help="evaluated extent along the patient, mm")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, default=Path("super-resolution"))
    arguments = parser.parse_args()

    from MedDiffFMLib.models.checkpoint import load_model

    model = load_model(arguments.model, device=arguments.device)
    rows: dict[str, Any] = {}
    patients = []
    for case in read_cases(arguments.cases):
        loaded = load_case(case, arguments.slab)
        chosen = choose(loaded, arguments.thick)
        if chosen is None:
            print(f"{case.name} is left out: no edge of its voxels is below {LONGEST_MM} mm.", flush=True)
            continue
        factors, axis = chosen
        edge = loaded.volume.spacing[::-1][axis]
        figures = measure(loaded, factors, axis, model, arguments.steps, arguments.tune)
        rows[case.name] = {"voxels": f"{max(factors) * edge:.2f} to {edge:.2f} ({AXES[axis]})", "figures": figures}
        patients.append(case.patient or case.name)
        print(
            case.name,
            rows[case.name]["voxels"],
            {m: round(f["PSNR, 2000 HU, dB"], 2) for m, f in figures.items()},
            flush=True,
        )
        arguments.output.mkdir(parents=True, exist_ok=True)
        record = {"model": model.sha256, "arguments": {k: str(v) for k, v in vars(arguments).items()}, "rows": rows}
        (arguments.output / "super-resolution.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
        (arguments.output / "super-resolution.md").write_text(table(rows, patients), encoding="utf-8")
    print(table(rows, patients))


if __name__ == "__main__":
    main()
