"""Train the regression of chest X-rays (``Resources/Models/chest-xrays.safetensors``) on CTs of chests.

``python -m Testing.experiments.xray_regression CT... -o FILE [--validate CT...] [--samples 7] [--steps 1500]``: each
CT is taken as it is, and bent, scaled, turned and cropped at random; its AP and lateral X-rays are calculated, and the
U-Net of ``multimodal/xray_regression.py`` learns its HU on 8 mm by their squared error, half of the time with right and
left exchanged. What the averaged weights make of other chests is printed on the way. Then the outputs that tell the
body from the air in its hull learn on what the U-Net makes of the samples; ``--steps 0 --initial FILE`` trains them
alone. Needs 1 GB; a step takes half a second of one core or more, a sample three to seven, which ``--keep FOLDER``
spares the next run, the last outputs 20 s and half a second for each sample.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import map_coordinates, zoom
from scipy.spatial.transform import Rotation
from torch import nn
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
    ROOM,
    XrayRegression,
    load_regression,
    regression_input,
    save_regression,
)

VOXEL_MM, PIXELS = 4.0, 256
COARSE_MM, FINE = 8.0, 2
"""Voxels of all but the first samples of a patient, which take a third of the time so. The weights that ship lose 0.2
and 0.6 dB on those of two validation chests, so that a network should have seen both."""
PATIENT_MM = 4.0
BEND_MM, LATTICE_MM, TURN_DEGREES, SIZE, AXIS = 5.0, 55.0, 3.0, 0.05, 0.04
LEAST_MM, LEAST_SHARE = 180.0, 0.72
"""Of the length that a crop keeps."""
AROUND = 0.7
"""Weight of the hull around the body, which has 1."""
BODY_WEIGHT = 0.9
"""More is body alone."""
PLANES, PEAK, DECAY, EVERY = 20, 3e-3, 0.5, 100
MIRRORED_SHARE = 0.5
INSIDE_STEPS, INSIDE_RATE, VOXELS, KEPT = 2500, 3e-3, 4096, 20_000
"""Steps that teach body from air, their first rate, voxels of a step, and voxels kept of a sample."""
BORDER = 0.2
"""Weight of the cross-entropy of body and air beside the squared error in the body."""


def patient(path: Path) -> Volume:
    """HU on 4 mm, air around the body."""
    scan = read_volume(path)
    alone = np.where(frame_body(scan).body, np.clip(scan.voxels, -1000, 1000), -1000).astype(np.int16)
    scan = Volume(alone, scan.ijk_to_ras)
    grid = working_grid(scan, PATIENT_MM)
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


def xrays_of(scan: Volume, voxel_mm: float = VOXEL_MM) -> tuple[Hull, XrayConsistency]:
    """What the AP and the lateral X-ray of a CT tell on voxels of such edges."""
    seen, setup = [], Setup(pixels=PIXELS)
    taken = Patient(Volume(np.rint(scan.voxels).astype(np.int16), scan.ijk_to_ras))
    for angles in parse_views("ap,lat"):
        assert angles is not None
        shot = taken.radiograph(from_angles(angles), setup, "digital")
        read = exposure(np.asarray(shot.picture.pixels), "attenuation")
        beam, pixels = binned(shot.beam, read.relative, voxel_mm)
        seen.append((beam, Exposure(pixels.astype(np.float32), read.free_scale, read.free_offset)))
    hull = hull_of([Shadow(beam, read.shadow()) for beam, read in seen], voxel_mm)
    views = [XrayView(beam, torch.from_numpy(read.relative).float()) for beam, read in seen]
    return hull, XrayConsistency(views, hull.grid, torch.from_numpy(hull.room))


@torch.no_grad()
def sample(scan: Volume, voxel_mm: float = VOXEL_MM) -> torch.Tensor:
    """(9, k, j, i) half: input of the network, HU / 1000 and weight, on 8 mm: all of the hull in the planes shown.

    Air between hull and body counts too, though the figures do not: what is put there is lacking in the body after
    consistency.
    """
    hull, consistency = xrays_of(scan, voxel_mm)
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


def mirrored(known: torch.Tensor) -> torch.Tensor:
    """Input (..., 7, k, j, i) of the network for the same body with right and left exchanged.

    The lateral X-ray is then one from the other side; of the places in the body's box only the last changes its sign.
    """
    turned = known.flip(-1)
    return torch.cat([turned[..., :-1, :, :, :], -turned[..., -1:, :, :, :]], -4)


def exchanged(row: torch.Tensor) -> torch.Tensor:
    """A sample with right and left exchanged."""
    return torch.cat([mirrored(row[:CHANNELS]), row[CHANNELS:].flip(-1)])


@torch.no_grad()
def judge(network: XrayRegression, row: torch.Tensor) -> tuple[float, float]:
    """PSNR (peak 2000 HU) in the body of a sample: of the estimate, and of its mean with that of the mirror image."""
    known = row[None, :CHANNELS].float()
    once = network(known)[0, 0].clamp(-1, 1)
    twice = (once + network(mirrored(known))[0, 0].flip(-1).clamp(-1, 1)) / 2
    truth, body = row[CHANNELS].float(), row[CHANNELS + 1] > BODY_WEIGHT
    errors = [float((image - truth)[body].square().mean()) for image in (once, twice)]
    return 10 * math.log10(4 / errors[0]), 10 * math.log10(4 / errors[1])


def train(
    network: XrayRegression, rows: list[torch.Tensor], steps: int, others: Sequence[torch.Tensor] = (), seed: int = 0
) -> XrayRegression:
    """The network with averaged weights.

    Args:
        others: samples of patients that only judge.
    """
    rng = np.random.default_rng(seed)
    network.requires_grad_(True).train()
    averaged = copy.deepcopy(network).eval()
    optimizer = torch.optim.AdamW(network.parameters(), PEAK, weight_decay=1e-2)
    smooth = float("nan")
    for step in range(steps):
        share = min(1, (step + 1) / 20) * min(1, (steps - step) / ((1 - DECAY) * steps))
        optimizer.param_groups[0]["lr"] = PEAK * share
        row = rows[rng.integers(len(rows))]
        first = int(rng.integers(max(1, row.shape[1] - PLANES)))
        row = row[:, first : first + PLANES].float()
        row = exchanged(row) if rng.random() < MIRRORED_SHARE else row
        loss = squared_error(network(row[None, :CHANNELS])[0, 0], row)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        kept = min(0.99, (step + 1) / (step + 10))
        with torch.no_grad():
            for old, new in zip(averaged.parameters(), network.parameters(), strict=True):
                old.lerp_(new, 1 - kept)
        smooth = float(loss.detach()) if step == 0 else 0.98 * smooth + 0.02 * float(loss.detach())
        if step % EVERY == EVERY - 1:
            judged = "; ".join(f"{once:.2f}, {twice:.2f}" for once, twice in (judge(averaged, row) for row in others))
            print(f"step {step + 1}, {10 * np.log10(4 / smooth):.2f} dB; others {judged}", flush=True)
    return averaged


def inside_of(row: torch.Tensor) -> torch.Tensor:
    """Share of the body in each voxel of a sample, (k, j, i).

    In the planes shown it is what the weights tell, in the others that of the CT on 8 mm.
    """
    room, weight = row[ROOM], row[CHANNELS + 1]
    whole = ((weight - AROUND) / (1 - AROUND)).clamp(0, 1)
    edge = (weight > (1 + AROUND) / 2).float() * room
    shown = torch.where(room > 0.99, whole, edge)
    other = torch.from_numpy(body_mask(1000 * row[CHANNELS].numpy())).float() * (room > 0.05)
    return torch.where((weight > AROUND / 2).any(-1).any(-1)[:, None, None], shown, other)


@torch.no_grad()
def inside_facts(network: XrayRegression, row: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the voxels in the hull of a sample: facts (n, 22), and HU / 1000 and share of the body (n, 2)."""
    row = row.float()
    facts, told = network.facts(row[None, :CHANNELS])[0], torch.stack([row[CHANNELS], inside_of(row)])
    room = row[ROOM] > 0.05
    return facts[:, room].T, told[:, room].T


def _pointwise(layers: nn.Sequential, facts: torch.Tensor) -> torch.Tensor:
    """Convolutions without neighbors on single voxels: (n, c) -> (n, c)."""
    for layer in layers:
        facts = (
            functional.linear(facts, layer.weight.flatten(1), layer.bias)
            if isinstance(layer, nn.Conv3d)
            else layer(facts)
        )
    return facts


def judge_inside(network: XrayRegression, facts: torch.Tensor, told: torch.Tensor) -> str:
    """PSNR in the body, of the expected image and of that within the body; Brier score of the body."""
    with torch.no_grad():
        found = _pointwise(network.inside, facts).T
    body = told[:, 1] > BODY_WEIGHT
    pair = facts[:, -1], (facts[:, -1] + found[0]).clamp(-1, 1)
    errors = [float((image - told[:, 0])[body].square().mean()) for image in pair]
    brier = float((found[1].sigmoid() - told[:, 1]).square().mean())
    return f"{10 * math.log10(4 / errors[0]):.2f}, {10 * math.log10(4 / errors[1]):.2f} dB, {brier:.4f}"


def train_inside(
    network: XrayRegression,
    rows: Sequence[torch.Tensor],
    others: Sequence[torch.Tensor] = (),
    steps: int = INSIDE_STEPS,
    seed: int = 0,
) -> None:
    """Teach the outputs that tell the body from air, all else kept as it is.

    Args:
        others: samples of patients that only judge.
    """
    chance = torch.Generator().manual_seed(seed)
    parts = []
    for row in rows:
        facts, told = inside_facts(network, row)
        some = torch.randperm(len(facts), generator=chance)[:KEPT]
        parts.append((facts[some].half(), told[some]))
    facts, told = (torch.cat(list(part)) for part in zip(*parts, strict=True))
    mean, spread = facts.float().mean(0), facts.float().std(0).clamp_min(1e-3)
    inside = network.inside.requires_grad_(True)
    torch.nn.init.zeros_(inside[-1].weight)
    torch.nn.init.zeros_(inside[-1].bias)
    optimizer = torch.optim.AdamW(inside.parameters(), INSIDE_RATE, weight_decay=1e-2)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = INSIDE_RATE * min(1, (step + 1) / 50) * (1 - step / steps)
        some = torch.randint(len(facts), (VOXELS,), generator=chance)
        known, (truth, body) = facts[some].float(), told[some].T
        alike = (known - mean) / spread
        found = _pointwise(inside, alike).T
        error = ((known[:, -1] + found[0] - truth).square() * body).sum() / body.sum().clamp_min(1)
        loss = error + BORDER * functional.binary_cross_entropy_with_logits(found[1], body)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():  # the network is given facts as they are
        first = inside[0]
        first.bias -= first.weight[:, :, 0, 0, 0] @ (mean / spread)
        first.weight /= spread[None, :, None, None, None]
    for row in others:
        print("body and air of others:", judge_inside(network, *inside_facts(network, row)), flush=True)


def samples_of(path: Path, count: int, keep: Path | None) -> list[torch.Tensor]:
    """The patient as he is and as others, from the folder as far as they are there."""
    rows: list[torch.Tensor] = []
    files = [None if keep is None else keep / f"{path.stem}_{n:02}.pt" for n in range(count)]
    scan = patient(path) if not all(file is not None and file.exists() for file in files) else None
    for n, file in enumerate(files):
        if file is not None and file.exists():
            rows.append(torch.load(file, weights_only=True))
            continue
        assert scan is not None
        body = another(scan, np.random.default_rng([sum(map(ord, path.stem)), n])) if n else scan
        rows.append(sample(body, VOXEL_MM if n < FINE else COARSE_MM))
        if file is not None:
            torch.save(rows[-1], file)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cts", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--validate", type=Path, nargs="*", default=[])
    parser.add_argument("--samples", type=int, default=7)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--initial", type=Path, help="weights to go on from")
    parser.add_argument("--keep", type=Path, help="folder in which samples are kept")
    options = parser.parse_args()
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    begun, rows = time.process_time(), []
    for path in options.cts:
        rows += samples_of(path, options.samples, options.keep)
        print(path.name, tuple(rows[-1].shape), flush=True)
    others = [samples_of(path, 1, options.keep)[0] for path in options.validate]
    torch.manual_seed(0)
    network = load_regression(options.initial) if options.initial else XrayRegression()
    network = train(network, rows, options.steps, others)
    train_inside(network, rows, others)
    facts = {"patients": len(options.cts), "samples": len(rows), "steps": options.steps, "inside": INSIDE_STEPS}
    digest = save_regression(options.output, network, {**facts, "seconds": round(time.process_time() - begun)})
    print(f"{options.output}: SHA-256 {digest}")


if __name__ == "__main__":
    main()
