"""Figures of CTs from X-rays: AP and lateral X-rays of real chests, the reconstruction and its baselines beside it.

``python -m Testing.experiments.reconstruct_figures CT... [--views ap,lat] [--region chest]`` prints a row a method:
PSNR (peak 2000 HU) and mean absolute error in the body on the grid of the result, HU limited to [-1000, 1000], and how
much of the X-rays is missed. Patients that chose settings: LIDC-IDRI-0002 and 0004. ``--alone`` leaves the baselines
out.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np
import torch

import MedDiffFMLib as mdf
from MedDiffFMLib.conditioning.region import body_mask
from MedDiffFMLib.imaging.grid import Grid, to_grid
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.multimodal.framing import frame_body
from MedDiffFMLib.multimodal.shadow_hull import Hull, hull_of
from MedDiffFMLib.multimodal.xray_consistency import XrayConsistency, XrayView
from MedDiffFMLib.tasks.base import Case
from MedDiffFMLib.tasks.reconstruct.given import given_xrays
from MedDiffFMLib.tasks.reconstruct.spec import Reconstruct
from MedDiffFMLib.tasks.synthesize.cascade import upsample

Row = dict[str, float]


def truth_on(grid: Grid, scan: Volume) -> tuple[np.ndarray, np.ndarray]:
    """HU without the table, and the body, on a grid."""
    hounsfield = np.clip(to_grid(scan, grid, fill=-1000), -1000, 1000)
    patient = Volume(frame_body(scan).body.astype(np.uint8), scan.ijk_to_ras, "mask")
    hounsfield = np.where(to_grid(patient, grid, order=0, fill=0) > 0.5, hounsfield, -1000)
    return hounsfield, body_mask(hounsfield)


def score(hounsfield: np.ndarray, truth: np.ndarray, body: np.ndarray) -> Row:
    error = (np.clip(hounsfield, -1000, 1000) - truth)[body]
    return {"psnr": 10 * np.log10(2000**2 / np.mean(error**2)), "mae": float(np.abs(error).mean())}


def consistency_of(task: Reconstruct, pictures: list[Volume]) -> tuple[Hull, XrayConsistency]:
    """What holds an image to the X-rays, all voxels alike."""
    further = dict(zip(("second", "third", "fourth"), pictures[1:], strict=False))
    xrays = given_xrays(task, Case(pictures[0], scans=further))
    hull = hull_of([xray.shadow for xray in xrays], task.spacing)
    views = [XrayView(xray.coarse_beam, torch.from_numpy(xray.coarse.relative).float()) for xray in xrays]
    return hull, XrayConsistency(views, hull.grid, torch.from_numpy(hull.room))


def average(hull: Hull, region: str) -> torch.Tensor:
    """Mean of eight bodies that the companion draws without a look at the X-rays, (k, j, i) in network range."""
    from MedDiffFMLib.models.checkpoint import load_model
    from MedDiffFMLib.tasks.reconstruct import recipe
    from MedDiffFMLib.tasks.reconstruct.expected_image import average_body

    model = load_model("starter-ct")
    with recipe._inventor(model) as (edge, _):
        grid = recipe._coarse_grid(hull.grid, edge)
        denoise = recipe._denoiser(model, hull, grid, region)
        bodies = average_body(denoise, grid.shape, 8, torch.Generator().manual_seed(0))
    return upsample(bodies.mean(0, keepdim=True), hull.grid.shape)[0, 0]


def baselines(taken: list[Volume], region: str, truth: np.ndarray, body: np.ndarray) -> dict[str, Row]:
    """Rows of what needs no network, or only the average body."""
    hull, consistency = consistency_of(Reconstruct(), taken)
    mean = average(hull, region)
    images = {
        "back-projected from air (CGLS)": consistency.meet(torch.full(hull.grid.shape, -1.0), 6),
        "average body": torch.where(consistency.support, mean, -1.0),
        "average body, consistent": consistency.meet(mean, 6),
    }
    return {
        name: {
            **score(1000 * image[hull.shown].numpy(), truth, body),
            "missed": 100 * max(consistency.relative(image)),
        }
        for name, image in images.items()
    }


def figures(path: Path, views: str, region: str | None, alone: bool = False, **settings: object) -> dict[str, Row]:
    """Rows by method; ``alone``: of the task only, without its baselines."""
    scan = mdf.read_volume(path)
    taken = [replace_modality(v) for v in mdf.radiograph(scan, views=views).volumes.values()]
    named = dict(zip(("second", "third", "fourth"), taken[1:], strict=False))
    begun = time.monotonic()
    found = mdf.reconstruct(taken[0], **named, region=region, **settings)
    seconds = time.monotonic() - begun
    ct = found.volumes["ct"]
    truth, body = truth_on(Grid(ct.voxels.shape, ct.ijk_to_ras), scan)
    rows: dict[str, Row] = {}
    if not alone:
        rows = baselines(taken, found.facts["region"] or "chest", truth, body)
    missed = max(view["missed_percent"] for view in found.facts["views"].values())
    rows["reconstruct"] = {**score(ct.voxels, truth, body), "missed": missed, "seconds": seconds}
    spread = found.volumes["uncertainty"].voxels[body]
    error = np.abs(np.clip(ct.voxels, -1000, 1000) - truth)[body]
    rows["reconstruct"]["held by 1.645 of the uncertainty"] = float((error <= 1.645 * spread).mean())
    rows["reconstruct"]["error over uncertainty"] = float(np.sqrt((error**2).mean() / (spread**2).mean()))
    return rows


def replace_modality(volume: Volume) -> Volume:
    from dataclasses import replace

    return replace(volume, modality="XR")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cts", type=Path, nargs="+")
    parser.add_argument("--views", default="ap,lat")
    parser.add_argument("--region")
    parser.add_argument("--alone", action="store_true", help="without the baselines")
    options = parser.parse_args()
    gathered: dict[str, list[Row]] = {}
    for path in options.cts:
        for name, row in figures(path, options.views, options.region, options.alone).items():
            gathered.setdefault(name, []).append(row)
            print(f"{path.name:32} {name:34}", *(f"{key} {value:.4g}" for key, value in row.items()), flush=True)
    for name, rows in gathered.items():
        keys = rows[0].keys()
        print(
            f"{'mean of ' + str(len(rows)):32} {name:34}", *(f"{k} {np.mean([r[k] for r in rows]):.4g}" for k in keys)
        )
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
