"""Super-resolution on held-out cases: thin voxels are averaged to thick ones, and the way back is judged.

    python Testing/experiments/super_resolution.py CASES [--model starter-ct] [--thick 5] [--slab 60] [--steps 1]
                                                  [--profile box] [--output FOLDER]

CASES is a folder or datalist as for ``meddifffm evaluate``; none may be training data. Along the voxel axis whose edge
divides the wished thickness best (factor 2 to 6, edges up to 1.5 mm), voxels are averaged; with the profile "bell" by
a Gaussian as wide at half its height, so that slices overlap as a scanner's do. Judged over the body: PSNR
over 2000 HU, PSNR and SSIM in the soft-tissue window, and how far averages of the result are from what was measured.
Baselines: linear and cubic splines through the thick voxels, the smooth curve with the measured averages (the model's
own first guess), and the prior without ControlNet. Where the scan can teach itself, ``tune`` is among the methods.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter, shift

from MedDiffFMLib.evaluation.quality.cases import LoadedCase, load_case, read_cases
from MedDiffFMLib.evaluation.quality.metrics import bootstrap, psnr, ssim
from MedDiffFMLib.imaging.slice_averaging import Factors, average_blocks, interpolate_blocks, smooth_blocks
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.tasks.base import Case, Run
from MedDiffFMLib.tasks.super_resolve.self_training import hindrance
from MedDiffFMLib.tasks.super_resolve.spec import AXES, LARGEST_FACTOR, SuperResolve

LONGEST_MM = 1.5
"""Edge of voxels that count as thin."""
WIDE_HU = (-1000.0, 1000.0)
FIGURES = {
    "PSNR, 2000 HU, dB": lambda image, truth, body: psnr(image, truth, body, WIDE_HU),
    "PSNR, soft tissue, dB": psnr,
    "SSIM, soft tissue": ssim,
}

AVERAGES = "error of the averages, HU"


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


def thickened(loaded: LoadedCase, factors: Factors, profile: str) -> tuple[Volume, np.ndarray, np.ndarray]:
    """The thick volume, the truth cut to whole blocks, and its body."""
    part = tuple(slice(0, n // f * f) for n, f in zip(loaded.volume.voxels.shape, factors, strict=True))
    truth, body = loaded.volume.voxels[part], loaded.body[part]
    to_thin = np.eye(4)
    for n, factor in enumerate(reversed(factors)):
        to_thin[n, n], to_thin[n, 3] = factor, (factor - 1) / 2
    if profile == "bell":
        widths = [f / 2.355 if f > 1 else 0 for f in factors]
        middles = tuple(slice(f // 2, None, f) for f in factors)
        odd = [0.5 if f % 2 == 0 else 0 for f in factors]  # between two voxels
        averages = shift(gaussian_filter(truth.astype(np.float32), widths), odd, order=1, mode="nearest")[middles]
    else:
        averages = average_blocks(truth, factors)
    thick = np.rint(averages).astype(np.int16)
    return Volume(thick, loaded.volume.ijk_to_ras @ to_thin, loaded.volume.modality), truth, body


def results(thick: Volume, factors: Factors, axis: int, model: Any, steps: int) -> dict[str, np.ndarray]:
    """Method -> thin volume in HU."""
    voxels = thick.voxels.astype(np.float32)
    parameters = SuperResolve(factor=max(factors), axis=AXES[axis], steps=steps)
    found = {
        "linear": interpolate_blocks(voxels, factors, 1),
        "cubic": interpolate_blocks(voxels, factors, 3),
        "smooth curve with the averages": smooth_blocks(voxels, factors),
    }
    ways = {"prior alone": replace(parameters, control="none"), "ControlNet": parameters}
    if not hindrance(thick.spacing[::-1], factors, voxels.shape):
        ways["tuned to the scan"] = replace(parameters, tune=True, steps=1)
    for name, chosen in ways.items():
        answer = chosen.run(Case(thick), Run(model))
        found[name] = answer.volumes["fine"].astype(np.float32)
    return found


def measure(
    loaded: LoadedCase, factors: Factors, axis: int, model: Any, steps: int, profile: str
) -> dict[str, dict[str, float]]:
    """Method -> figure -> number."""
    thick, truth, body = thickened(loaded, factors, profile)
    rows = {}
    for name, image in results(thick, factors, axis, model, steps).items():
        row = {figure: function(image, truth, body) for figure, function in FIGURES.items()}
        difference = average_blocks(image, factors) - thick.voxels
        row[AVERAGES] = float(np.sqrt(np.mean(np.square(difference, dtype=np.float64))))
        rows[name] = row
    return rows


def table(rows: dict[str, Any], patients: list[str]) -> str:
    """Means with intervals from drawing patients, then the decibels over cubic case by case.

    A method that not every case allows is told of those that do.
    """
    figures = list(FIGURES) + [AVERAGES]
    methods = list(dict.fromkeys(method for row in rows.values() for method in row["figures"]))
    lines = [f"| method | cases | {' | '.join(figures)} |", "|---|---:|" + "---:|" * len(figures)]
    for method in methods:
        found, drawn = _of_method(rows, patients, method)
        cells = []
        for figure in figures:
            mean = bootstrap([row[method][figure] for row in found], drawn)
            cells.append(f"{mean.mean:.3f} [{mean.low:.3f}, {mean.high:.3f}]")
        lines.append(f"| {method} | {len(found)} | {' | '.join(cells)} |")
    others = [method for method in methods if method != "cubic"]
    lines += ["", "| case | voxels, mm | " + " | ".join(f"{m}, dB over cubic" for m in others) + " |"]
    lines.append("|---|---|" + "---:|" * len(others))
    for case, row in rows.items():
        gains = [f"{_gain(row['figures'], m):+.2f}" if m in row["figures"] else "-" for m in others]
        lines.append(f"| {case} | {row['voxels']} | {' | '.join(gains)} |")
    for method in others:
        found, drawn = _of_method(rows, patients, method)
        gain = bootstrap([_gain(row, method) for row in found], drawn)
        lines.append(f"\n{method} over cubic: {gain.mean:+.2f} dB [{gain.low:+.2f}, {gain.high:+.2f}].")
    return "\n".join(lines) + "\n"


def _of_method(rows: dict[str, Any], patients: list[str], method: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Figures and patients of the cases that a method was tried on."""
    tried = [(row["figures"], patient) for row, patient in zip(rows.values(), patients, strict=True)]
    return tuple(map(list, zip(*[pair for pair in tried if method in pair[0]], strict=True)))  # type: ignore[return-value]


def _gain(figures: dict[str, dict[str, float]], method: str) -> float:
    key = next(iter(FIGURES))
    return figures[method][key] - figures["cubic"][key]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases")
    parser.add_argument("--model", default="starter-ct")
    parser.add_argument("--thick", type=float, default=5.0, help="mm")
    parser.add_argument("--slab", type=float, default=60.0, help="evaluated extent along the patient, mm")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--profile", choices=("box", "bell"), default="box", help="of the thick slices")
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
        figures = measure(loaded, factors, axis, model, arguments.steps, arguments.profile)
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
