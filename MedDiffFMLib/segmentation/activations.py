"""Decoder activations of the prior for whole CTs.

A window is shown as it is, and the network is given a chosen noise level: at a low level it looks at
texture, at a high one at shapes. No noise is added, so the same CT always has the same features. Overlapping
windows are averaged (arXiv 2501.19265), and a second pass over the CT at half its resolution sees wider surroundings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import torch
import torch.nn.functional as functional
from torch import nn

from ..conditioning.condition import Condition, EncodedCondition, stack
from ..core.errors import ModelError
from ..core.progress import ProgressMeter
from ..imaging.volume import Box
from ..inference.window_plan import OVERLAP, extend, ramp
from ..networks.backbone import DecoderBackbone
from .inputs import SegmentationInput
from .method import InferenceBudget


def decoder_activations(
    denoiser: nn.Module, image: torch.Tensor, condition: EncodedCondition, sigma: float
) -> list[torch.Tensor]:
    """Activations of each decoder level for a batch of windows, finest first: (B, C, S/2, S/2, S/2), then S/4 ...

    Args:
        denoiser: any denoiser of a :class:`networks.backbone.DecoderBackbone`.
        image: (B, 1, S, S, S) in the network's range.
        sigma: noise level given to the network, in units of 1000 HU.
    """
    activations: list[torch.Tensor] = []
    hooks = [
        level.register_forward_hook(lambda module, inputs, result: activations.append(result))
        for level in _readable(denoiser).decoder_levels()
    ]
    try:
        denoiser(image, torch.full((len(image),), sigma, device=image.device), condition)
    finally:
        for hook in hooks:
            hook.remove()
    return activations[::-1]


def decoder_channels(denoiser: nn.Module) -> list[int]:
    """Channels of each decoder level, finest first."""
    return [int(n) for n in _readable(denoiser).config.channels]


def _readable(denoiser: nn.Module) -> DecoderBackbone:
    """The network inside a denoiser; raises ModelError where heads cannot read it."""
    network = denoiser.network
    if not isinstance(network, DecoderBackbone):
        raise ModelError(
            f"The model's network ({type(network).__name__}) has no decoder that a segmentation head can read.",
            "Use a prior with another network, or a method that needs none, such as dynunet.",
        )
    return network


def volume_activations(
    denoiser: nn.Module,
    inputs: SegmentationInput,
    sigmas: Sequence[float],
    scales: Sequence[int],
    budget: InferenceBudget,
    meter: ProgressMeter | None = None,
    share: float = 1.0,
) -> list[np.ndarray]:
    """Features of a whole CT: one float16 array (d, h, w, channels) for each scale and decoder level.

    Args:
        scales: 1 is the working grid, 2 the same at half its resolution.
        share: of the meter's unit that this call advances.

    Returns:
        Scale by scale, finest level first; the sigmas' channels one after the other. A cell of level n of scale s
        covers s * 2^(n + 1) voxels along each axis.
    """
    arrays = []
    work = sum(1.0 / scale**3 for scale in scales)
    for scale in scales:
        image, condition = _at_scale(inputs, scale)
        part = share / scale**3 / work
        arrays += _levels(denoiser, image, condition, sigmas, budget, meter, part)
    return arrays


def _at_scale(inputs: SegmentationInput, scale: int) -> tuple[torch.Tensor, Condition]:
    """Image (D, H, W) and condition, averaged over blocks of ``scale``^3 voxels."""
    image = inputs.image()[0, 0]
    if scale == 1:
        return image, inputs.condition
    even = tuple(-(-n // scale) * scale for n in image.shape)
    pooled = functional.avg_pool3d(extend(image, even)[None, None], scale)[0, 0]  # type: ignore[arg-type]
    k, j, i = (scale * s for s in inputs.spacing)
    lines = None
    if inputs.condition.coordinates is not None:
        lines = tuple(_averaged(line, scale) for line in inputs.condition.coordinates)
    return pooled, replace(inputs.condition, spacing=(k, j, i), coordinates=lines)  # type: ignore[arg-type]


def _averaged(line: torch.Tensor, scale: int) -> torch.Tensor:
    """(n,) -> (ceil(n / scale),)."""
    padded = torch.cat([line, line[-1:].expand(-len(line) % scale)])
    return padded.reshape(-1, scale).mean(1)


def _levels(
    denoiser: nn.Module,
    image: torch.Tensor,
    condition: Condition,
    sigmas: Sequence[float],
    budget: InferenceBudget,
    meter: ProgressMeter | None,
    share: float,
) -> list[np.ndarray]:
    """Averaged activations of one scale."""
    channels = decoder_channels(denoiser)
    divisor = 2 ** len(channels)
    full = tuple(-(-n // divisor) * divisor for n in image.shape)
    boxes = tiles(full, budget.window // divisor * divisor, divisor)  # type: ignore[arg-type]
    padded = extend(image, full)  # type: ignore[arg-type]
    lines = condition.coordinates
    if lines is not None:
        longer = [torch.cat([line, line[-1:].expand(n - len(line))]) for line, n in zip(lines, full, strict=True)]
        condition = replace(condition, coordinates=(longer[0], longer[1], longer[2]))
    sums = [torch.zeros((len(sigmas) * count, *(n >> level + 1 for n in full))) for level, count in enumerate(channels)]
    weights = [torch.zeros(tuple(n >> level + 1 for n in full)) for level in range(len(channels))]
    for box in boxes:
        if meter is not None:
            meter.check()
        encoded = stack([condition.window(box).encode(tuple(p.stop - p.start for p in box))]).to(budget.device)  # type: ignore[arg-type]
        window = padded[box][None, None].to(budget.device)
        for number, sigma in enumerate(sigmas):
            with torch.inference_mode(), budget.autocast():
                activations = decoder_activations(denoiser, window, encoded, sigma)
            for level, activation in enumerate(activations):
                k, j, i = (slice(part.start >> level + 1, part.stop >> level + 1) for part in box)
                weight = _weight(box, level)
                first = number * channels[level]
                sums[level][first : first + channels[level], k, j, i] += activation[0].float().cpu() * weight
                if number == 0:
                    weights[level][k, j, i] += weight
        if meter is not None:
            meter.advance(share / len(boxes))
    return [
        (total / weight).permute(1, 2, 3, 0).contiguous().half().numpy()
        for total, weight in zip(sums, weights, strict=True)
    ]


def tiles(shape: tuple[int, int, int], window: int, divisor: int) -> list[Box]:
    """Overlapping boxes that begin at multiples of ``divisor``, so that cells of all decoder levels fall together."""
    lines = []
    for length in shape:
        size = min(length, window)
        common = min(OVERLAP, size // 2)
        count = 1 if length <= window else -(-(length - common) // (size - common))
        starts = [round(n * (length - size) / max(count - 1, 1) / divisor) * divisor for n in range(count)]
        lines.append([slice(start, start + size) for start in starts])
    return [(k, j, i) for k, j, i in product(*lines)]


def _weight(box: Box, level: int) -> torch.Tensor:
    """Blending weight of a window's cells at a decoder level."""
    cell = 2 << level
    k, j, i = (
        ramp(part.stop - part.start, min(OVERLAP, (part.stop - part.start) // 2)).reshape(-1, cell).mean(1)
        for part in box
    )
    return torch.einsum("k,j,i->kji", k, j, i)
