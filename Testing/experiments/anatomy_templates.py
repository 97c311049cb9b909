"""Anatomy templates of ``synthesize`` from CTs that may be handed on: codes of tissue and organs, and their HU.

    python -m Testing.experiments.anatomy_templates LIST.json -o Resources/Anatomy

A row of the list: ``image``; ``regions``, region -> [lowest, highest] part of the length, 0 feet and 1 head;
``contrast``, whether vessels are filled; ``credit``; optionally ``lesion`` (a mask; where it is, the template has
lung) and ``organs`` (labels of TotalSegmentator).
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from MedDiffFMLib.conditioning.tissue import AIRWAY, BONE, CONTRAST, LUNG, OUTSIDE, classify_tissue
from MedDiffFMLib.imaging.grid import Grid, same_box, to_grid, working_grid
from MedDiffFMLib.imaging.io import read_volume, write_volume
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.tasks.synthesize.expected_hu import BONE_DENSITIES, FIRST_ORGAN, LUNG_VESSELS, SPONGY_BONE

EDGE_MM = 2.5
"""Voxels of a template: ribs and the larger vessels are wider."""
SOFT_ORGANS = ("spleen", "kidney", "gallbladder", "liver", "stomach", "pancreas", "bladder", "aorta", "vena_cava")
RING_MM = 7.0
MARGIN_MM = 12.0
MOST_HU = 1000.0
"""Denser is no bone but metal or undiluted contrast agent, which the rule of tissue takes for bone."""


def codes(row: dict[str, Any], folder: Path) -> tuple[np.ndarray, np.ndarray, Grid]:
    """Codes and HU of a CT on its own voxels."""
    volume = read_volume(folder / row["image"])
    grid = working_grid(volume, None)
    hounsfield = to_grid(volume, grid, order=0, fill=-1024)
    spacing = grid.spacing[::-1]
    code = classify_tissue(hounsfield.astype(np.int16), spacing)
    code[_ringed(code, spacing)] = SPONGY_BONE
    if "lesion" in row:
        lesion = to_grid(read_volume(folder / row["lesion"]), grid, order=0, fill=0) > 0
        code[ndimage.binary_dilation(lesion, iterations=2) & (code != BONE)] = LUNG
    if "organs" in row:
        from MedDiffFMLib.conditioning.totalsegmentator_labels import ORGANS

        labels = to_grid(read_volume(folder / row["organs"]), grid, order=0, fill=0).astype(np.uint8)
        for number, organ in enumerate(ORGANS, 1):
            if any(word in organ for word in SOFT_ORGANS):
                code[(labels == number) & (code > AIRWAY)] = FIRST_ORGAN + number
    return code, hounsfield, grid


def _ringed(code: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Dense voxels that compact bone rings in their slice: marrow, which the HU alone take for contrast agent."""
    width = 2 * max(round(RING_MM / 2 / spacing[1]), 1) + 1
    ringed = np.zeros(code.shape, bool)
    for plane, classes in zip(ringed, code, strict=True):
        bone = ndimage.binary_closing(np.pad(classes == BONE, width), np.ones((width, width)))[
            width:-width, width:-width
        ]
        plane |= ndimage.binary_fill_holes(bone) & (classes == CONTRAST)
    return ringed


def coarse(code: np.ndarray, grid: Grid, hounsfield: np.ndarray) -> tuple[np.ndarray, Grid, np.ndarray]:
    """The commonest code of each voxel of the template, of lung and bone by its mean density; grid and mean HU."""
    edges = grid.spacing[::-1]
    shape = tuple(max(round(n * edge / EDGE_MM), 2) for n, edge in zip(code.shape, edges, strict=True))
    target = same_box(grid, shape)  # type: ignore[arg-type]
    factors = [m / n for m, n in zip(shape, code.shape, strict=True)]
    best, most = np.zeros(shape, np.float32), np.zeros(shape, np.uint8)
    for value in np.unique(code):
        share = ndimage.zoom((code == value).astype(np.float32), factors, order=1, grid_mode=True, mode="nearest")
        most[share > best] = value
        best = np.maximum(best, share)
    mean = ndimage.zoom(hounsfield, factors, order=1, grid_mode=True, mode="nearest")
    lung = ndimage.binary_erosion(np.isin(most, (LUNG, *LUNG_VESSELS)))  # without the mixed voxels at its surface
    bone = np.isin(most, (BONE, SPONGY_BONE))  # mixed voxels as well: they keep its surface where it is
    most[bone] = min(BONE_DENSITIES)
    for part, codes_by_hu in ((lung, LUNG_VESSELS), (bone, BONE_DENSITIES)):
        for value, least in codes_by_hu.items():
            most[part & (mean > least)] = value
    return most, target, mean


def cut(code: np.ndarray, grid: Grid) -> tuple[np.ndarray, Grid]:
    """The box around the body with a margin in the plane."""
    inside = np.argwhere((code > OUTSIDE).any(0))
    margin = round(MARGIN_MM / EDGE_MM)
    (low_j, low_i), (high_j, high_i) = np.maximum(inside.min(0) - margin, 0), inside.max(0) + margin + 1
    matrix = grid.ijk_to_ras.copy()
    matrix[:3, 3] = (grid.ijk_to_ras @ [low_i, low_j, 0, 1])[:3]
    part = np.ascontiguousarray(code[:, low_j:high_j, low_i:high_i])
    return part, Grid(part.shape, matrix)  # type: ignore[arg-type]


def template(row: dict[str, Any], folder: Path, output: Path) -> dict[str, Any]:
    """Write one template; gives its row of the index."""
    code, hounsfield, grid = codes(row, folder)
    code, grid, hounsfield = coarse(code, grid, hounsfield)
    means = {
        str(value): round(min(float(np.median(hounsfield[core if core.sum() > 50 else code == value])), MOST_HU))
        for value in np.unique(code)
        for core in [ndimage.binary_erosion(code == value)]
    }
    part, place = cut(code, grid)
    place.ijk_to_ras[:3, 3] = 0  # where the patient lay is nobody's business
    name = Path(row["image"]).name.split(".")[0] + ".nrrd"
    write_volume(Volume(part, place.ijk_to_ras, "mask"), output / name, overwrite=True)
    _pack(output / name)
    return {"file": name, "regions": row["regions"], "contrast": row["contrast"], "credit": row["credit"], "hu": means}


def _pack(file: Path) -> None:
    """Compress the voxels of a NRRD file as much as gzip can: it is written once and ships with every copy."""
    head, voxels = file.read_bytes().split(b"\n\n", 1)
    file.write_bytes(head + b"\n\n" + gzip.compress(gzip.decompress(voxels), 9, mtime=0))


def main() -> None:
    """Write the templates and their index."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    words = parser.parse_args()
    words.output.mkdir(parents=True, exist_ok=True)
    rows = [template(row, words.rows.parent, words.output) for row in json.loads(words.rows.read_text())]
    (words.output / "index.json").write_text(json.dumps({"templates": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
