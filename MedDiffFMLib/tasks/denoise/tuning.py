"""Tuning to the scan itself: the network's last layer is fitted anew to the noise and the tissue of one scan.

No clean image is needed. Noise with the spectrum that the scan was seen to have is added to some windows and, with the
opposite sign, taken from the targets, so that the two are independent: the squared distance of the denoised windows
from the targets is that from the truth and a constant (Recorrupted-to-Recorrupted, Pang et al. 2021, CVPR, which is
Noise2Noise of one image). Neighboring pixels or slices will not do as independent halves, for the noise of CT is shared
between them. What the last layer gives is linear in its weights, so the fit is least squares with a pull towards the
weights that are there: no learning rate, no steps.

Some columns of voxels are held out. Unless the whole denoiser comes nearer to their targets by more than chance, and
by some percent, the weights stay.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as functional
from torch import nn

from ...imaging.volume import Box
from .estimator import Estimator, LastPass

if TYPE_CHECKING:
    from ...conditioning.condition import Condition
    from ...core.progress import ProgressMeter

WINDOWS, EDGE = 8, 64
"""Windows that are fitted to at most, and their edges."""
ADDED = 0.5
"""Noise added to a window over its own; what is taken from the target is its inverse."""
PULLS = (1.0, 4.0)
"""Pull towards the present weights, over the mean square of the layer's inputs; the better one on held-out voxels."""
COLUMN, EVERY = 8, 4
"""Held out is one in four columns of 8 x 8 voxels."""
LOCAL = 10.0
"""Voxels over which the strength of the noise is measured in each place: it is stronger inside the patient."""
SURE = 2.0
"""Standard errors, from column to column, by which the held-out loss must fall."""
LEAST_GAIN = 3.0
"""Percent by which it must fall, too: on validation patients the small network gained 0.2 to 2.6 % and lost 0.2 dB."""
BLOCK = 8
"""Slices of the blocks in which the noise's spectrum is measured."""
SOFT = 0.3
"""Tissue that the denoiser as a whole is judged by, network range: beyond it edges of bone and air outweigh it."""
AIR = -0.9
"""Mean of some pixels, network range, below which nothing is fitted."""

TUNING_UNITS = WINDOWS * (3 + len(PULLS))
"""Units by which :func:`tune` advances its meter: pairs, fit, and the loss of every candidate."""


@dataclass(frozen=True)
class Tuned:
    """Outcome of tuning.

    Attributes:
        estimator: with the new last layer, or as it was.
        changed: whether the layer is new.
        gain: by how much the squared distance to the held-out targets fell, percent; below 0 where it rose.
    """

    estimator: Estimator
    changed: bool
    gain: float


@dataclass(frozen=True)
class Pair:
    """A window, noisier than the scan, and a target whose noise is independent of it; (1, 1, d, h, w) each.

    Attributes:
        sigma: noise level of the window.
    """

    noisy: torch.Tensor
    target: torch.Tensor
    condition: Condition
    sigma: float

    @property
    def held_out(self) -> torch.Tensor:
        """(d, h, w) bool."""
        import torch

        d, h, w = self.noisy.shape[2:]
        rows, columns = torch.meshgrid(torch.arange(h) // COLUMN, torch.arange(w) // COLUMN, indexing="ij")
        return ((rows + columns) % EVERY == 0).expand(d, h, w)


def tune(
    estimator: Estimator,
    noisy: torch.Tensor,
    sigma: float,
    condition: Condition,
    shares: tuple[float, float],
    seed: int,
    meter: ProgressMeter,
) -> Tuned:
    """Fit the estimator's last layer to ``noisy``, (1, 1, D, H, W) in the network's range.

    Args:
        sigma: level of its noise.
        shares: of thresholded blocks and of the detail given back, for the whole denoiser is what is judged.
        seed: the same seed gives the same weights.
        meter: advanced by :data:`TUNING_UNITS`; where a cancel is noticed.

    Raises:
        ModelError: the estimator's result is not linear in its last layer.
    """
    meter.stage = "tuning to the scan"
    pairs = list(_pairs(estimator, noisy, sigma, condition, seed, meter))
    matrix, right = _normal_equations(estimator, pairs, meter)
    candidates = []
    for pull in PULLS:
        ridge = pull * matrix.diagonal().mean() * torch.eye(len(matrix), dtype=matrix.dtype)
        layer = _changed(estimator.last_layer, torch.linalg.solve(matrix + ridge, right))
        candidates.append(estimator.with_last_layer(layer))
    before, *after = (_losses(one, pairs, shares, meter) for one in (estimator, *candidates))
    best = int(np.argmin([losses.sum() for losses in after]))
    gains = before - after[best]
    gain = float(100 * gains.sum() / before.sum())
    kept = gain >= LEAST_GAIN and gains.sum() > SURE * np.sqrt(len(gains)) * gains.std()
    meter.stage = "denoising"
    return Tuned(candidates[best] if kept else estimator, bool(kept), gain)


def _pairs(
    estimator: Estimator, noisy: torch.Tensor, sigma: float, condition: Condition, seed: int, meter: ProgressMeter
) -> Iterator[Pair]:
    """Pairs of the windows that hold most soft tissue."""
    boxes = _boxes(noisy[0, 0])
    generator = torch.Generator().manual_seed(seed)
    for box in boxes:
        meter.check()
        window, part = noisy[:, :, box[0], box[1], box[2]], condition.window(box)
        clean = estimator.denoise(window, sigma, part)[0, 0]
        extra = noise_like(window[0, 0], clean, sigma, generator)[None, None]
        yield Pair(window + ADDED * extra, window - extra / ADDED, part, sigma * (1 + ADDED**2) ** 0.5)
        meter.advance(WINDOWS / len(boxes))


def _boxes(noisy: torch.Tensor) -> list[Box]:
    """Windows side by side, those with most soft tissue."""
    axes = [_starts(n) for n in noisy.shape]
    boxes = [
        tuple(slice(s, min(s + EDGE, n)) for s, n in zip(corner, noisy.shape, strict=True))
        for corner in ((k, j, i) for k in axes[0] for j in axes[1] for i in axes[2])
    ]
    soft = [float((noisy[box].abs() < SOFT).float().mean()) for box in boxes]
    order = sorted(range(len(boxes)), key=lambda n: -soft[n])
    return [boxes[n] for n in sorted(order[:WINDOWS])]  # type: ignore[misc]


def _starts(length: int) -> list[int]:
    """First voxels of windows that do not overlap; the last ends with the image."""
    return [min(n, max(length - EDGE, 0)) for n in range(0, max(length - EDGE // 2, 1), EDGE)]


def noise_like(
    noisy: torch.Tensor, clean: torch.Tensor, sigma: float, generator: torch.Generator, depth: int = BLOCK
) -> torch.Tensor:
    """Noise (D, H, W) with the spectrum of what was removed, and as strong as that in each place; its level in all is
    ``sigma``."""
    from scipy.ndimage import gaussian_filter

    from .wiener import given_power, noise_power

    noise = given_power(torch.randn(noisy.shape, generator=generator), noise_power(noisy, clean, depth))
    soft = clean.abs() < SOFT
    squares = np.where(soft, np.square((noisy - clean).numpy()), 0)
    weight = np.maximum(gaussian_filter(soft.float().numpy(), LOCAL), 1e-3)
    noise *= torch.from_numpy(np.sqrt(gaussian_filter(squares, LOCAL) / weight))
    level = noise[soft].std() if soft.any() else noise.std()
    return noise * (sigma / level.clamp_min(1e-6))


def _normal_equations(
    estimator: Estimator, pairs: list[Pair], meter: ProgressMeter
) -> tuple[torch.Tensor, torch.Tensor]:
    """Matrix (n, n) and right side (n, outputs) of the least squares that the last layer's change solves, float64."""
    matrix, right = torch.zeros(()), torch.zeros(())
    for pair in pairs:
        last = estimator.last_pass(pair.noisy, pair.target, pair.sigma, pair.condition)
        wanted = _fitted(pair, last)
        depth, height, width = wanted.shape
        for k in range(depth):
            chosen = wanted[k].reshape(-1)
            rows = _patches(last.inputs, k)[:height, :width].flatten(0, 1)[chosen]
            matrix = matrix + (rows.T @ rows).double()
            missing = last.missing[:, k, :height, :width].flatten(1)
            right = right + (rows.T @ missing.T[chosen]).double()
        meter.advance(WINDOWS / len(pairs))
    return matrix, right


def _fitted(pair: Pair, last: LastPass) -> torch.Tensor:
    """(d, h, w) bool: places of the last layer all of whose voxels count, for they are neither held out nor air."""
    smooth = functional.avg_pool3d(pair.noisy, (1, 5, 5), 1, (0, 2, 2), count_include_pad=False)[0, 0]
    counts = ~pair.held_out & (smooth > AIR)
    return functional.max_pool3d((~counts)[None, None].float(), last.block)[0, 0] == 0


def _patches(inputs: torch.Tensor, k: int) -> torch.Tensor:
    """(h, w, 27 c + 1): what the convolution sees for each place of plane ``k``, and a 1 for its bias."""
    padded = functional.pad(inputs, (1, 1, 1, 1, 1, 1))[:, k : k + 3]
    rows = padded.unfold(2, 3, 1).unfold(3, 3, 1).permute(2, 3, 0, 1, 4, 5).flatten(2)  # of (c, 3, h, w, 3, 3)
    return torch.cat([rows, torch.ones(*rows.shape[:2], 1)], dim=2)


def _changed(layer: nn.Conv3d, change: torch.Tensor) -> nn.Conv3d:
    """A copy of the layer whose first outputs change."""
    own = copy.deepcopy(layer)
    assert own.bias is not None
    outputs = change.shape[1]
    weight, bias = change[:-1].T.reshape(outputs, *layer.weight.shape[1:]), change[-1]
    with torch.no_grad():
        own.weight[:outputs] += weight.to(own.weight)
        own.bias[:outputs] += bias.to(own.bias)
    return own


def _losses(estimator: Estimator, pairs: list[Pair], shares: tuple[float, float], meter: ProgressMeter) -> np.ndarray:
    """(n,) squared distances of the denoised pairs from their targets in soft tissue, of each held-out column."""
    from .blocks import block_depth
    from .combination import combined_planes

    losses = []
    for pair in pairs:
        clean = estimator.denoise(pair.noisy, pair.sigma, pair.condition)[0, 0]
        judged = pair.held_out & (clean.abs() < SOFT)
        depth = block_depth(pair.condition.spacing)
        result = torch.stack(list(combined_planes(pair.noisy[0, 0], clean, shares, depth=depth, alone=estimator.alone)))
        squares = torch.where(judged, (result - pair.target[0, 0]).square(), 0).sum(0)
        rows, columns = (torch.arange(n) // COLUMN for n in squares.shape)
        column = (rows[:, None] * (len(columns) // COLUMN + 1) + columns[None]).reshape(-1)
        held = torch.bincount(column, judged.any(0).reshape(-1)) > 0
        losses.append(torch.bincount(column, squares.reshape(-1))[held].numpy())
        meter.advance(WINDOWS / len(pairs))
    return np.concatenate(losses)
