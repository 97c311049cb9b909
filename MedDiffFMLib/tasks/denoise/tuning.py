"""Tuning to the scan itself: the network's last layer is fitted anew to the noise and the tissue of one scan.

No clean image is needed. Noise with the spectrum that the scan was seen to have is added to some windows and, with the
opposite sign, taken from the targets, so that the two are independent: the squared distance of the denoised windows
from the targets is that from the truth and a constant (Recorrupted-to-Recorrupted, Pang et al. 2021, CVPR, which is
Noise2Noise of one image). Neighboring pixels or slices will not do as independent halves, for the noise of CT is shared
between them. What the last layer gives is linear in its weights, so the fit is least squares with a pull towards the
weights that are there: no learning rate, no steps.

Some columns of voxels are held out. Unless the whole denoiser comes nearer to their targets by more than chance, the
weights stay.
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

from ...core.errors import ModelError
from ...imaging.volume import Box

if TYPE_CHECKING:
    from ...conditioning.condition import Condition
    from ...core.progress import ProgressMeter
    from ...inference.engine import Engine

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
BLOCK = 8
"""Slices of the blocks in which the noise's spectrum is measured."""
SOFT = 0.3
"""Tissue that the denoiser as a whole is judged by, network range: beyond it edges of bone and air outweigh it."""


TUNING_UNITS = WINDOWS * (3 + len(PULLS))
"""Units by which :func:`tune` advances its meter: pairs, fit, and the loss of every candidate."""


@dataclass(frozen=True)
class Tuned:
    """Outcome of tuning.

    Attributes:
        denoiser: with the new last layer, for the last pass; None where the weights stay.
        gain: by how much the squared distance to the held-out targets fell, percent; below 0 where it rose.
    """

    denoiser: nn.Module | None
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
    engine: Engine,
    noisy: torch.Tensor,
    sigma: float,
    condition: Condition,
    shares: tuple[float, float],
    seed: int,
    meter: ProgressMeter,
) -> Tuned:
    """Fit the last layer of the engine's denoiser to ``noisy``, (1, 1, D, H, W) in the network's range.

    Args:
        sigma: level of its noise.
        shares: of thresholded blocks and of the detail given back, for the whole denoiser is what is judged.
        seed: the same seed gives the same weights.
        meter: advanced by :data:`TUNING_UNITS`; where a cancel is noticed.

    Raises:
        ModelError: the denoiser is none of EDM's, whose output is not linear in the last layer in this way.
    """
    from ...diffusion.denoiser import EDMDenoiser

    if not isinstance(engine.denoiser, EDMDenoiser):
        raise ModelError(
            "This model cannot be tuned to a scan.", "Run without tuning, or choose a prior in EDM's form."
        )
    meter.stage = "tuning to the scan"
    pairs = list(_pairs(engine, noisy, sigma, condition, seed, meter))
    matrix, right = _normal_equations(engine, pairs, meter)
    layer = _last_layer(engine.denoiser)
    candidates = []
    for pull in PULLS:
        ridge = pull * matrix.diagonal().mean() * torch.eye(len(matrix), dtype=matrix.dtype)
        candidates.append(_with_last_layer(engine.denoiser, layer, torch.linalg.solve(matrix + ridge, right)))
    before, *after = (_losses(engine, denoiser, pairs, shares, meter) for denoiser in (None, *candidates))
    best = int(np.argmin([losses.sum() for losses in after]))
    gains = before - after[best]
    sure = gains.sum() > SURE * np.sqrt(len(gains)) * gains.std()
    meter.stage = "denoising"
    return Tuned(candidates[best] if sure else None, float(100 * gains.sum() / before.sum()))


def _pairs(
    engine: Engine, noisy: torch.Tensor, sigma: float, condition: Condition, seed: int, meter: ProgressMeter
) -> Iterator[Pair]:
    """Pairs of the windows that hold most soft tissue."""
    from .coarse_to_fine import denoise_coarse_to_fine

    boxes = _boxes(noisy[0, 0])
    generator = torch.Generator().manual_seed(seed)
    for box in boxes:
        meter.check()
        window, part = noisy[:, :, box[0], box[1], box[2]], condition.window(box)
        clean = denoise_coarse_to_fine(engine, window, sigma, part)[0, 0]
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


def _normal_equations(engine: Engine, pairs: list[Pair], meter: ProgressMeter) -> tuple[torch.Tensor, torch.Tensor]:
    """Matrix (n, n) and right side (n, outputs) of the least squares that the last layer's change solves, float64."""
    matrix, right = torch.zeros(()), torch.zeros(())
    for pair in pairs:
        inputs, missing, wanted = _last_pass(engine, pair)
        for k in range(len(wanted)):
            chosen = wanted[k].reshape(-1)
            rows = _patches(inputs, k)[chosen]
            matrix = matrix + (rows.T @ rows).double()
            right = right + (rows.T @ missing[:, k].reshape(len(missing), -1).T[chosen]).double()
        meter.advance(WINDOWS / len(pairs))
    return matrix, right


def _last_pass(engine: Engine, pair: Pair) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Inputs of the last layer in the last pass (c, d, h, w), what its outputs lack of the target (8, d, h, w), and
    where that counts (d, h, w), all at half resolution."""
    from ...imaging.haar import haar_forward
    from ...inference.window_plan import extend
    from .coarse_to_fine import SCALES, denoise_coarse_to_fine

    before = denoise_coarse_to_fine(engine, pair.noisy, pair.sigma, pair.condition, scales=SCALES[:-1])
    k, j, i = (-(-n // engine.divisor) * engine.divisor for n in before.shape[2:])
    shape = (k, j, i)
    condition = _extended(pair.condition, shape)
    kept: list[torch.Tensor] = []
    layer = _last_layer(engine.denoiser)
    hook = layer.register_forward_pre_hook(lambda _, given: kept.append(given[0].detach().float().cpu()))
    level = pair.sigma * SCALES[-1][1]
    try:
        x0 = engine.denoise(
            extend(before, shape).to(engine.device), level, condition.encode(shape, engine.device)
        ).cpu()
    finally:
        hook.remove()
    deviation = float(engine.denoiser.sigma_data)  # type: ignore[arg-type]
    scale = level * deviation / (level**2 + deviation**2) ** 0.5
    missing = haar_forward((extend(pair.target, shape) - x0) / scale)[0]
    wanted = torch.zeros(shape, dtype=torch.bool)
    d, h, w = before.shape[2:]
    wanted[:d, :h, :w] = ~pair.held_out & (before[0, 0] > -0.9)
    half = functional.max_pool3d((~wanted)[None, None].float(), 2)[0, 0] == 0
    return kept[0][0], missing, half


def _extended(condition: Condition, shape: tuple[int, int, int]) -> Condition:
    """Coordinates and maps continued by reflection, as the image is."""
    from dataclasses import replace

    from ...inference.window_plan import extend, reflected_range

    lines = condition.coordinates
    if lines is not None:
        lines = tuple(  # type: ignore[assignment]
            line[torch.from_numpy(reflected_range(0, n, len(line)))] for line, n in zip(lines, shape, strict=True)
        )
    return replace(condition, coordinates=lines).with_images(lambda image: extend(image, shape))


def _patches(inputs: torch.Tensor, k: int) -> torch.Tensor:
    """(h w, 27 c + 1): what the convolution sees for each voxel of plane ``k``, and a 1 for its bias."""
    padded = functional.pad(inputs, (1, 1, 1, 1, 1, 1))[:, k : k + 3]
    patches = padded.unfold(2, 3, 1).unfold(3, 3, 1)  # (c, 3, h, w, 3, 3)
    rows = patches.permute(2, 3, 0, 1, 4, 5).reshape(patches.shape[2] * patches.shape[3], -1)
    return torch.cat([rows, torch.ones(len(rows), 1)], dim=1)


def _last_layer(denoiser: nn.Module) -> nn.Conv3d:
    return [module for module in denoiser.network.unet.out.modules() if isinstance(module, nn.Conv3d)][-1]  # type: ignore[union-attr]


def _with_last_layer(denoiser: nn.Module, layer: nn.Conv3d, change: torch.Tensor) -> nn.Module:
    """A denoiser that shares all weights but those of its last layer, whose first outputs change."""
    own = copy.deepcopy(layer)
    assert own.bias is not None
    outputs = change.shape[1]
    weight, bias = change[:-1].T.reshape(outputs, *layer.weight.shape[1:]), change[-1]
    with torch.no_grad():
        own.weight[:outputs] += weight.to(own.weight)
        own.bias[:outputs] += bias.to(own.bias)
    memo = {id(module): module for module in denoiser.parameters()} | {id(layer): own}
    return copy.deepcopy(denoiser, memo)


def _losses(
    engine: Engine, denoiser: nn.Module | None, pairs: list[Pair], shares: tuple[float, float], meter: ProgressMeter
) -> np.ndarray:
    """(n,) squared distances of the denoised pairs from their targets in soft tissue, of each held-out column."""
    from .blocks import block_depth
    from .coarse_to_fine import denoise_coarse_to_fine
    from .combination import combined_planes

    losses = []
    for pair in pairs:
        clean = denoise_coarse_to_fine(engine, pair.noisy, pair.sigma, pair.condition, last=denoiser)[0, 0]
        judged = pair.held_out & (clean.abs() < SOFT)
        depth = block_depth(pair.condition.spacing)
        result = torch.stack(list(combined_planes(pair.noisy[0, 0], clean, shares, depth=depth)))
        squares = torch.where(judged, (result - pair.target[0, 0]).square(), 0).sum(0)
        rows, columns = (torch.arange(n) // COLUMN for n in squares.shape)
        column = (rows[:, None] * (len(columns) // COLUMN + 1) + columns[None]).reshape(-1)
        held = torch.bincount(column, judged.any(0).reshape(-1)) > 0
        losses.append(torch.bincount(column, squares.reshape(-1))[held].numpy())
        meter.advance(WINDOWS / len(pairs))
    return np.concatenate(losses)
