"""Figures of joint sets: CT, MR, X-rays and sentences made from prompts, and whether they tell of one body.

``python -m Testing.experiments.joint_figures [--seed 0] [--spacing 4] [--only 0 3] [--pairs PAIRS.json]
[--patients CT...] [--held-out CT...]`` makes a set from each prompt and prints

* the correlation of its X-rays with projections by a ray caster of this file's own (one energy, trilinear samples on
  each ray; nothing shared with the task), beside those of another set's CT;
* normalized mutual information of CT and MR in the body, beside that of real pairs on the same voxels;
* facts that the sentences state and another modality shows, beside the sentences of another set;
* what the prompt asked for, and whether ``describe`` measures it;
* with ``--patients`` the one whose CT is most like the set's, beside what held-out patients find among them.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

import MedDiffFMLib as mdf
from MedDiffFMLib.conditioning.region import body_box, body_mask
from MedDiffFMLib.imaging.grid import Grid, to_grid, working_grid
from MedDiffFMLib.imaging.io import read_volume
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.multimodal.facts.grammar import read_sentences
from MedDiffFMLib.multimodal.mutual_information import normalized_mutual_information
from Testing.experiments.prompt_figures import PROMPTS

STEP_MM, EVERY = 2.0, 6
"""Between samples on a ray, and pixels from one ray to the next."""
CASTS = 0.05
"""Attenuation from which on a pixel lies in the body's shadow."""
NEAR, NEAR_SHARE = 0.15, 5.0
"""What agrees: numbers by so much of the sentence's, shares by so many percent of the body."""
MR_BODY, MR_LUNG, MR_FAT = 0.08, 0.25, 0.65
"""Of the signal's 97th percentile: more is body, less in it is lung, more is fat, which is brightest in T1."""
CUBE = 32
Row = dict[str, Any]


def project(ct: Volume, pixels: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Integrals of density, g/cm2, from the source to points (n, 3), RAS mm."""
    density = np.clip(ct.voxels.astype(np.float32) / 1000 + 1, 0, None) * body_mask(ct.voxels)
    inverse = np.linalg.inv(ct.ijk_to_ras)
    corners = np.array(np.meshgrid(*([0, n] for n in ct.voxels.shape[::-1]))).reshape(3, -1).T
    reach = np.linalg.norm((np.c_[corners, np.ones(8)] @ ct.ijk_to_ras.T)[:, :3] - source, axis=1)
    unit = (pixels - source) / np.linalg.norm(pixels - source, axis=1, keepdims=True)
    total = np.zeros(len(pixels))
    for length in np.arange(reach.min() - 300, reach.max(), STEP_MM):
        at = (np.c_[source + length * unit, np.ones(len(pixels))] @ inverse.T)[:, 2::-1]
        total += ndimage.map_coordinates(density, at.T, order=1, cval=0.0)
    return total * STEP_MM / 10


def xray_likeness(made: Any, ct: Volume, name: str) -> float:
    """Correlation of an X-ray with the projection of a CT."""
    xray, source = made.volumes[name], np.array(made.facts["views"][name]["source_ras_mm"], float)
    j, i = (np.arange(0, n, EVERY) for n in xray.voxels.shape[1:])
    rows, columns = (axis.ravel() for axis in np.meshgrid(j, i, indexing="ij"))
    places = np.stack([columns, rows, np.zeros_like(rows), np.ones_like(rows)], 1) @ xray.ijk_to_ras.T
    through = project(ct, places[:, :3], source)
    return float(np.corrcoef(through, xray.voxels[0][rows, columns])[0, 1])


def shared_information(ct: Volume, mr: Volume) -> float:
    """Of CT and MR in the body of both, on the voxels of the CT."""
    signal = to_grid(mr, Grid(ct.voxels.shape, ct.ijk_to_ras), fill=0)
    inside = body_mask(ct.voxels) & (signal > 0)
    return normalized_mutual_information(np.clip(ct.voxels[inside], -1000, 1000), signal[inside])


def real_pairs(path: Path, spacing: float) -> list[float]:
    """The same of aligned pairs on cubic voxels."""
    from MedDiffFMLib.datasets.datalist import read_datalist
    from MedDiffFMLib.multimodal.pairs import SPACING_MM, pair_of

    found = []
    for entry in read_datalist(path):
        pair = pair_of(read_volume(entry.image), read_volume(entry.files["mr"], "MR"), entry.name, entry.patient)
        used = pair.seen & pair.body
        zoom = SPACING_MM / spacing
        ct, mr, inside = (
            ndimage.zoom(part.astype(np.float32), zoom, order=1) for part in (pair.hounsfield, pair.mr, used)
        )
        found.append(normalized_mutual_information(np.clip(ct, -1000, 1000)[inside > 0.5], mr[inside > 0.5]))
    return found


def stated(text: str) -> dict[str, float]:
    """Numbers that sentences state."""
    said = {one.kind: one.values for one in read_sentences(text)[0] if not one.unknown}
    slots = {"body_width": "width", "body_depth": "depth", "fat": "share", "lungs": "volume"}
    return {kind: float(said[kind][slot]) for kind, slot in slots.items() if kind in said}


def shown_in_xrays(made: Any) -> dict[str, float]:
    """Width and depth of the body by the shadows of an AP and a lateral X-ray, mm."""
    edges = []
    for name in ("xray", "xray_lat"):
        xray, about = made.volumes[name], made.facts["views"][name]
        columns = np.flatnonzero((xray.voxels[0] > CASTS).any(0))
        pixel = float(np.linalg.norm(xray.ijk_to_ras[:3, 0]))
        edges.append((np.ptp(columns) + 1) * pixel / about["source_to_detector_mm"])
    width, depth = 350.0, 250.0
    for _ in range(5):  # a body is magnified by its distance from the detector: 50 mm and half its own depth
        width, depth = edges[0] * (1750 - depth / 2), edges[1] * (1750 - width / 2)
    return {"body_width": width, "body_depth": depth}


def shown_in_mr(mr: Volume) -> dict[str, float]:
    """Width, depth, share of fat and volume of the lungs by the signal alone."""
    grid = working_grid(mr, None)
    signal = to_grid(mr, grid, fill=0)
    signal = signal / np.percentile(signal[signal > 0], 97)
    body = ndimage.binary_opening(signal > MR_BODY, iterations=1)
    labels, count = ndimage.label(body)
    body = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:]) if count else body
    body = np.stack([ndimage.binary_fill_holes(ndimage.binary_closing(plane, iterations=2)) for plane in body])
    i, j, k = grid.spacing
    found = {"body_width": body.any((0, 1)).sum() * i, "body_depth": body.any((0, 2)).sum() * j}
    found["fat"] = 100 * float((signal[body] > MR_FAT).mean())
    deep = ndimage.binary_erosion(body, iterations=max(1, round(12 / i)))
    labels, count = ndimage.label(ndimage.binary_opening(deep & (signal < MR_LUNG)))
    sizes = np.sort(np.bincount(labels.ravel(), minlength=2)[1:])[::-1] * i * j * k / 1000
    if sizes[0] > 300:
        found["lungs"] = float(sizes[sizes > 300][:2].sum())
    return found


def agree(kind: str, said: float, seen: float) -> bool:
    return abs(said - seen) <= (NEAR_SHARE if kind == "fat" else NEAR * said)


def cube(ct: Volume) -> np.ndarray:
    """The body in its box on 32^3 voxels, of mean 0 and norm 1."""
    grid = working_grid(ct, None)
    hounsfield = np.clip(to_grid(ct, grid, fill=-1000), -1000, 1000)
    low, high = (np.asarray(edge, int) for edge in body_box(body_mask(hounsfield)))
    part = hounsfield[tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))].astype(np.float32)
    small = ndimage.zoom(part, [CUBE / n for n in part.shape], order=1)
    small -= small.mean()
    return small / np.linalg.norm(small)


def nearest(cubes: dict[str, np.ndarray], one: np.ndarray) -> tuple[str, float]:
    likeness = {name: float((other * one).sum()) for name, other in cubes.items()}
    best = max(likeness, key=lambda name: likeness[name])
    return best, likeness[best]


def judge(one: Any, other: Any, figures: dict[str, list[float]]) -> None:
    """Add what a set shows, beside another one where there is one."""
    ct = one.volumes["synthetic"]
    for name in ("xray", "xray_lat"):
        figures["X-ray and projection of its CT"].append(xray_likeness(one, ct, name))
        if other is not None:
            figures["X-ray and projection of another CT"].append(xray_likeness(one, other.volumes["synthetic"], name))
    figures["NMI of CT and MR, sets"].append(shared_information(ct, one.volumes["mr"]))
    for source, seen in (("X-rays", shown_in_xrays(one)), ("MR", shown_in_mr(one.volumes["mr"]))):
        for text, who in ((one, "its"), (other, "another set's")):
            said = {} if text is None else stated(text.texts["text"])
            for kind in sorted(seen.keys() & said.keys()):
                figures[f"facts: {who} sentences and {source}"].append(agree(kind, said[kind], seen[kind]))
                figures[f"facts: {who} sentences"].append(agree(kind, said[kind], seen[kind]))
                print(" ", who, source, kind, said[kind], round(seen[kind], 1), flush=True)


def mean_of(name: str, values: list[float]) -> None:
    print(f"{name:44} mean {np.mean(values):.3f}, least {np.min(values):.3f}, n {len(values)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--spacing", type=float, default=4.0)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of prompts, from 0 on")
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--patients", type=Path, nargs="*", default=[])
    parser.add_argument("--held-out", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    figures: dict[str, list[float]] = defaultdict(list)
    if options.pairs:
        figures["NMI of CT and MR, real pairs"] = real_pairs(options.pairs, options.spacing)
    cubes = {path.name: cube(read_volume(path)) for path in options.patients}
    made: list[Any] = []
    for prompt in PROMPTS if options.only is None else [PROMPTS[number] for number in options.only]:
        one = mdf.synthesize(
            prompt=prompt, make="ct,mr,xray,text", views="ap,lat", spacing=options.spacing, seed=options.seed
        )
        print(prompt, one.facts["anatomy"], flush=True)
        for row in one.tables["asked"]:
            figures[f"asked: {row['fact']}, {row['value']}"].append(row["met"] == "yes")
            print(" ", row["fact"], row["value"], row["asked"], row["measured"], row["met"], flush=True)
        judge(one, made[-1] if made else None, figures)
        if cubes:
            name, value = nearest(cubes, cube(one.volumes["synthetic"]))
            figures["likeness of the nearest patient, sets"].append(value)
            print("  nearest to", name, round(value, 3))
        made.append(one)
    for path in options.held_out if cubes else ():
        figures["likeness of the nearest patient, held-out"].append(nearest(cubes, cube(read_volume(path)))[1])
    for name, values in figures.items():
        mean_of(name, [float(value) for value in values])


if __name__ == "__main__":
    main()
