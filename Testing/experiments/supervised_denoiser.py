"""Train the small denoiser (``Resources/Models/ct-denoiser.safetensors``) on CTs with simulated noise.

``python -m Testing.experiments.supervised_denoiser CT... -o FILE [--validate CASES] [--minutes 60]``: of each CT slabs
of 16 slices are taken as they are, with pixels averaged two by two, and with slices averaged in pairs; each gets a
field of noise that was added to its projections (ten seconds a slab). A step shows four pieces of 12 x 64 x 64 voxels
with noise of 6 to 90 HU: that of projections (as strong in each place as they make it), of a ramp filter, white, or
smooth by a random kernel and in a random place. The squared error counts most in soft tissue and is taken in units of
the noise. What the averaged weights gain over non-local means on the CASES of a JSON list
(``meddifffm evaluate --help``) is printed now and then, and they are written each time. 1.5 GB.

``--red-cnn`` trains that network (Chen et al. 2017, IEEE Transactions on Medical Imaging 36:2524), of 32 channels, on
the same pieces instead, as a baseline; it is not written.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from MedDiffFMLib.conditioning.region import body_mask
from MedDiffFMLib.evaluation.quality.added_noise import NoisyPart, added_noise, noisy_part, noisy_voxels, ramp_noise
from MedDiffFMLib.evaluation.quality.baselines.classical import non_local_means
from MedDiffFMLib.evaluation.quality.cases import load_case, read_cases
from MedDiffFMLib.evaluation.quality.degradations import Plan
from MedDiffFMLib.evaluation.quality.metrics import psnr
from MedDiffFMLib.imaging.io import read_volume
from MedDiffFMLib.inference.direct_convolution import convolve_directly
from MedDiffFMLib.networks.folded_unet import FoldedUNet
from MedDiffFMLib.preprocessing.noise_estimate import estimate_noise
from MedDiffFMLib.tasks.denoise.supervised import load_denoiser, save_denoiser, without_noise
from MedDiffFMLib.training.optimizers import make_optimizer

SLICES, DEPTH, EDGE, BATCH = 16, 12, 64, 4
FINE_MM, THIN_MM, LONG = 1.3, 1.6, 48
"""Pixels that are averaged two by two, slices that are averaged in pairs, and slices that a scan must have for it."""
PROJECTED_HU, LEVELS_HU, TOLD = (12.0, 60.0), (6.0, 90.0), 0.08
"""Levels of a slab's field and of a step, and the spread of what the network is told about the latter."""
BODY, SOFT_HU = 0.35, (-200.0, 300.0)
SHARES = (("projections", 0.35), ("ramp", 0.18), ("white", 0.24), ("smooth", 0.23))
BEND = 0.7
"""Power of the noise's level by which errors are divided: by less than all of it, so that quiet scans count less."""
RATE, RED_RATE, DECAY, WARM, AVERAGED = 2.5e-3, 1e-3, 1e-3, 50, 0.998
QUESTIONS = (("projections", "ramp", "white"), (15.0, 30.0, 60.0))


@dataclass(frozen=True)
class Slab:
    """Some slices of a CT.

    Attributes:
        clean: HU, int16 (k, j, i).
        noise: a field of projection noise of level 1, float16.
        body: bool.
        spacing: (i, j, k) in mm.
        weight: how often it is shown, over others.
    """

    clean: np.ndarray
    noise: np.ndarray
    body: np.ndarray
    spacing: tuple[float, float, float]

    @property
    def weight(self) -> float:
        pixel = max(self.spacing[:2])
        return float(self.body.sum()) ** 0.5 * (2 if pixel < FINE_MM else 0.5 if pixel > 3 else 1)


def slabs(path: Path, count: int, rng: np.random.Generator) -> Iterator[Slab]:
    """``count`` slabs of a CT as it is, and up to two of each coarser version."""
    scan = read_volume(path)
    voxels, (i, j, k) = np.clip(scan.voxels, -1024, 3071).astype(np.int16), scan.spacing
    versions = [(voxels, (i, j, k), count)]
    if max(i, j) < FINE_MM:
        versions.append((_averaged(voxels, (1, 2, 2)), (2 * i, 2 * j, k), min(count, 2)))
    if k < THIN_MM and max(i, j) < THIN_MM and len(voxels) > LONG:
        versions.append((_averaged(voxels, (2, 1, 1)), (i, j, 2 * k), min(count, 2)))
    for image, spacing, wanted in versions:
        for _ in range(wanted):
            first = int(rng.integers(0, max(len(image) - SLICES, 0) + 1))
            part = np.ascontiguousarray(image[first : first + SLICES])
            body = body_mask(part)
            if body.mean() < 0.02:
                continue
            level = float(np.exp(rng.uniform(*np.log(PROJECTED_HU))))
            noise = added_noise(part, spacing, body, "projections", level, int(rng.integers(1 << 30)))
            yield Slab(part, (noise / level).astype(np.float16), body, spacing)


def _averaged(voxels: np.ndarray, block: tuple[int, int, int]) -> np.ndarray:
    shape = [(n // b, b) for n, b in zip(voxels.shape, block, strict=True)]
    cut = voxels[tuple(slice(n * b) for n, b in shape)].astype(np.float32)
    means = cut.reshape([n for pair in shape for n in pair]).mean((1, 3, 5))
    return np.rint(means).astype(np.int16)


def piece(slab: Slab, rng: np.random.Generator) -> tuple[list[np.ndarray], tuple[float, float, float]]:
    """Noisy and clean HU / 1000 and weights, (12, 64, 64) each, and what the network is told."""
    size = (DEPTH, EDGE, EDGE)
    for _ in range(4):
        corner = [int(rng.integers(0, max(n - e, 0) + 1)) for n, e in zip(slab.clean.shape, size, strict=True)]
        box = tuple(slice(start, start + edge) for start, edge in zip(corner, size, strict=True))
        if slab.body[box].mean() > BODY:
            break
    clean = slab.clean[box].astype(np.float32)
    level = float(np.exp(rng.uniform(*np.log(LEVELS_HU))))
    noisy = np.clip(np.rint(clean + level * _noise(slab, box, rng)), -1024, 3071)
    soft = np.where(clean > SOFT_HU[0], np.where(clean < SOFT_HU[1], 1.0, 0.4), 0.25)
    arrays = [noisy / 1000, clean / 1000, soft * np.where(slab.body[box], 1, 0.3)]
    missing = [(0, edge - n) for n, edge in zip(clean.shape, size, strict=True)]
    arrays = [np.pad(array, missing, mode="symmetric").astype(np.float32) for array in arrays]
    arrays[2][len(clean) :] = 0
    for axis in range(3):
        if rng.random() < 0.5:
            arrays = [np.flip(array, axis) for array in arrays]
    if rng.random() < 0.5:
        arrays = [array.swapaxes(1, 2) for array in arrays]
    told = level * float(np.exp(rng.normal(0, TOLD)))
    i, j, k = slab.spacing
    return [np.ascontiguousarray(array) for array in arrays], (math.log(told / 1000), math.log(i * j) / 2, math.log(k))


def _noise(slab: Slab, box: tuple[slice, ...], rng: np.random.Generator) -> np.ndarray:
    """Noise of level 1 for a part of a slab."""
    kind = str(rng.choice([name for name, _ in SHARES], p=[share for _, share in SHARES]))
    own = slab.noise[box].astype(np.float32)
    depth, height, width = own.shape
    if kind == "projections":
        return own * float(np.exp(rng.normal(0, 0.1)))
    if kind == "white":
        return rng.standard_normal(own.shape, dtype=np.float32)
    if kind == "ramp":
        white = rng.standard_normal((depth, height + 24, width + 24), dtype=np.float32)
        return ramp_noise(white, slab.spacing)[:, :height, :width]
    white_share = rng.uniform(0, 0.5)
    mixed = math.sqrt(1 - white_share) * _smooth(own.shape, rng)
    mixed = mixed + math.sqrt(white_share) * rng.standard_normal(own.shape, dtype=np.float32)
    uneven = torch.from_numpy(rng.normal(0, 0.25, (1, 1, 2, 4, 4)).astype(np.float32))
    strength = functional.interpolate(uneven, size=own.shape, mode="trilinear", align_corners=True)[0, 0].exp()
    return mixed * strength.numpy()


def _smooth(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Noise of a random kernel, in two of five cases shared between neighboring slices; level 1."""
    depth, height, width = shape
    edge = 16  # the transform is periodic
    white = rng.standard_normal((depth, height + edge, width + edge), dtype=np.float32)
    frequency = 2 * np.hypot(np.fft.fftfreq(height + edge)[:, None], np.fft.rfftfreq(width + edge)[None])
    relative = np.minimum(frequency / rng.uniform(0.45, 1.1), 1)
    rise, fall = rng.uniform(0.2, 0.9), rng.uniform(0.5, 1.2)
    kernel = np.sqrt(0.02 + relative ** (2 * rise)) * np.clip(0.5 + 0.5 * np.cos(np.pi * relative), 0.02, 1) ** fall
    noise = np.fft.irfft2(np.fft.rfft2(white) * kernel, s=white.shape[1:])[:, :height, :width]
    if rng.random() < 0.4:
        shared = rng.uniform(0, 0.45)
        noise = noise + shared * np.roll(noise, 1, 0) + shared * np.roll(noise, -1, 0)
    return (noise / noise.std()).astype(np.float32)


class RedCNN(nn.Module):
    """Encoder and decoder of 5x5 convolutions, slice by slice; called as a :class:`FoldedUNet` is, and told nothing."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.down = nn.ModuleList(nn.Conv2d(1 if n == 0 else channels, channels, 5, padding=2) for n in range(5))
        self.up = nn.ModuleList(nn.ConvTranspose2d(channels, 1 if n == 4 else channels, 5, padding=2) for n in range(5))
        nn.init.zeros_(self.up[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.up[-1].bias)  # type: ignore[arg-type]

    def forward(self, noisy: torch.Tensor, facts: torch.Tensor) -> torch.Tensor:
        batch, _, depth, height, width = noisy.shape
        image = noisy.transpose(1, 2).reshape(batch * depth, 1, height, width)
        image = image.contiguous(memory_format=torch.channels_last)
        kept = [image]
        for number, layer in enumerate(self.down):
            image = functional.relu(layer(image))
            if number in (1, 3):
                kept.append(image)
        for number, layer in enumerate(self.up):
            image = layer(image)
            if number % 2 == 0:
                image = image + kept.pop()
            image = functional.relu(image) if number < 4 else image
        return image.reshape(batch, depth, 1, height, width).transpose(1, 2)


@dataclass(frozen=True)
class Question:
    """A noisy part of a validation case, and what non-local means make of it that are told the level, dB."""

    part: NoisyPart
    baseline: float

    def gain(self, network: nn.Module) -> float:
        """Of the network, told the estimated level, dB."""
        part = self.part
        spacing = part.clean.spacing[::-1]
        level = estimate_noise(part.noisy, spacing[2], spacing[0]) or part.told
        noisy = torch.from_numpy(part.noisy / 1000).float()
        clean = 1000 * without_noise(network, noisy, level / 1000, spacing).numpy()
        return psnr(clean[part.scored], part.clean.voxels[part.scored], part.body[part.scored]) - self.baseline


def questions(path: Path) -> dict[tuple[str, float], list[Question]]:
    """By kind and level of the noise."""
    asked: dict[tuple[str, float], list[Question]] = {}
    for case in read_cases(path):
        loaded = load_case(case, 96)
        for kind, level in ((kind, level) for kind in QUESTIONS[0] for level in QUESTIONS[1]):
            plan = Plan(noise_kinds=(kind,), noise_levels_hu=(level,), told_levels_hu=())
            part = noisy_part(loaded, plan, noisy_voxels(loaded, plan)["noisy"])
            means = non_local_means(part.noisy[part.scored], part.told)
            baseline = psnr(means, part.clean.voxels[part.scored], part.body[part.scored])
            asked.setdefault((kind, level), []).append(Question(part, baseline))
    return asked


def train(
    network: nn.Module, shown: Sequence[Slab], seconds: float, seed: int, rate: float
) -> Iterator[tuple[int, nn.Module]]:
    """Step by step until so much processor time has passed; gives steps and averaged weights."""
    rng = np.random.default_rng(seed)
    weights = np.array([slab.weight for slab in shown])
    average, step, start = copy.deepcopy(network), 0, time.process_time()
    optimizer = make_optimizer(network, "muon" if isinstance(network, FoldedUNet) else "adamw", rate, DECAY)
    while (share := (time.process_time() - start) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / WARM) * (0.5 + 0.5 * math.cos(math.pi * share))
        chosen = rng.choice(len(shown), BATCH, p=weights / weights.sum())
        arrays, facts = zip(*(piece(shown[n], rng) for n in chosen), strict=True)
        noisy, clean, weight = (torch.from_numpy(np.stack(part))[:, None] for part in zip(*arrays, strict=True))
        told = torch.tensor(facts, dtype=torch.float32)
        scale = told[:, 0].exp().view(-1, 1, 1, 1, 1) ** BEND * 0.03 ** (1 - BEND)
        loss = (weight * ((network(noisy, told) - clean) / scale).square()).sum() / weight.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        step += 1
        with torch.no_grad():
            for kept, now in zip(average.parameters(), network.parameters(), strict=True):
                kept.lerp_(now, 1 - min(AVERAGED, (step + 1) / (step + 10)))
        yield step, average


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scans", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--initial", type=Path, help="weights to go on from")
    parser.add_argument("--validate", type=Path, help="JSON list of cases")
    parser.add_argument("--red-cnn", action="store_true")
    parser.add_argument("--slabs", type=int, default=3, help="of each scan")
    parser.add_argument("--minutes", type=float, default=60.0, help="processor time of the steps")
    parser.add_argument("--every", type=int, default=1000, help="steps from one report to the next")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    shown = [slab for path in options.scans for slab in slabs(path, options.slabs, rng)]
    asked = questions(options.validate) if options.validate else {}
    network: nn.Module
    if options.red_cnn:
        network = RedCNN()
    else:
        network = load_denoiser(options.initial) if options.initial else FoldedUNet()
        network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        convolve_directly(network)
    network.train().requires_grad_()
    facts: dict[str, object] = {"scans": [path.name for path in options.scans], "slabs": len(shown)}

    def report(step: int, average: nn.Module) -> None:
        if isinstance(average, FoldedUNet):
            save_denoiser(options.output, average, {**facts, "steps": step})
        gains = {name: np.mean([one.gain(average) for one in rows]) for name, rows in asked.items()}
        print(step, {f"{kind} {level:g}": round(float(gain), 2) for (kind, level), gain in gains.items()}, flush=True)

    step, average = 0, network
    rate = RED_RATE if options.red_cnn else RATE
    for step, average in train(network, shown, 60 * options.minutes, options.seed, rate):
        if step % options.every == 0:
            report(step, average)
    report(step, average)


if __name__ == "__main__":
    main()
