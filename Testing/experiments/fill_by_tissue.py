"""Fillings of spheres in lung, soft tissue, fat and bone: error, texture, time, and pictures to look at.

    python Testing/experiments/fill_by_tissue.py CASES -o FOLDER [--samples 12] [--pictures]

CASES is a datalist or a folder, of validation patients where something is to be chosen. In each tissue that a case has,
one sphere of 30, 20 and 10 mm is hidden. Filled are they by biharmonic interpolation, by the expected tissue
(``texture=none``, three samples: the default of version 0.1), by the default, which is one sample, and by the mean of
``--samples``. FOLDER/fillings.md holds the table; with ``--pictures`` FOLDER/fillings-N.png the slices in the middle:
truth, hole, default, expected tissue.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

DIAMETERS_MM = (30.0, 20.0, 10.0)
SHARES = {"lung": 0.85, "soft": 0.9, "fat": 0.6, "bone": 0.25}
"""Tissue -> least share of the surroundings of a sphere's center that it must fill: bone is never so thick."""
WINDOWS_HU = {"lung": (-1100, -300), "soft": (-160, 240), "fat": (-160, 240), "bone": (-200, 700)}
MARGIN_MM = 6.0
EDGE, A_PAGE = 260, 8


def spheres(volume: Any, body: np.ndarray, seed: int = 7) -> Iterator[tuple[str, float, np.ndarray]]:
    """Tissue, diameter and mask (k, j, i) of disjoint spheres."""
    from scipy.ndimage import gaussian_filter, uniform_filter

    from MedDiffFMLib.evaluation.quality.regions import distance_mm, voxels_of

    spacing, voxels = volume.spacing, volume.voxels
    smooth = gaussian_filter(voxels, voxels_of(spacing, 2.0))
    limits = {"lung": (-960, -600), "soft": (0, 180), "fat": (-130, -60), "bone": (250, 3000)}
    random, free = np.random.default_rng(seed), body.copy()
    for tissue, (low, high) in limits.items():
        inside = (body & (smooth > low) & (smooth < high)).astype(np.float32)
        for diameter in DIAMETERS_MM:
            size = [max(1, int(0.8 * edge)) for edge in voxels_of(spacing, diameter)]
            room = free & (uniform_filter(inside, size) > SHARES[tissue])
            for axis, edge in enumerate(voxels_of(spacing, diameter / 2 + MARGIN_MM)):
                line = np.arange(room.shape[axis])
                far = (line >= edge) & (line < room.shape[axis] - edge)
                room &= far.reshape([-1 if a == axis else 1 for a in range(3)])
            places = np.flatnonzero(room)
            if not places.size:
                continue
            center = tuple(int(n) for n in np.unravel_index(random.choice(places), room.shape))
            distance = distance_mm(room.shape, center, spacing)
            free &= distance > diameter + MARGIN_MM
            yield tissue, diameter, distance <= diameter / 2


def measured(model: Any, volume: Any, hole: np.ndarray, samples: int) -> dict[str, Any]:
    """Figures of one sphere, and what was filled."""
    from MedDiffFMLib.evaluation.quality.baselines.classical import biharmonic_fill
    from MedDiffFMLib.evaluation.quality.metrics import mean_absolute_error, texture_ratio
    from MedDiffFMLib.evaluation.quality.texture import spectrum_ratios
    from MedDiffFMLib.tasks.base import Case, Run
    from MedDiffFMLib.tasks.inpaint.spec import Inpaint

    def filled(settings: Inpaint) -> np.ndarray:
        return settings.run(Case(volume, mask=hole), Run(model)).volumes["inpainted"]

    truth, plain = volume.voxels, Inpaint(margin=0.0, feather=0.0)
    start = time.process_time()
    images = {"default": filled(plain)}
    seconds = time.process_time() - start
    images["expected"] = filled(replace(plain, texture="none", samples=3))
    images["mean"] = filled(replace(plain, samples=samples))
    images["biharmonic"] = biharmonic_fill(truth, hole, volume.spacing)
    return {
        "seconds": seconds,
        "images": images,
        "error": {name: mean_absolute_error(image, truth, hole) for name, image in images.items()},
        "deviation": {name: texture_ratio(image, truth, hole) for name, image in images.items()},
        "power": spectrum_ratios(images["default"], truth, hole, volume.spacing),
    }


def table(rows: list[dict[str, Any]], samples: int) -> str:
    """Markdown: means of errors, geometric means of ratios."""
    from MedDiffFMLib.evaluation.quality.texture import BANDS, band_name

    names = {"biharmonic": "biharmonic", "mean": f"mean of {samples}", "expected": "expected", "default": "default"}
    heads = [f"error, {name}" for name in names.values()]
    heads += ["deviation over true: expected", "default", *(band_name(band) for band in BANDS), "CPU s"]
    lines = [f"| spheres | | {' | '.join(heads)} |", "|---|---:|" + "---:|" * len(heads)]
    for title, part in _parts(rows):
        cells = [f"{np.mean([row['error'][name] for row in part]):.1f}" for name in names]
        cells += [f"{_geometric([row['deviation'][name] for row in part]):.2f}" for name in ("expected", "default")]
        cells += [f"{_geometric([row['power'][band] for row in part]):.2f}" for band in range(len(BANDS))]
        cells.append(f"{np.mean([row['seconds'] for row in part]):.2f}")
        lines.append(f"| {title} | {len(part)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _parts(rows: list[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for diameter in DIAMETERS_MM:
        yield f"{diameter:g} mm", [row for row in rows if row["diameter"] == diameter]
    for tissue in SHARES:
        yield tissue, [row for row in rows if row["tissue"] == tissue]
    yield "all", rows


def _geometric(ratios: list[float]) -> float:
    known = np.array(ratios)[np.isfinite(ratios)]
    return float(np.exp(np.log(np.maximum(known, 1e-3)).mean())) if known.size else float("nan")


def strip(row: dict[str, Any], volume: Any, hole: np.ndarray) -> np.ndarray:
    """Truth, hole, default and expected tissue in the slice through the middle, uint8 side by side."""
    from PIL import Image

    k, j, i = (int(n) for n in np.argwhere(hole).mean(0).round())
    reach = [int(2.5 * row["diameter"] / edge) for edge in volume.spacing[:2]]
    near = (k, slice(max(j - reach[1], 0), j + reach[1]), slice(max(i - reach[0], 0), i + reach[0]))
    low, high = WINDOWS_HU[row["tissue"]]
    images = (volume.voxels, np.where(hole, low, volume.voxels), row["images"]["default"], row["images"]["expected"])
    gray = [np.clip(255 * (image[near] - low) / (high - low), 0, 255).astype(np.uint8)[::-1] for image in images]
    scaled = [np.array(Image.fromarray(image).resize((EDGE, EDGE), Image.Resampling.NEAREST)) for image in gray]
    return np.concatenate([np.pad(image, 2, constant_values=255) for image in scaled], axis=1)


def main() -> None:
    import torch
    from PIL import Image

    from MedDiffFMLib.evaluation.quality.cases import load_case, read_cases
    from MedDiffFMLib.models.checkpoint import load_model

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--model", default="starter-ct")
    parser.add_argument("--samples", type=int, default=12)
    parser.add_argument("--pictures", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(options.model)
    options.output.mkdir(parents=True, exist_ok=True)
    rows, strips = [], []
    for case in read_cases(options.cases):
        loaded = load_case(case, None)
        for tissue, diameter, hole in spheres(loaded.volume, loaded.body):
            row = {"tissue": tissue, "diameter": diameter, **measured(model, loaded.volume, hole, options.samples)}
            if options.pictures:
                strips.append(strip(row, loaded.volume, hole))
            del row["images"]
            rows.append(row)
            print(case.name, tissue, f"{diameter:g} mm", {k: round(float(v), 1) for k, v in row["error"].items()})
    (options.output / "fillings.md").write_text(table(rows, options.samples), encoding="utf-8")
    print(table(rows, options.samples))
    for page in range(0, len(strips), A_PAGE):
        Image.fromarray(np.concatenate(strips[page : page + A_PAGE])).save(
            options.output / f"fillings-{page // A_PAGE + 1}.png"
        )


if __name__ == "__main__":
    main()
