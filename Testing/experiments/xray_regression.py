"""Train the regression of chest X-rays (``Resources/Models/chest-xrays.safetensors``) on CTs of chests.

``python -m Testing.experiments.xray_regression CT... -o FILE [--upper CT...] [--validate CT...] [--samples 9]
[--steps 500]``: each CT is taken as it is, and bent, scaled, turned, cropped and given other densities at random, of
those after ``--upper`` the planes that show the bases of the lungs alone; its AP and lateral X-rays are calculated. The
network of ``multimodal/xray_regression.py`` learns its HU on 8 mm and where its body ends, half of the time with right
and left exchanged: by the squared error in the body after X-rays were met (``xray_planes.py``), before and after the
refinement, and a little by that of each output. What the averaged weights make of other chests is printed on the way.
``--initial FILE`` goes on from weights. Needs 1 GB; a step of two samples takes a second of one core, a sample two to
six, which ``--keep FOLDER`` spares the next run.
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
    LEAST_ROOM,
    ROOM,
    XrayRegression,
    load_regression,
    mirrored,
    refined,
    regression_input,
    save_regression,
)
from MedDiffFMLib.training.optimizers import make_optimizer
from Testing.experiments.xray_planes import met_in_planes

VOXEL_MM, PIXELS = 4.0, 256
PATIENT_MM = 4.0
BEND_MM, LATTICE_MM, TURN_DEGREES, SIZE, AXIS = 6.0, 55.0, 4.0, 0.06, 0.05
LUNG_HU, SOFT_HU, BONE = 35.0, 15.0, 0.12
"""How differently lungs are filled, tissue takes up contrast medium, and bones are dense (in proportion)."""
UPPER_MM = 210.0
"""Of an abdomen whose upper planes show the lungs, what is kept."""
LEAST_MM, LEAST_SHARE = 180.0, 0.72
"""Of the length that a crop keeps."""
AROUND = 0.7
"""Weight of the hull around the body, which has 1."""
BODY_WEIGHT = 0.9
"""More is body alone."""
PLANES, PEAK, DECAY, EVERY = 20, 2e-3, 0.85, 50
"""Of a slab; the rate, by which part of the steps it falls to 0; and after how many of them others are judged."""
MIRRORED_SHARE, UPPER_CHANCE = 0.5, 0.6
MOST_PLANES = 36
"""By which a patient counts."""
WEIGHTS = torch.tensor([1.0, 0.4, 0.2, 0.1, 0.1, 0.1, 0.05])
"""Of :func:`losses`."""


def patient(path: Path) -> Volume:
    """HU on 4 mm, air around the body."""
    scan = read_volume(path)
    alone = np.where(frame_body(scan).body, np.clip(scan.voxels, -1000, 1000), -1000).astype(np.int16)
    scan = Volume(alone, scan.ijk_to_ras)
    grid = working_grid(scan, PATIENT_MM)
    return Volume(to_grid(scan, grid, fill=-1000).astype(np.float32), grid.ijk_to_ras)


def upper(scan: Volume) -> Volume:
    """The uppermost planes."""
    first = max(0, scan.voxels.shape[0] - round(UPPER_MM / scan.spacing[2]))
    matrix = scan.ijk_to_ras.copy()
    matrix[:3, 3] += first * matrix[:3, 2]
    return Volume(scan.voxels[first:], matrix)


def another(scan: Volume, rng: np.random.Generator) -> Volume:
    """A bent, scaled, turned and cropped body of other densities."""
    shape, edge = np.array(scan.voxels.shape), scan.spacing[2]
    keep = rng.uniform(max(LEAST_SHARE, min(1, LEAST_MM / (shape[0] * edge))), 1.0)
    low = rng.uniform(0, 1 - keep)
    scale = np.exp(rng.normal(0, SIZE) + rng.normal(0, AXIS, 3))
    turn = Rotation.from_euler("xyz", rng.normal(0, TURN_DEGREES, 3), degrees=True).as_matrix()
    bend = np.stack([_smooth(rng, shape, LATTICE_MM / edge) for _ in range(3)]) * (BEND_MM / edge)
    place = np.indices(shape).astype(np.float32) - ((shape - 1) / 2)[:, None, None, None]
    at = np.tensordot(turn / scale, place, 1) + bend + ((shape - 1) / 2)[:, None, None, None]
    hounsfield = _other_densities(map_coordinates(scan.voxels, at, order=1, mode="nearest"), rng)
    matrix, first = scan.ijk_to_ras.copy(), int(low * shape[0])
    matrix[:3, 3] += first * matrix[:3, 2]
    return Volume(hounsfield[first : int((low + keep) * shape[0])], matrix)


def _smooth(rng: np.random.Generator, shape: np.ndarray, between: float) -> np.ndarray:
    """Cubic spline over normal noise on knots so many voxels apart."""
    knots = [max(2, int(n / between) + 2) for n in shape]
    field = rng.normal(0, 1, knots)
    for axis, (n, count) in enumerate(zip(shape, knots, strict=True)):
        line = zoom(np.eye(count), (n / count, 1), order=3)
        field = np.moveaxis(np.tensordot(line, field, (1, axis)), 0, axis)
    return field


def _other_densities(hounsfield: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """HU by a rising curve that leaves air and fat as they are."""
    lung, soft = np.clip(rng.normal(0, (LUNG_HU, SOFT_HU)), -70, 70)
    bone = 1000 * min(1.0, 0.75 * float(np.exp(rng.normal(0, BONE))) + 0.25)
    told = [-1000, -870 + lung, -500 + lung, -110, 30 + soft, 250 + soft, max(bone, 400)]
    return np.interp(hounsfield, [-1000, -870, -500, -110, 30, 250, 1000], told).astype(np.float32)


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


def exchanged(row: torch.Tensor) -> torch.Tensor:
    """A sample with right and left exchanged."""
    return torch.cat([mirrored(row[:CHANNELS]), row[CHANNELS:].flip(-1)])


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


def with_body(row: torch.Tensor) -> torch.Tensor:
    """A sample and the share of the body in each voxel, (10, k, j, i)."""
    return torch.cat([row, inside_of(row.float())[None].to(row.dtype)])


@torch.no_grad()
def judge(network: XrayRegression, row: torch.Tensor) -> str:
    """PSNR (peak 2000 HU) in the body of a sample, of the refined image and after it met the X-rays; Brier score."""
    row = row.float()
    room = row[ROOM] > LEAST_ROOM
    truth, body = torch.where(room, row[CHANNELS], -1.0), row[CHANNELS + 1] > BODY_WEIGHT

    def met(image: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        return met_in_planes(image, inside, truth, room)

    image, logit = (part[0, 0] for part in refined(network, row[None, :CHANNELS], met))
    errors = [float((x - truth)[body].square().mean()) for x in (image.clamp(-1, 1), met(image, logit.sigmoid()))]
    brier = float((logit.sigmoid() - inside_of(row))[room].square().mean())
    return f"{10 * math.log10(4 / errors[0]):.2f}, {10 * math.log10(4 / errors[1]):.2f} dB, {brier:.4f}"


def slab(row: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """So many planes of a sample, half of the time mirrored: (10, PLANES, j, i)."""
    first = int(rng.integers(max(1, row.shape[1] - PLANES + 1)))
    part = row[:, first : first + PLANES].float()
    part = functional.pad(part, (0, 0, 0, 0, 0, PLANES - part.shape[1]))
    return exchanged(part) if rng.random() < MIRRORED_SHARE else part


def together(slabs: Sequence[torch.Tensor]) -> torch.Tensor:
    """Slabs of different width and depth in one batch, with air around; the lines that tell the place go on."""
    size = [max(part.shape[axis] for part in slabs) for axis in (2, 3)]
    padded = []
    for part in slabs:
        j, i = (whole - own for whole, own in zip(size, part.shape[2:], strict=True))
        around = (i // 2, i - i // 2, j // 2, j - j // 2)
        wide = functional.pad(part, around)
        lines = part[None, ROOM + 1 : CHANNELS]
        wide[ROOM + 1 : CHANNELS] = functional.pad(lines, (*around, 0, 0), mode="replicate")[0]
        padded.append(wide)
    return torch.stack(padded)


def losses(network: XrayRegression, batch: torch.Tensor) -> torch.Tensor:
    """(7,): squared errors in the body after X-rays were met, refined and not; of the refined image, of the one before,
    and of that of body and air; cross-entropy of body and air, refined and not."""
    room = batch[:, ROOM] > LEAST_ROOM
    truth = torch.where(room, batch[:, CHANNELS], -1.0)
    body = batch[:, CHANNELS + 2] * room
    shown = body * (batch[:, CHANNELS + 1] > AROUND / 2).flatten(2).any(2)[..., None, None]
    facts = network.facts(batch[:, :CHANNELS])
    image, logit = network.within(facts)
    met = met_in_planes(image[:, 0], logit[:, 0].sigmoid(), truth, room)
    change = network.refine(facts, image, logit.sigmoid(), met[:, None])
    better, surer = image + change[:, :1], logit + change[:, 1:]
    met_again = met_in_planes(better[:, 0], surer[:, 0].sigmoid(), truth, room)

    def error(found: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return ((found - batch[:, CHANNELS]).square() * weight).sum() / weight.sum().clamp_min(1)

    def border(found: torch.Tensor) -> torch.Tensor:
        return functional.binary_cross_entropy_with_logits(found[:, 0][room], body[room].clamp(0, 1))

    return torch.stack(
        [
            error(met_again, shown), error(met, shown), error(better[:, 0], body), error(image[:, 0], body),
            error(facts[:, -1], batch[:, CHANNELS + 1]), border(surer), border(logit),
        ]
    )  # fmt: skip


def chances(rows: Sequence[torch.Tensor], patients: Sequence[str], upper: Sequence[str] = ()) -> np.ndarray:
    """Of each sample to be drawn: a patient counts by his planes, whatever the number of his samples."""
    chance = np.zeros(len(rows))
    for patient_name in set(patients):
        own = [n for n, name in enumerate(patients) if name == patient_name]
        planes = np.mean([min(rows[n].shape[1], MOST_PLANES) for n in own])
        chance[own] = planes / len(own) * (UPPER_CHANCE if patient_name in upper else 1.0)
    return chance / chance.sum()


def train(
    network: XrayRegression,
    rows: Sequence[torch.Tensor],
    steps: int,
    others: Sequence[torch.Tensor] = (),
    chance: np.ndarray | None = None,
    rate: float = PEAK,
    seed: int = 0,
) -> XrayRegression:
    """The network with averaged weights.

    Args:
        others: samples of patients that only judge.
        chance: of :func:`chances`; None for all alike.
        rate: at most.
    """
    rng = np.random.default_rng(seed)
    rows = [with_body(row) for row in rows]
    network.requires_grad_(True).train()
    averaged = copy.deepcopy(network).eval()
    optimizer = make_optimizer(network, "muon", rate, 1e-2)
    smooth = None
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 30) * min(1, (steps - step) / (DECAY * steps))
        # two at a time: PyTorch calculates small convolutions of a batch several times faster than of one
        batch = together([slab(rows[rng.choice(len(rows), p=chance)], rng) for _ in range(2)])
        parts = losses(network, batch)
        optimizer.zero_grad()
        (parts * WEIGHTS).sum().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        kept = min(0.99, (step + 1) / (step + 10))
        with torch.no_grad():
            for old, new in zip(averaged.parameters(), network.parameters(), strict=True):
                old.lerp_(new, 1 - kept)
        told = parts.detach().numpy()
        smooth = told if smooth is None else 0.98 * smooth + 0.02 * told
        if step % EVERY == EVERY - 1:
            judged = "; ".join(judge(averaged, row) for row in others)
            print(f"step {step + 1}, {np.round(10 * np.log10(4 / smooth[:5]), 2)} dB; others {judged}", flush=True)
    return averaged


def samples_of(path: Path, count: int, keep: Path | None, lungs_alone: bool = False) -> list[torch.Tensor]:
    """The patient as he is and as others, from the folder as far as they are there."""
    rows: list[torch.Tensor] = []
    files = [None if keep is None else keep / f"{path.stem}_{n:02}.pt" for n in range(count)]
    scan = patient(path) if not all(file is not None and file.exists() for file in files) else None
    scan = upper(scan) if scan is not None and lungs_alone else scan
    for n, file in enumerate(files):
        if file is not None and file.exists():
            rows.append(torch.load(file, weights_only=True))
            continue
        assert scan is not None
        body = another(scan, np.random.default_rng([sum(map(ord, path.stem)), n])) if n else scan
        rows.append(sample(body))
        if file is not None:
            torch.save(rows[-1], file)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cts", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--upper", type=Path, nargs="*", default=[], help="abdomens whose upper planes show lungs")
    parser.add_argument("--validate", type=Path, nargs="*", default=[])
    parser.add_argument("--samples", type=int, default=9)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--initial", type=Path, help="weights to go on from")
    parser.add_argument("--keep", type=Path, help="folder in which samples are kept")
    options = parser.parse_args()
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    begun = time.process_time()
    rows: list[torch.Tensor] = []
    patients: list[str] = []
    for path in [*options.cts, *options.upper]:
        found = samples_of(path, options.samples, options.keep, path in options.upper)
        rows, patients = rows + found, patients + [path.stem] * len(found)
        print(path.name, tuple(found[-1].shape), flush=True)
    others = [samples_of(path, 1, options.keep)[0] for path in options.validate]
    torch.manual_seed(0)
    network = load_regression(options.initial) if options.initial else XrayRegression()
    chance = chances(rows, patients, [path.stem for path in options.upper])
    network = train(network, rows, options.steps, others, chance)
    facts = {"patients": len(set(patients)), "samples": len(rows), "steps": options.steps}
    digest = save_regression(options.output, network, {**facts, "seconds": round(time.process_time() - begun)})
    print(f"{options.output}: SHA-256 {digest}")


if __name__ == "__main__":
    main()
