"""A small network trained on pairs: scans as they are, and the same with simulated noise.

The prior was trained on every level of white noise, to invent; this network on the noise of CT alone, to estimate. It
errs otherwise than blocks do, so that the mean of both errs least, and costs a sixth of the prior's passes.
"""

from __future__ import annotations

import copy
import functools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as functional
from torch import nn

from ...core.errors import ModelError
from ...imaging.volume import Box
from ...inference.direct_convolution import convolve_directly
from ...networks.folded_unet import DIVISOR, FOLD, FoldedUNet, fold
from .coarse_to_fine import not_air
from .estimator import LastPass, sharing_all_but

if TYPE_CHECKING:
    from ...conditioning.condition import Condition
    from ...core.progress import ProgressMeter
    from ...inference.engine import Engine

FORMAT, MODEL = "meddifffm-denoiser-1", "ct-denoiser"
LONGEST, MARGIN = (40, 192, 192), (3, 8, 8)
"""Voxels along the edges of a window, and those of its neighbors that it sees beyond what it is taken for. Larger
windows take up to twice the time for a voxel, for their features outgrow the cache; wider margins, which would bring
results nearer to those of one window than 0.2 HU root mean square, a fifth more. Multiples of 8 keep folds alike."""
SHARE = 0.5
"""Of its result as it is: 0.2 dB on validation patients, where noise is correlated and, most of all, in heads."""
AIR_SMOOTHED = 7
"""Pixels over which air is averaged where no window lies."""
LEVELS = (0.004, 0.08)
"""Levels of noise, HU / 1000, that the network is shown; it was taught on 0.006 to 0.09. Of louder images it sees a
fainter copy, which at 150 HU is worth 0.7 to 2.8 dB more than an image that is louder than any it was taught on."""


@dataclass(frozen=True)
class Supervised:
    """The small network as the estimator of a denoising run; see :class:`.estimator.Estimator`.

    Attributes:
        engine: whose device it runs on, with less memory once that ran out.
    """

    engine: Engine
    network: FoldedUNet

    @property
    def evaluations(self) -> int:
        return 1

    @property
    def alone(self) -> float:
        return SHARE

    def denoise(
        self, noisy: torch.Tensor, sigma: float, condition: Condition, meter: ProgressMeter | None = None
    ) -> torch.Tensor:
        """Of the condition only the spacing counts."""

        def on_device(window: torch.Tensor) -> torch.Tensor:
            device, network = self.engine.device, self.network
            if device.type != "cpu":
                network = copy.deepcopy(network).to(device)
            return without_noise(network, window.to(device), sigma, condition.spacing).cpu()

        def denoised(window: torch.Tensor) -> torch.Tensor:
            return self.engine.retry_on_oom(lambda: on_device(window))

        return denoise_in_windows(noisy[0, 0], denoised, meter)[None, None]

    @property
    def last_layer(self) -> nn.Conv3d:
        return self.network.out

    def last_pass(self, noisy: torch.Tensor, target: torch.Tensor, sigma: float, condition: Condition) -> LastPass:
        kept: list[torch.Tensor] = []
        hook = self.last_layer.register_forward_pre_hook(lambda _, given: kept.append(given[0].detach()))
        try:
            clean = without_noise(self.network, noisy[0, 0], sigma, condition.spacing)
        finally:
            hook.remove()
        height, width = (n // FOLD * FOLD for n in noisy.shape[3:])
        told, faintness = _shown(sigma)
        missing = fold((clean[None, None] - target)[..., :height, :width])[0] / (told / faintness)
        return LastPass(kept[0][0], missing, (1, FOLD, FOLD))

    def with_last_layer(self, layer: nn.Conv3d) -> Supervised:
        return replace(self, network=sharing_all_but(self.network, self.last_layer, layer))


def without_noise(
    network: nn.Module, window: torch.Tensor, sigma: float, spacing: tuple[float, float, float]
) -> torch.Tensor:
    """A window (d, h, w) in the network's range, with noise of level ``sigma``, without it, all at once.

    Args:
        network: a :class:`FoldedUNet`, or another that is called as it is.
        spacing: (k, j, i) in mm.
    """
    height, width = window.shape[1:]
    k, j, i = spacing
    told, faintness = _shown(sigma)
    facts = torch.tensor([[math.log(told), math.log(j * i) / 2, math.log(k)]], device=window.device)
    image = faintness * window[None, None]
    whole = functional.pad(image, (0, -width % DIVISOR, 0, -height % DIVISOR, 0, 0), mode="replicate")
    with torch.inference_mode():
        return network(whole, facts)[0, 0, :, :height, :width] / faintness


def _shown(sigma: float) -> tuple[float, float]:
    """Level of noise that the network is told, and the factor by which it sees the image."""
    faintness = min(1.0, LEVELS[1] / sigma)
    return max(faintness * sigma, LEVELS[0]), faintness


def denoise_in_windows(
    noisy: torch.Tensor, denoised: Callable[[torch.Tensor], torch.Tensor], meter: ProgressMeter | None = None
) -> torch.Tensor:
    """``noisy`` (D, H, W) in the network's range, window by window.

    Air around the body is averaged over some pixels, for nothing is to be seen there.

    Args:
        denoised: of a window (d, h, w).
        meter: advanced by one; where a cancel is noticed.
    """
    clean = torch.empty_like(noisy)
    tissue = not_air(noisy[None, None])
    slabs = _pieces(0, len(noisy), LONGEST[0], MARGIN[0], 1)
    for planes in slabs:
        clean[planes] = _averaged(noisy[planes])
        windows = list(_windows(planes, tissue[planes]))
        for place in windows:
            if meter is not None:
                meter.check()
            seen = _with_margin(place, noisy.shape)
            inner = tuple(slice(p.start - s.start, p.stop - s.start) for p, s in zip(place, seen, strict=True))
            clean[place] = denoised(noisy[seen])[inner]
            if meter is not None:
                meter.advance(1 / len(slabs) / len(windows))
        if meter is not None and not windows:
            meter.advance(1 / len(slabs))
    return clean


def _windows(planes: slice, tissue: torch.Tensor) -> Iterator[Box]:
    """Windows side by side over the box that holds all tissue (bool, (d, H, W)) of some planes."""
    lines = []
    for axis, length in enumerate(tissue.shape[1:]):
        where = torch.nonzero(tissue.any(0).any(1 - axis))[:, 0]
        if not len(where):
            return
        # Wider by more than what air is averaged over, which would spread the rim of a table or of skin.
        first = max(int(where[0]) // DIVISOR - 1, 0) * DIVISOR
        last = min((-(-(int(where[-1]) + 1) // DIVISOR) + 1) * DIVISOR, length)
        lines.append(_pieces(first, last, LONGEST[axis + 1], MARGIN[axis + 1], DIVISOR))
    yield from ((planes, rows, columns) for rows, columns in product(*lines))


def _pieces(first: int, last: int, longest: int, margin: int, divisor: int) -> list[slice]:
    """Fewest even parts of a line that are no longer than ``longest`` with their margins."""
    count = max(1, math.ceil((last - first) / (longest - 2 * margin)))
    edges = [first + round((last - first) * n / count / divisor) * divisor for n in range(count)] + [last]
    return [slice(start, stop) for start, stop in zip(edges, edges[1:], strict=False)]


def _with_margin(place: Box, shape: tuple[int, ...]) -> Box:
    k, j, i = (
        slice(max(part.start - margin, 0), min(part.stop + margin, length))
        for part, margin, length in zip(place, MARGIN, shape, strict=True)
    )
    return k, j, i


def _averaged(planes: torch.Tensor) -> torch.Tensor:
    return functional.avg_pool2d(planes[:, None], AIR_SMOOTHED, 1, AIR_SMOOTHED // 2, count_include_pad=False)[:, 0]


def save_denoiser(path: Path, network: FoldedUNet, facts: dict[str, object]) -> str:
    """Write the network in half precision, atomically; returns the file's SHA-256.

    Raises:
        OutputError: the file cannot be written.
    """
    from ...models.checkpoint import write_weights

    described = {"format": FORMAT, "network": json.dumps(network.config()), "training": json.dumps(facts)}
    return write_weights(path, network.state_dict(), described)


def load_denoiser(path: Path, sha256: str | None = None) -> FoldedUNet:
    """Read a network, on the CPU.

    Args:
        sha256: what the file's bytes must have, None for any.

    Raises:
        ModelError: missing, damaged, a pickle, or something else.
    """
    from ...models.checkpoint import check_format, read_weights

    remedy = "Install MedDiff-FM again."
    weights = read_weights(path, sha256)
    check_format(path, weights.metadata, FORMAT, "denoiser", remedy)
    try:
        network = FoldedUNet(**json.loads(weights.metadata["network"]))
        network.load_state_dict(weights.state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"The weights in {path.name} do not fit ({str(error).splitlines()[0]}).", remedy) from error
    network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    convolve_directly(network)
    return network.eval().requires_grad_(False)


@functools.cache
def shipped_denoiser() -> FoldedUNet:
    """The network of the catalogue, read once a process."""
    from ...models.catalogue import resolve

    _, path, expected = resolve(MODEL)
    return load_denoiser(path, expected)
