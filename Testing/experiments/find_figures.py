"""How high the likeness is where a nodule is known to be, on the validation chests of a prepared folder.

``python -m Testing.experiments.find_figures DATA WEIGHTS [--read CT MASK ...]``: nodules are put into the lungs of each
chest, and each is looked for by side and third of the lung; with ``--read`` those that readers outlined are, too. The
figure is the share of the lungs that is more like the text than the nodule's own place: 0 is best, 0.5 chance.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from MedDiffFMLib.conditioning.region import body_mask
from MedDiffFMLib.datasets.prepared_cases import open_cases
from MedDiffFMLib.imaging.grid import to_grid, working_grid
from MedDiffFMLib.imaging.io import read_volume
from MedDiffFMLib.imaging.resampling import resample_box
from MedDiffFMLib.imaging.volume import Volume, thinned
from MedDiffFMLib.multimodal.aligned import AlignedEncoders, load_encoders
from MedDiffFMLib.multimodal.boxes import SPACING_MM
from MedDiffFMLib.multimodal.facts.part import Spot, Surroundings
from MedDiffFMLib.multimodal.facts.scan import Scan
from MedDiffFMLib.multimodal.search import likeness_map
from MedDiffFMLib.multimodal.spoken_facts import prompt_facts
from MedDiffFMLib.training.multimodal.box_pool import with_nodules

PROMPTS = ("nodule", "nodule in the {side} lung", "nodule in the {third} of the {side} lung")


def scans_of(cache: Path) -> list[tuple[str, Scan]]:
    """Validation cases with lungs, at 4 mm."""
    found = []
    for case in open_cases(cache, "validation"):
        level = case.levels[case.level_for(np.full(3, SPACING_MM))]
        step = SPACING_MM / level.spacing
        k, j, i = (max(1, int(n / s)) for n, s in zip(level.shape, step, strict=True))
        hounsfield = np.rint(resample_box(level.voxels, (step - 1) / 2, step, (k, j, i))).astype(np.int16)
        found.append((case.name, Scan(Volume(hounsfield, np.diag([-SPACING_MM, -SPACING_MM, SPACING_MM, 1.0])))))
    return found


def read_scan(ct: Path, mask: Path) -> tuple[Scan, list[tuple[float, float, float]], list[float]]:
    """A CT at 4 mm, the middles of the nodules that a mask outlines (RAS mm), and their sizes."""
    volume, labels = read_volume(ct), read_volume(mask, modality="mask")
    coarse = thinned(volume, SPACING_MM / 2)
    grid = working_grid(coarse, SPACING_MM)
    scan = Scan(Volume(np.rint(to_grid(coarse, grid)).astype(np.int16), grid.ijk_to_ras))
    points, sizes = [], []
    for value in np.unique(labels.voxels)[1:]:
        k, j, i = np.argwhere(labels.voxels == value).mean(0)
        r, a, s, _ = labels.ijk_to_ras @ [i, j, k, 1.0]
        points.append((float(r), float(a), float(s)))
        sizes.append(float((6 * (labels.voxels == value).sum() * labels.voxel_volume / np.pi) ** (1 / 3)))
    return scan, points, sizes


def shares(surroundings: Surroundings, spots: list[Spot], encoders: AlignedEncoders) -> list[list[float]]:
    """Of each nodule and prompt, the share of the lungs that is more like the prompt."""
    scan, lungs = surroundings.scan, surroundings.lungs
    assert lungs is not None
    inside = (lungs.inside > 0) & body_mask(scan.hounsfield)
    maps: dict[str, np.ndarray] = {}
    rows = []
    for spot in spots:
        index = (np.linalg.inv(scan.grid.ijk_to_ras) @ [*spot.point, 1.0])[:3][::-1]
        at = tuple(int(np.clip(round(x), 0, n - 1)) for x, n in zip(index, scan.hounsfield.shape, strict=True))
        row = []
        for prompt in (words.format(side=spot.side, third=spot.third) for words in PROMPTS):
            if prompt not in maps:
                text = encoders.text([prompt_facts(prompt)[0]])[0]
                maps[prompt] = likeness_map(scan.hounsfield.astype(np.float32), text, encoders)
            row.append(float((maps[prompt][inside] > maps[prompt][at]).mean()))
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--read", type=Path, nargs=2, action="append", default=[], metavar=("CT", "MASK"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    encoders = load_encoders(args.weights)
    put_in = []
    for name, scan in scans_of(args.data):
        changed, spots = with_nodules(Surroundings(scan), np.random.default_rng(7))
        if spots:
            put_in += shares(changed, spots, encoders)
            print(name, len(spots), "nodules put in", flush=True)
    for column, prompt in enumerate(PROMPTS):
        values = [row[column] for row in put_in]
        print(f"{prompt}: median {np.median(values):.3f}, mean {np.mean(values):.3f} of {len(values)}")
    for ct, mask in args.read:
        scan, points, sizes = read_scan(ct, mask)
        around = Surroundings(scan)
        spots = [spot for p, s in zip(points, sizes, strict=True) if (spot := around.spot(p, s, 0.0))]
        for spot, row in zip(spots, shares(around, spots, encoders), strict=True):
            print(f"{ct.name}: {spot.size:.0f} mm, {spot.third}, {spot.side}: {', '.join(f'{x:.3f}' for x in row)}")


if __name__ == "__main__":
    main()
