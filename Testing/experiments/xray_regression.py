"""Train the regression of chest X-rays (``Resources/Models/chest-xrays.safetensors``) on CTs of chests.

``python -m Testing.experiments.xray_regression CT... -o FILE [--samples 8] [--steps 800]``: each CT is taken as it is,
and bent, scaled, turned and cropped at random; its AP and lateral X-rays are calculated, and the U-Net of
``multimodal/xray_regression.py`` learns its HU on 8 mm by their squared error. Needs 1 GB; a step takes half a second
of one core.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import map_coordinates, zoom
from scipy.spatial.transform import Rotation
from torch.nn import functional

from MedDiffFMLib.conditioning.region import body_mask
from MedDiffFMLib.imaging.grid import to_grid, working_grid
from MedDiffFMLib.imaging.io import read_volume
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.multimodal.exposure import Exposure, exposure
from MedDiffFMLib.multimodal.framing import frame_body
from MedDiffFMLib.multimodal.names import parse_views
from MedDiffFMLib.multimodal.radiograph import Patient
from MedDiffFMLib.multimodal.shadow_hull import Hull, Shadow, hull_of
from MedDiffFMLib.multimodal.views import Setup, from_angles
from MedDiffFMLib.multimodal.xray_consistency import XrayConsistency, XrayView
from MedDiffFMLib.multimodal.xray_pose import binned
from MedDiffFMLib.multimodal.xray_regression import (
    CHANNELS,
    XrayRegression,
    load_regression,
    regression_input,
    save_regression,
)

VOXEL_MM, PIXELS = 4.0, 256
BEND_MM, LATTICE_MM, TURN_DEGREES, SIZE, AXIS = 5.0, 55.0, 3.0, 0.05, 0.04
LEAST_MM, LEAST_SHARE = 180.0, 0.72
"""Of the length that a crop keeps."""
AROUND = 0.7
"""Weight of the hull around the body, which has 1."""
PLANES, PEAK, DECAY = 20, 3e-3, 0.5


def patient(path: Path) -> Volume:
    """HU on 3 mm, air around the body."""
    scan = read_volume(path)
    alone = np.where(frame_body(scan).body, np.clip(scan.voxels, -1000, 1000), -1000).astype(np.int16)
    scan = Volume(alone, scan.ijk_to_ras)
    grid = working_grid(scan, 3.0)
    return Volume(to_grid(scan, grid, fill=-1000).astype(np.float32), grid.ijk_to_ras)


def another(scan: Volume, rng: np.random.Generator) -> Volume:
    """A bent, scaled, turned and cropped body."""
    shape, edge = np.array(scan.voxels.shape), scan.spacing[2]
    keep = rng.uniform(max(LEAST_SHARE, min(1, LEAST_MM / (shape[0] * edge))), 1.0)
    low = rng.uniform(0, 1 - keep)
    scale = np.exp(rng.normal(0, SIZE) + rng.normal(0, AXIS, 3))
    turn = Rotation.from_euler("xyz", rng.normal(0, TURN_DEGREES, 3), degrees=True).as_matrix()
    knots = [max(2, int(n * edge / LATTICE_MM) + 2) for n in shape]
    bend = [zoom(rng.normal(0, BEND_MM, knots), shape / knots, order=3)[tuple(map(slice, shape))] for _ in range(3)]
    place = np.indices(shape).astype(np.float32) - ((shape - 1) / 2)[:, None, None, None]
    at = (np.tensordot(turn / scale, place, 1) + np.stack(bend) / edge) + ((shape - 1) / 2)[:, None, None, None]
    hounsfield = map_coordinates(scan.voxels, at, order=1, mode="nearest")
    matrix, first = scan.ijk_to_ras.copy(), int(low * shape[0])
    matrix[:3, 3] += first * matrix[:3, 2]
    return Volume(hounsfield[first : int((low + keep) * shape[0])], matrix)


def xrays_of(scan: Volume) -> tuple[Hull, XrayConsistency]:
    """What the AP and the lateral X-ray of a CT tell."""
    seen, setup = [], Setup(pixels=PIXELS)
    taken = Patient(Volume(np.rint(scan.voxels).astype(np.int16), scan.ijk_to_ras))
    for angles in parse_views("ap,lat"):
        assert angles is not None
        shot = taken.radiograph(from_angles(angles), setup, "digital")
        read = exposure(np.asarray(shot.picture.pixels), "attenuation")
        beam, pixels = binned(shot.beam, read.relative, VOXEL_MM)
        seen.append((beam, Exposure(pixels.astype(np.float32), read.free_scale, read.free_offset)))
    hull = hull_of([Shadow(beam, read.shadow()) for beam, read in seen], VOXEL_MM)
    views = [XrayView(beam, torch.from_numpy(read.relative).float()) for beam, read in seen]
    return hull, XrayConsistency(views, hull.grid, torch.from_numpy(hull.room))


@torch.no_grad()
def sample(scan: Volume) -> torch.Tensor:
    """(9, k, j, i) half: input of the network, HU / 1000 and weight, on 8 mm: all of the hull in the planes shown.

    Air between hull and body counts too, though the figures do not: what is put there is lacking in the body after
    consistency.
    """
    hull, consistency = xrays_of(scan)
    known = regression_input(hull, consistency, (0, 1))
    truth = np.clip(to_grid(scan, hull.grid, fill=-1000), -1000, 1000)
    weight = np.zeros(truth.shape, np.float32)
    weight[hull.shown] = np.maximum(body_mask(truth), AROUND * hull.room)[hull.shown]
    pooled = torch.from_numpy(np.stack([truth / 1000, weight])).float()[None]
    return torch.cat([known, functional.interpolate(pooled, size=known.shape[2:], mode="area")], 1)[0].half()


def squared_error(estimate: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    """Weighted mean."""
    truth, weight = row[CHANNELS], row[CHANNELS + 1]
    return ((estimate - truth).square() * weight).sum() / weight.sum().clamp_min(1)


def train(network: XrayRegression, rows: list[torch.Tensor], steps: int, seed: int = 0) -> XrayRegression:
    """The network with averaged weights."""
    rng = np.random.default_rng(seed)
    network.requires_grad_(True).train()
    averages = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    optimizer = torch.optim.AdamW(network.parameters(), PEAK, weight_decay=1e-2)
    for step in range(steps):
        share = min(1, (step + 1) / 20) * min(1, (steps - step) / ((1 - DECAY) * steps))
        optimizer.param_groups[0]["lr"] = PEAK * share
        row = rows[rng.integers(len(rows))]
        first = int(rng.integers(max(1, row.shape[1] - PLANES)))
        row = row[:, first : first + PLANES].float()
        loss = squared_error(network(row[None, :CHANNELS])[0, 0], row)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        kept = min(0.99, (step + 1) / (step + 10))
        with torch.no_grad():
            for name, tensor in network.state_dict().items():
                averages[name].lerp_(tensor, 1 - kept)
        if step % 50 == 49:
            print(f"step {step + 1}, {10 * np.log10(4 / float(loss.detach())):.2f} dB", flush=True)
    network.load_state_dict(averages)
    return network.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cts", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--initial", type=Path, help="weights to go on from")
    options = parser.parse_args()
    begun, rows = time.process_time(), []
    for number, path in enumerate(options.cts):
        scan = patient(path)
        for n in range(options.samples):
            rows.append(sample(another(scan, np.random.default_rng([number, n])) if n else scan))
        print(path.name, tuple(rows[-1].shape), flush=True)
    torch.manual_seed(0)
    network = load_regression(options.initial) if options.initial else XrayRegression()
    network = train(network, rows, options.steps)
    facts = {"patients": len(options.cts), "samples": len(rows), "steps": options.steps}
    digest = save_regression(options.output, network, {**facts, "seconds": round(time.process_time() - begun)})
    print(f"{options.output}: SHA-256 {digest}")


if __name__ == "__main__":
    main()
