"""Lesions put into CTs by request: are they found where and as large as they were asked for?

    python Testing/experiments/inserted_lesions.py DATALIST -o FOLDER [--tries 4] [--control lesion] [--spread 40]

Into every CT of DATALIST (its "validation" rows) go lesions of several kinds and sizes: into lung where there is some,
and into soft tissue. The first one drawn, which is what there was without a check, stands beside the one that is kept
of at most --tries. Judged by a segmentation that takes part neither in generating nor in choosing: scikit-image's
random walker (Grady 2006) from a seed in the middle of the mask and one beyond its rim. "Found" is a Dice of 0.7 and a
diameter within 20 %. Beside it the error of the mean HU that was asked for. One line of ``lesions.jsonl`` each, a table
in ``table.md``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import MedDiffFMLib as mdf
from MedDiffFMLib.conditioning.region import body_mask
from MedDiffFMLib.datasets.datalist import read_datalist
from MedDiffFMLib.evaluation.quality.metrics import bootstrap
from MedDiffFMLib.imaging.volume import Volume

LUNG = (("solid", 8.0), ("solid", 16.0), ("part-solid", 12.0), ("ground-glass", 16.0))
SOFT = (("hyperdense", 12.0), ("hypodense", 20.0), ("calcified", 10.0))
DICE, SIZE = 0.7, 0.2
LEAST_ROOM_ML = 100.0
MARGIN_MM = 6.0


def rooms(volume: Volume) -> Iterator[tuple[str, np.ndarray, str, float]]:
    """Where lesions are put: tissue, its mask (k, j, i), kind and diameter."""
    from scipy.ndimage import binary_opening, gaussian_filter

    body = body_mask(volume.voxels)  # a mattress is as dense as lung
    smooth = gaussian_filter(volume.voxels.astype(np.float32), [2 / s for s in volume.spacing[::-1]])
    for tissue, low, high, wishes in (("lung", -950, -650, LUNG), ("soft tissue", 0, 120, SOFT)):
        room = binary_opening((smooth > low) & (smooth < high) & body, iterations=2)
        if room.sum() * volume.voxel_volume / 1000 >= LEAST_ROOM_ML:
            for kind, diameter in wishes:
                yield tissue, room, kind, diameter


def walk(volume: np.ndarray, lesion: np.ndarray, spacing: tuple[float, float, float]) -> tuple[float, float]:
    """Dice and ratio of diameters of the random walker's outline and the mask."""
    from scipy.ndimage import distance_transform_edt, find_objects
    from skimage.segmentation import random_walker

    edges = np.array(spacing[::-1])
    (whole,) = find_objects(lesion.astype(np.uint8))
    margin = np.ceil(2 * MARGIN_MM / edges).astype(int)
    box = tuple(slice(max(p.start - m, 0), p.stop + m) for p, m in zip(whole, margin, strict=True))
    inside = lesion[box]
    depth = distance_transform_edt(inside, sampling=edges)
    beyond = distance_transform_edt(~inside, sampling=edges)
    seeds = np.zeros(inside.shape, np.uint8)
    seeds[depth >= 0.7 * depth.max()], seeds[beyond > MARGIN_MM] = 1, 2
    image = np.clip(volume[box].astype(np.float64), -1000, 400)
    image = (image - image.min()) / max(float(np.ptp(image)), 1.0)
    found = random_walker(image, seeds, beta=200, mode="cg_j", spacing=edges / edges.min()) == 1
    return float(2 * (found & inside).sum() / (found.sum() + inside.sum())), float(np.cbrt(found.sum() / inside.sum()))


def _pair(result: Any) -> tuple[np.ndarray, np.ndarray]:
    """CT with the lesion, and its mask."""
    return result.volumes["with_lesion"].voxels, result.volumes["lesion"].voxels > 0


def rows_of(volume: Volume, case: str, model: Any, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Two rows for each lesion: the first one drawn and the one that is kept."""
    for number, (tissue, room, kind, diameter) in enumerate(rooms(volume)):
        mask = Volume(room.astype(np.uint8), volume.ijk_to_ras, "mask")

        def make(tries: int, mask: Volume = mask, kind: str = kind, size: float = diameter, seed: int = number) -> Any:
            return mdf.generate_lesion(
                volume, model, mask=mask, diameter=size, kind=kind, seed=seed, tries=tries, spread=args.spread,
                control=args.control,
            )  # fmt: skip

        begin = time.process_time()
        kept = make(args.tries)
        seconds = round(time.process_time() - begin, 1)
        first = kept if kept.facts["check"]["kept"] == 1 else make(1)
        judged = {id(one): walk(*_pair(one), volume.spacing) for one in {id(first): first, id(kept): kept}.values()}
        for name, result in (("first", first), ("kept", kept)):
            (score, ratio), facts = judged[id(result)], result.facts
            yield {
                "case": case, "tissue": tissue, "kind": kind, "diameter": diameter, "which": name, "seconds": seconds,
                "walk": round(score, 3), "ratio": round(ratio, 3),
                "found": score >= DICE and abs(ratio - 1) <= SIZE,
                "mean_error": round(abs(facts["mean_hu_after"] - facts["mean_hu_wished"]), 1),
                "spread": facts["spread_hu_after"], "mask_mm": facts["diameter_mm"], **facts["check"],
            }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """Means by tissue, of the first lesions drawn and of those that were kept, with 95 % intervals over cases."""
    lines = [
        "| tissue, tries | lesions | found | Dice of the random walker | passed the check | drawn | mean off by, HU |"
    ]
    lines.append("|---|---:|---:|---:|---:|---:|---:|")
    for tissue in ("lung", "soft tissue"):
        for which in ("first", "kept"):
            part = [row for row in rows if row["which"] == which and row["tissue"] == tissue]
            if part:
                score = bootstrap([row["walk"] for row in part], [row["case"] for row in part])
                found, passed = (sum(bool(row[key]) for row in part) for key in ("found", "good"))
                drawn = np.mean([row["drawn"] for row in part])
                worst = max(row["mean_error"] for row in part)
                cells = [f"{found} of {len(part)}", f"{score.mean:.2f} [{score.low:.2f}, {score.high:.2f}]"]
                cells += [f"{passed} of {len(part)}", f"{drawn:.1f}", f"at most {worst:g}"]
                lines.append(f"| {tissue}, {which} | {len(part)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datalist", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--tries", type=int, default=4)
    parser.add_argument("--control", default="auto")
    parser.add_argument("--spread", type=float)
    parser.add_argument("--model", default="starter-ct")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    model, rows = mdf.load_model(args.model), []
    with open(args.output / "lesions.jsonl", "w", encoding="utf-8") as stream:
        for entry in read_datalist(args.datalist, ("validation",)):
            for row in rows_of(mdf.read_volume(entry.image), entry.name, model, args):
                rows.append(row)
                stream.write(json.dumps(row) + "\n")
                print(row, flush=True)
    (args.output / "table.md").write_text(table(rows), encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
