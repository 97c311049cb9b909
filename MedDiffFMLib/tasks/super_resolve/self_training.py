"""Self-training: a small network learns the detail of one scan within its slices, and gives it across them.

Within slices a scan is as fine as its thin slices shall be. So its own planes are averaged along one axis, as thick
slices average along theirs, and a two-dimensional network learns the way back (SMORE, Zhao et al. 2021, IEEE
Transactions on Medical Imaging 40:805; SR4ZCT does so for CT). No other image is needed. Some slices are held out:
there it is seen whether, and by which weight, its detail comes nearer to the truth than what the prior gives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as functional
from torch import nn

from ...core.errors import InputError
from ...core.precision import autocast
from ...imaging.slice_averaging import Factors, average_blocks, smooth_blocks
from ...imaging.volume import Box

if TYPE_CHECKING:
    from ...core.progress import ProgressMeter

WIDTH = 32
STEPS, BATCH, PATCH = 600, 16, 48
"""Steps of training, patches in each, and their edge in voxels."""
RATE = 2e-3
SLICES, HELD_OUT, HELD_EDGE = 48, 8, 160
"""Slices that are learned from at most, those of them that are held out, and voxels across of the part that is."""
SURE = 2.0
"""Standard errors, from slice to slice, by which the held-out error must fall."""
MOST = 0.7
"""Weight at most: held-out slices are of the kind that was learned from, and the prior knows others better."""
SCALE = 0.1
"""Detail that the network gives as 1, network range."""
AIR = -0.9
TUNING_UNITS = 10
"""Units by which :func:`self_train` advances its meter."""

Untuned = Callable[[torch.Tensor, Factors, Factors, Box], torch.Tensor]
"""(smooth curves (D, H, W), voxels of the fine grid in one of theirs, factors that were averaged, their place) -> what
the prior adds (D, H, W)."""


@dataclass(frozen=True)
class SelfTrained:
    """Outcome of self-training.

    Attributes:
        network: gives the detail of planes (n, 2, H, W) whose rows were averaged.
        weight: of its detail in the mean with the prior's; 0 where nothing is gained.
        gain: by how much the squared error on held-out slices fell with the best weight, percent.
    """

    network: nn.Module
    weight: float
    gain: float


@dataclass(frozen=True)
class Pairs:
    """Slices that were averaged along an axis.

    Attributes:
        along: that axis.
        pool: voxels of the fine grid in one of these, along each axis.
        factors: how many were averaged, along each axis.
        guess: smooth curves with the averages, (D, H, W).
        target: the slices, (D, H, W).
    """

    along: int
    pool: Factors
    factors: Factors
    guess: torch.Tensor
    target: torch.Tensor


def self_train(
    thick: torch.Tensor,
    axis: int,
    factor: int,
    spacing: tuple[float, float, float],
    untuned: Untuned,
    seed: int,
    meter: ProgressMeter,
    device: torch.device,
    precision: torch.dtype,
) -> SelfTrained:
    """Learn from the slices of ``thick``, (D, H, W) in the network's range, that lie across ``axis``.

    Args:
        factor: thin slices in a thick one.
        spacing: of the fine grid, (k, j, i) in mm.
        untuned: what the result is without this.
        seed: the same seed gives the same network.
        meter: advanced by :data:`TUNING_UNITS`; where a cancel is noticed.

    Raises:
        InputError: pixels are larger than the thin slices are apart, or there are too few of them or of slices.
    """
    pairs = [_pairs(thick, axis, along, factor, spacing) for along in range(3) if along != axis]
    learned, held = _split(thick, axis)
    sources = [
        (_rows_first(pair.guess, axis, pair.along)[learned], _rows_first(pair.target, axis, pair.along)[learned])
        for pair in pairs
    ]
    network = _train(sources, factor, seed, meter, device, precision)
    errors, changes = [], []
    for pair in pairs:
        box = _held_box(pair, axis, held, factor)
        guess = pair.guess[box]
        given = untuned(guess, pair.pool, pair.factors, box)
        own = _detail(network, _rows_first(guess, axis, pair.along), factor, device, precision)
        own = _rows_back(own, axis, pair.along)
        errors.append((pair.target[box] - guess - given).movedim(axis, 0).flatten(1))
        changes.append((own - given).movedim(axis, 0).flatten(1))
    meter.advance(1)
    return SelfTrained(network, *_weight(errors, changes))


def across_slices(
    network: nn.Module,
    guess: torch.Tensor,
    axis: int,
    factor: int,
    device: torch.device,
    precision: torch.dtype,
) -> torch.Tensor:
    """The network's detail for smooth curves (D, H, W) across slices; the mean over planes of both directions."""
    total = torch.zeros_like(guess)
    for across in (n for n in range(3) if n != axis):
        found = _detail(network, _rows_first(guess, across, axis), factor, device, precision)
        total += _rows_back(found, across, axis) / 2
    return total


def _pairs(thick: torch.Tensor, axis: int, along: int, factor: int, spacing: tuple[float, float, float]) -> Pairs:
    """Slices averaged along an axis; before, so many pixels in one as are as long as a thin slice."""
    pixels = round(spacing[axis] / spacing[along])
    if pixels < 1 or thick.shape[along] < 4 * factor * pixels or thick.shape[axis] < 4:
        raise InputError(
            "Tuning learns from the scan's own slices, and these are too few, too small, or coarser than thin slices "
            "are apart.",
            "Run without tuning.",
        )
    length = factor * pixels
    target = thick.narrow(along, 0, thick.shape[along] // length * length)
    pool, factors = (tuple(n if a == along else 1 for a in range(3)) for n in (pixels, factor))
    fine = average_blocks(target.numpy(), pool)  # type: ignore[arg-type]
    guess = smooth_blocks(average_blocks(fine, factors), factors)  # type: ignore[arg-type]
    whole = tuple(factor if a == axis else n for a, n in enumerate(pool))
    return Pairs(along, whole, factors, torch.from_numpy(guess), torch.from_numpy(fine))  # type: ignore[arg-type]


def _split(thick: torch.Tensor, axis: int) -> tuple[torch.Tensor, slice]:
    """Numbers of the slices that are learned from, and those that are held out in the middle of them."""
    body = (thick > AIR).movedim(axis, 0).flatten(1).float().mean(1)
    count = min(SLICES, len(body))
    first = int(body.unfold(0, count, 1).sum(1).argmax())
    held = min(HELD_OUT, count // 4)
    middle = slice(first + (count - held) // 2, first + (count - held) // 2 + held)
    return torch.tensor([n for n in range(first, first + count) if not middle.start <= n < middle.stop]), middle


def _held_box(pair: Pairs, axis: int, held: slice, factor: int) -> Box:
    """The middle of the slices that are held out; whole blocks."""
    box = []
    for n, length in enumerate(pair.guess.shape):
        edge = min(HELD_EDGE, length) // factor * factor
        start = (length - edge) // 2 // factor * factor
        box.append(held if n == axis else slice(start, start + edge))
    return box[0], box[1], box[2]


def _weight(errors: list[torch.Tensor], changes: list[torch.Tensor]) -> tuple[float, float]:
    """Weight of the network's detail and by how much, percent, the squared error falls; from (slices, voxels) each."""
    error = sum((e * c).sum() for e, c in zip(errors, changes, strict=True))
    square = sum(c.square().sum() for c in changes)
    weight = float((error / max(float(square), 1e-12)).clamp(0, MOST))  # type: ignore[union-attr]
    falls = torch.cat(
        [e.square().sum(1) - (e - weight * c).square().sum(1) for e, c in zip(errors, changes, strict=True)]
    )
    before = sum(float(e.square().sum()) for e in errors)
    sure = len(falls) > 1 and falls.sum() > SURE * len(falls) ** 0.5 * falls.std()
    return weight if sure else 0.0, 100 * float(falls.sum()) / max(before, 1e-12)


def _rows_first(image: torch.Tensor, plane: int, rows: int) -> torch.Tensor:
    """(D, H, W) -> planes across an axis, (n, H, W), with rows along another."""
    return image.movedim((plane, rows), (0, 1))


def _rows_back(planes: torch.Tensor, plane: int, rows: int) -> torch.Tensor:
    return planes.movedim((0, 1), (plane, rows))


def _network() -> nn.Sequential:
    """2-D convolutions over image and position; dilated along the rows, since thick slices are long there."""

    def layer(inputs: int, outputs: int, dilation: int) -> nn.Conv2d:
        return nn.Conv2d(inputs, outputs, 3, padding=(dilation, 1), dilation=(dilation, 1), padding_mode="replicate")

    layers: list[nn.Module] = [layer(2, WIDTH, 1), nn.ReLU()]
    for _ in range(3):
        layers += [layer(WIDTH, WIDTH, 2), nn.ReLU()]
    last = layer(WIDTH, 1, 1)
    nn.init.zeros_(last.weight)
    return nn.Sequential(*layers, last)


def _train(
    sources: list[tuple[torch.Tensor, torch.Tensor]],
    factor: int,
    seed: int,
    meter: ProgressMeter,
    device: torch.device,
    precision: torch.dtype,
) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network().to(device)
    optimizer = torch.optim.AdamW(network.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS)
    for _ in range(STEPS):
        guess, target = (part.to(device) for part in _patches(sources, factor, generator))
        with autocast(device, precision):
            found = network(_with_position(guess, factor))[:, 0]
        loss = ((target - guess) / SCALE - found.float()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        meter.advance((TUNING_UNITS - 1) / STEPS)
    return network.eval().requires_grad_(False)


def _patches(
    sources: list[tuple[torch.Tensor, torch.Tensor]], factor: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Patches (B, h, w) of guess and target that begin with a thick slice, flipped at random."""

    def draw(count: int) -> int:
        return int(torch.randint(count, (), generator=generator))

    guess, target = sources[draw(len(sources))]
    count, rows, columns = guess.shape
    height, width = min(PATCH // factor, rows // factor) * factor, min(PATCH, columns)
    taken = []
    for _ in range(BATCH):
        row, column = factor * draw((rows - height) // factor + 1), draw(columns - width + 1)
        place = (draw(count), slice(row, row + height), slice(column, column + width))
        flips = [axis for axis in (0, 1) if draw(2)]
        taken.append(torch.stack([guess[place], target[place]]).flip([axis + 1 for axis in flips]))
    guesses, targets = torch.stack(taken, dim=1)
    return guesses, targets


def _with_position(planes: torch.Tensor, factor: int) -> torch.Tensor:
    """(n, 2, H, W): planes, and where in its thick slice each row lies, -1 to 1."""
    line = (2 * (torch.arange(planes.shape[1], device=planes.device) % factor) + 1) / factor - 1
    return torch.stack([planes, line[None, :, None].expand_as(planes)], dim=1)


@torch.inference_mode()
def _detail(
    network: nn.Module, planes: torch.Tensor, factor: int, device: torch.device, precision: torch.dtype
) -> torch.Tensor:
    """Detail (n, H, W) of planes whose rows were averaged: its own averages are 0."""
    found = torch.empty(planes.shape)
    for n in range(len(planes)):
        with autocast(device, precision):
            one = network(_with_position(planes[n : n + 1].to(device), factor)).float()
        means = functional.avg_pool2d(one, (factor, 1)).repeat_interleave(factor, 2)
        found[n] = SCALE * (one - means)[0, 0].cpu()
    return found
