"""Thin slices learned from the scan itself: its slices are sharp where the gaps between them are not.

Within a slice both directions are finely sampled. So a slice is averaged along one of them as thickness averages the
scan along the other axis, and a small network learns the way back; then it is shown the scan along the thick axis, from
both sides, and the answers are averaged. That the fine directions of one scan teach its coarse one is the idea of SMORE
(Zhao et al. 2021, IEEE Transactions on Medical Imaging 40:805) and of SR4ZCT (arXiv 2404.02872).

The network sees thick voxels and answers with the detail of each, ``factor`` thin voxels less the smooth curve, whose
mean it takes away: averages over the thick voxels are kept exactly, and it works on images that are ``factor`` times
smaller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as functional
from torch import nn

from ...imaging.slice_averaging import Factors, average_blocks, smooth_blocks

if TYPE_CHECKING:
    from ...core.progress import ProgressMeter

CHANNELS, DEPTH = 32, 4
STEPS, BATCH = 800, 16
PATCH = (16, 96)
"""Thick voxels along the averaged direction, and voxels along the other."""
RATE, WARMUP = 2e-3, 30
HELD_OUT = 8
"""One slice in so many is not learned from; the network is used if it errs less there."""
SURE = 2.0
"""Standard errors, from slice to slice, by which it must err less."""
UNLIKE = 1.25
"""Voxels within a slice may differ from the thin ones that are wished for, and from each other, by this factor."""
LEAST_THICK = 4
"""Thick voxels that an averaged slice must have."""
AT_ONCE = 16


@dataclass(frozen=True)
class SelfTrained:
    """Outcome.

    Attributes:
        detail: float32, the shape of the thin volume, HU to add to the smooth curve; None where that errs less.
        gain: decibels over the smooth curve in the slices held out.
    """

    detail: np.ndarray | None
    gain: float


class DetailNetwork(nn.Module):
    """(N, 1, thick, width) thick voxels, in 1000 HU -> (N, 1, factor * thick, width) detail, 0 on their average."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, CHANNELS, (5, 7), padding=(2, 3))
        self.body = nn.ModuleList([nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1) for _ in range(DEPTH)])
        self.last = nn.Conv2d(CHANNELS, factor, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        if self.last.bias is not None:
            nn.init.zeros_(self.last.bias)

    def forward(self, thick: torch.Tensor) -> torch.Tensor:
        """See the class."""
        x = functional.silu(self.first(thick))
        for layer in self.body:
            x = x + functional.silu(layer(x))
        detail = self.last(x)
        detail = detail - detail.mean(1, keepdim=True)
        count, factor, rows, columns = detail.shape
        return detail.permute(0, 2, 1, 3).reshape(count, 1, factor * rows, columns)


@dataclass(frozen=True)
class _Lessons:
    """Slices averaged along one of their directions, in 1000 HU.

    Attributes:
        thick: (slices, rows, columns), the averages over ``factor`` voxels along the rows.
        detail: (slices, factor * rows, columns), what the slices have over the smooth curve through those.
    """

    thick: np.ndarray
    detail: np.ndarray


def hindrance(spacing_kji: tuple[float, ...], factors: Factors, shape: tuple[int, ...]) -> str:
    """Why a scan of such voxels cannot teach itself, as a sentence; empty where it can.

    Args:
        spacing_kji: mm, of the thick voxels.
        factors: of which one is above 1, for slices; shape: (k, j, i) of the thick volume.
    """
    thick = [axis for axis, factor in enumerate(factors) if factor > 1]
    if len(thick) != 1:
        return "Only thin slices can be learned from the scan itself, not halved voxels."
    wished = spacing_kji[thick[0]] / factors[thick[0]]
    within = [edge for axis, edge in enumerate(spacing_kji) if axis != thick[0]]
    if any(not 1 / UNLIKE <= edge / wished <= UNLIKE for edge in within):
        edges = " x ".join(f"{edge:.2g}" for edge in within)
        return f"Voxels of {edges} mm within the slices do not show what slices of {wished:.2g} mm look like."
    if any(n < LEAST_THICK * factors[thick[0]] for axis, n in enumerate(shape) if axis != thick[0]):
        return "The slices are too small to learn from."
    return ""


def learn_from_itself(
    thick: np.ndarray, factors: Factors, seed: int, device: torch.device, meter: ProgressMeter
) -> SelfTrained:
    """Train on the slices of a scan, and apply it across them.

    Args:
        thick: (k, j, i) HU, of which :func:`hindrance` has nothing to say.
        factors: see there.
        seed: the same seed gives the same result on the same machine.
        meter: advanced by 1 in all; where a cancel is noticed.
    """
    axis = int(np.argmax(factors))
    slices = np.ascontiguousarray(np.moveaxis(thick, axis, 0), np.float32) / 1000
    lessons = [_lessons(slices, factors[axis]), _lessons(slices.transpose(0, 2, 1), factors[axis])]
    held_out = np.arange(len(slices)) % HELD_OUT == HELD_OUT // 2
    network = _trained(lessons, held_out, factors[axis], seed, device, meter)
    before, after = (np.concatenate(errors) for errors in zip(*_errors(network, lessons, held_out), strict=True))
    less = before - after
    gain = float(10 * np.log10(before.sum() / max(after.sum(), 1e-12)))
    if len(less) < 2 or less.sum() <= SURE * np.sqrt(len(less)) * less.std():
        meter.advance(0.2)
        return SelfTrained(None, gain)
    detail = _across(network, slices, factors[axis], meter)
    return SelfTrained(np.ascontiguousarray(np.moveaxis(detail, 0, axis)), gain)


def _lessons(slices: np.ndarray, factor: int) -> _Lessons:
    """Of slices (n, rows, columns) averaged along their rows."""
    whole = np.ascontiguousarray(slices[:, : slices.shape[1] // factor * factor])
    thick = average_blocks(whole, (1, factor, 1))
    return _Lessons(thick, whole - smooth_blocks(thick, (1, factor, 1)))


def _trained(
    lessons: list[_Lessons],
    held_out: np.ndarray,
    factor: int,
    seed: int,
    device: torch.device,
    meter: ProgressMeter,
) -> DetailNetwork:
    """The network after all steps, on patches of the slices that are not held out."""
    random = np.random.default_rng(seed)
    learned = np.flatnonzero(~held_out)
    edges = np.minimum(PATCH, np.min([lesson.thick.shape[1:] for lesson in lessons], axis=0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = DetailNetwork(factor)
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda n: min(1.0, (n + 1) / WARMUP) * 0.5 * (1 + np.cos(np.pi * n / STEPS))
    )
    with torch.enable_grad(), torch.inference_mode(False):
        for _ in range(STEPS):
            meter.advance(0.8 / STEPS, "learning from the scan's own slices")
            pairs = [_patch(lessons[random.integers(2)], learned, edges, random) for _ in range(BATCH)]
            seen, wanted = (torch.from_numpy(np.stack(part))[:, None].to(device) for part in zip(*pairs, strict=True))
            loss = functional.mse_loss(network(seen.contiguous(memory_format=torch.channels_last)), wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval().requires_grad_(False)


def _patch(
    lessons: _Lessons, learned: np.ndarray, edges: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Thick voxels and the detail of a part of a slice, perhaps mirrored."""
    n, (rows, columns) = random.choice(learned), edges
    row, column = (random.integers(size - edge + 1) for edge, size in zip(edges, lessons.thick.shape[1:], strict=True))
    factor = lessons.detail.shape[1] // lessons.thick.shape[1]
    thick = lessons.thick[n, row : row + rows, column : column + columns]
    detail = lessons.detail[n, row * factor : (row + rows) * factor, column : column + columns]
    if random.random() < 0.5:
        thick, detail = thick[::-1], detail[::-1]
    if random.random() < 0.5:
        thick, detail = thick[:, ::-1], detail[:, ::-1]
    return thick.copy(), detail.copy()


def _errors(
    network: DetailNetwork, lessons: list[_Lessons], held_out: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mean square errors of the smooth curve and of the network in each slice that is held out."""
    found = []
    for lesson in lessons:
        detail = lesson.detail[held_out]
        answer = _answers(network, lesson.thick[held_out])
        found.append(tuple((error**2).mean(axis=(1, 2)) for error in (detail, detail - answer)))
    return [(before, after) for before, after in found]


def _across(network: DetailNetwork, slices: np.ndarray, factor: int, meter: ProgressMeter) -> np.ndarray:
    """Detail in HU, (factor * slices, rows, columns): the mean of the answers from both sides."""
    count, rows, columns = slices.shape
    detail = np.empty((factor * count, rows, columns), np.float32)
    share = 0.1 * AT_ONCE / np.array([rows, columns])
    for first in range(0, rows, AT_ONCE):
        part = slice(first, first + AT_ONCE)
        detail[:, part] = 500 * _answers(network, slices[:, part].transpose(1, 0, 2)).transpose(1, 0, 2)
        meter.advance(share[0], "making thin slices")
    for first in range(0, columns, AT_ONCE):
        part = slice(first, first + AT_ONCE)
        detail[:, :, part] += 500 * _answers(network, slices[:, :, part].transpose(2, 0, 1)).transpose(1, 2, 0)
        meter.advance(share[1], "making thin slices")
    return detail


def _answers(network: DetailNetwork, images: np.ndarray) -> np.ndarray:
    """(n, thick, width) -> (n, thin, width), in 1000 HU."""
    device = network.last.weight.device
    with torch.inference_mode():
        parts = [
            network(torch.from_numpy(np.ascontiguousarray(images[n : n + AT_ONCE]))[:, None].to(device))[:, 0].cpu()
            for n in range(0, len(images), AT_ONCE)
        ]
        return torch.cat(parts).numpy()
