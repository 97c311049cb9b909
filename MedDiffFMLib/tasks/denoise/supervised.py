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
from ...core.precision import autocast
from ...core.progress import ProgressMeter
from ...imaging.volume import Box
from ...inference.direct_convolution import convolve_directly
from ...networks.folded_unet import DIVISOR, FOLD, REACH, FoldedUNet, fold
from ...networks.plane_stream import PlaneStream
from .coarse_to_fine import not_air
from .estimator import LastPass, sharing_all_but

if TYPE_CHECKING:
    from ...conditioning.condition import Condition
    from ...inference.engine import Engine

FORMAT, MODEL = "meddifffm-denoiser-1", "ct-denoiser"
LONGEST, MARGIN = 336, 16
"""Pixels along the edges of a column of windows, and those of its neighbors that it sees beyond what it is taken for;
results are within 0.1 HU root mean square of those of one window, with half of the margin within 0.4. Multiples of 8
keep folds alike."""
AT_ONCE, FEWEST, MOST = 1_000_000, 4, 16
"""Voxels of a column, in whole planes, that pass the network at once: with more their features outgrow the cache, and a
voxel takes up to half as long again."""
SHARE = 0.5
"""Of its result as it is: 0.2 dB on validation patients, where noise is correlated and, most of all, in heads."""
AIR_SMOOTHED = 7
"""Pixels over which air is averaged where no window lies."""
LEVELS = (0.004, 0.08)
"""Levels of noise, HU / 1000, that the network is shown; it was taught on 0.006 to 0.09. Of louder images it sees a
fainter copy, which at 150 HU is worth 0.7 to 2.8 dB more than an image that is louder than any it was taught on."""
OWN, LEAST_TOLD = 0.008, 0.75
"""Noise that a scan holds itself, HU / 1000, and the least share of the whole that the network is told: it learned to
take noise that was added to scans as they are, and is told what a scan has beyond that. Chosen on validation patients:
alone it gains 0.4 dB where white noise of 15 HU is added, 0.1 dB for others of that level, hardly any from 30 HU on."""

Pass = Callable[[torch.Tensor, bool], torch.Tensor]
"""Planes (d, h, w) that come next, and whether they are the last -> those whose result can be told by now."""


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
        """Of the condition only the spacing counts.

        In the engine's precision: in bfloat16 the result differs from that in float32 by some 2 % of the noise.
        """

        def passed() -> Pass:
            device, network = self.engine.device, self.network
            if device.type != "cpu":
                network = copy.deepcopy(network).to(device)
            streamed = in_stream(network, sigma, condition.spacing)

            def on_device(planes: torch.Tensor, ends: bool) -> torch.Tensor:
                with autocast(device, self.engine.dtype):
                    return streamed(planes.to(device), ends).cpu()

            return on_device

        return denoise_in_columns(noisy[0, 0], passed, meter, self.engine.retry_on_oom)[None, None]

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
    told, faintness = _shown(sigma)
    with torch.inference_mode():
        return _applied(network, window, told, faintness, spacing)


def in_stream(network: FoldedUNet, sigma: float, spacing: tuple[float, float, float]) -> Pass:
    """A pass of the network over the planes of a window, see :class:`.PlaneStream`; arguments as above."""
    told, faintness = _shown(sigma)
    stream = PlaneStream()

    def passed(planes: torch.Tensor, ends: bool) -> torch.Tensor:
        stream.ends = ends
        with torch.inference_mode():
            return _applied(functools.partial(network, stream=stream), planes, told, faintness, spacing)

    return passed


def _applied(
    network: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    window: torch.Tensor,
    told: float,
    faintness: float,
    spacing: tuple[float, float, float],
) -> torch.Tensor:
    """What a network makes of an image that it is shown fainter, told a level of noise, at its own strength again."""
    height, width = window.shape[1:]
    k, j, i = spacing
    facts = torch.tensor([[math.log(told), math.log(j * i) / 2, math.log(k)]], device=window.device)
    image = faintness * window[None, None]
    whole = functional.pad(image, (0, -width % DIVISOR, 0, -height % DIVISOR, 0, 0), mode="replicate")
    return network(whole, facts)[0, 0, :, :height, :width] / faintness


def _shown(sigma: float) -> tuple[float, float]:
    """Level of noise that the network is told, and the factor by which it sees the image."""
    faintness = min(1.0, LEVELS[1] / sigma)
    added = max(math.sqrt(max(sigma**2 - OWN**2, 0.0)), LEAST_TOLD * sigma)
    return max(faintness * added, LEVELS[0]), faintness


def denoise_in_columns(
    noisy: torch.Tensor,
    passed: Callable[[], Pass],
    meter: ProgressMeter | None = None,
    attempt: Callable[[Callable[[], None]], None] = lambda compute: compute(),
) -> torch.Tensor:
    """``noisy`` (D, H, W) in the network's range, column by column, each some planes at a time.

    Air around the body is averaged over some pixels, for nothing is to be seen there.

    Args:
        passed: begins the pass over a column; given planes (d, h, w), and whether they are the last, it gives those
            whose result can be told.
        meter: advanced by one; where a cancel is noticed.
        attempt: computes a column, once more where memory ran out.
    """
    clean = torch.empty_like(noisy)
    columns = list(_columns(not_air(noisy[None, None])))
    for first in range(0, len(noisy), MOST):
        planes = slice(first, min(first + MOST, len(noisy)))
        inside = sum(_size((_both(planes, column[0]), column[1], column[2])) for column in columns)
        if inside < noisy[planes].numel():
            clean[planes] = _averaged(noisy[planes])
    voxels = sum(_size(column) for column in columns)
    meter = meter or ProgressMeter(1)
    for column in columns:
        share, begun = _size(column) / voxels, meter.done

        def compute(column: Box = column, share: float = share, begun: float = begun) -> None:
            meter.done = begun  # an attempt that failed counts for nothing
            for part in _denoise_column(noisy, clean, column, passed()):
                meter.advance(share * part)

        attempt(compute)
    if not columns:
        meter.advance()
    return clean


def _denoise_column(noisy: torch.Tensor, clean: torch.Tensor, column: Box, passed: Pass) -> Iterator[float]:
    """Write what lies in ``column`` into ``clean``, in steps; yields the share that each was of it."""
    planes, rows, columns = _with_margin(column, noisy.shape)
    inner = tuple(slice(p.start - s.start, p.stop - s.start) for p, s in zip(column[1:], (rows, columns), strict=True))
    at_once = min(max(AT_ONCE // _size((rows, columns)), FEWEST), MOST)
    done = first = planes.start
    while first < planes.stop:
        # More the first time, for as many results come later.
        stop = min(first + at_once + (REACH if first == planes.start else 0), planes.stop)
        result = passed(noisy[first:stop, rows, columns], stop == planes.stop)
        kept = _both(slice(done, done + len(result)), column[0])
        clean[kept, column[1], column[2]] = result[kept.start - done : kept.stop - done, inner[0], inner[1]]
        yield (stop - first) / _size((planes,))
        done, first = done + len(result), stop


def _columns(tissue: torch.Tensor) -> Iterator[Box]:
    """Columns side by side over the box that holds all tissue (bool, (D, H, W)), each as long as it holds some."""
    lines = []
    for axis, length in enumerate(tissue.shape[1:]):
        where = torch.nonzero(tissue.any(0).any(1 - axis))[:, 0]
        if not len(where):
            return
        # Wider by more than what air is averaged over, which would spread the rim of a table or of skin.
        first = max(int(where[0]) // DIVISOR - 1, 0) * DIVISOR
        last = min((-(-(int(where[-1]) + 1) // DIVISOR) + 1) * DIVISOR, length)
        lines.append(_pieces(first, last))
    for rows, columns in product(*lines):
        yield from ((planes, rows, columns) for planes in _runs(tissue[:, rows, columns].any(2).any(1)))


def _runs(tissue: torch.Tensor) -> list[slice]:
    """Planes with tissue (bool, (D,)) and gaps between them too short to be worth a new beginning."""
    runs: list[slice] = []
    for plane in torch.nonzero(tissue)[:, 0].tolist():
        if runs and plane - runs[-1].stop <= 2 * REACH:
            runs[-1] = slice(runs[-1].start, plane + 1)
        else:
            runs.append(slice(plane, plane + 1))
    return runs


def _pieces(first: int, last: int) -> list[slice]:
    """Fewest even parts of a line that are no longer than ``LONGEST`` with their margins."""
    count = max(1, math.ceil((last - first) / (LONGEST - 2 * MARGIN)))
    edges = [first + round((last - first) * n / count / DIVISOR) * DIVISOR for n in range(count)] + [last]
    return [slice(start, stop) for start, stop in zip(edges, edges[1:], strict=False)]


def _with_margin(place: Box, shape: tuple[int, ...]) -> Box:
    margins = (REACH, MARGIN, MARGIN)
    k, j, i = (
        slice(max(part.start - margin, 0), min(part.stop + margin, length))
        for part, margin, length in zip(place, margins, shape, strict=True)
    )
    return k, j, i


def _size(box: tuple[slice, ...]) -> int:
    return math.prod(part.stop - part.start for part in box)


def _both(one: slice, other: slice) -> slice:
    start = max(one.start, other.start)
    return slice(start, max(start, min(one.stop, other.stop)))


def _averaged(planes: torch.Tensor) -> torch.Tensor:
    for size in ((AIR_SMOOTHED, 1), (1, AIR_SMOOTHED)):
        around = (size[0] // 2, size[1] // 2)
        planes = functional.avg_pool2d(planes[:, None], size, 1, around, count_include_pad=False)[:, 0]
    return planes


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
