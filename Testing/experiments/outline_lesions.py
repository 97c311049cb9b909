"""Masks of lesions that no collection outlined, from ellipsoids and ranges of HU that were set by eye.

    python Testing/experiments/outline_lesions.py FOLDER -o MASKS [--outlines anomaly_outlines.json] [--with NAME ...]

FOLDER holds ``NAME.nrrd`` for the names of the outlines, and ``NAME_mask.nrrd`` for those of ``--with``: lesions that
somebody outlined, which are kept. Of each outline counts what lies in its ellipsoid and range, the largest connected
part, holes in slices filled. No radiologist drew or checked them: they teach the anomaly detector what else is no
normal tissue.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from MedDiffFMLib.imaging.io import read_volume, write_volume
from MedDiffFMLib.imaging.volume import Volume

OPENED_MM = 3.0
"""Bridges thinner than twice that are cut where values were smoothed: to the chest wall, between ribs."""


def outlined(volume: Volume, outline: dict[str, Any]) -> np.ndarray:
    """Voxels, bool (k, j, i), of one outline.

    Raises:
        ValueError: nothing there.
    """
    from scipy.ndimage import binary_fill_holes, binary_opening, gaussian_filter, label

    spacing, smoothing = volume.spacing[::-1], outline["smoothing_mm"]
    center = np.array(outline["center_lps"]) * (-1, -1, 1)
    k, j, i = np.ogrid[tuple(slice(n) for n in volume.voxels.shape)]
    axes = zip(volume.ijk_to_ras[:3], center, outline["radii_mm"], strict=True)
    away = sum(((row[0] * i + row[1] * j + row[2] * k + row[3] - c) / r) ** 2 for row, c, r in axes)
    values = volume.voxels.astype(np.float32)
    values = gaussian_filter(values, [smoothing / s for s in spacing]) if smoothing else values
    inside = (away <= 1) & (values >= outline["hu"][0]) & (values <= outline["hu"][1])
    if smoothing:
        inside = binary_opening(inside, iterations=max(1, round(OPENED_MM / spacing[-1])))
    labels, count = label(inside)
    if not count:
        raise ValueError(f"nothing at {outline['center_lps']}")
    largest = labels == 1 + np.bincount(labels.ravel())[1:].argmax()
    return np.stack([binary_fill_holes(plane) for plane in largest])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--outlines", type=Path, default=Path(__file__).with_name("anomaly_outlines.json"))
    parser.add_argument("--with", dest="known", nargs="+", default=[], metavar="NAME")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    for name, outlines in json.loads(args.outlines.read_text(encoding="utf-8")).items():
        volume = read_volume(args.folder / f"{name}.nrrd")
        mask = np.zeros(volume.voxels.shape, bool)
        if name in args.known:
            mask |= read_volume(args.folder / f"{name}_mask.nrrd", modality="mask").voxels > 0
        for outline in outlines:
            voxels = outlined(volume, outline)
            mask |= voxels
            print(f"{name}: {outline['what']}, {voxels.sum() * volume.voxel_volume / 1000:.1f} ml", flush=True)
        write_volume(volume.with_voxels(mask.astype(np.uint8)), args.output / f"{name}_mask.nrrd", mask=True)


if __name__ == "__main__":
    main()
