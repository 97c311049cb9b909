"""Reference implementation: the tasks written with MONAI's stock parts.

``SlidingWindowInferer`` with its defaults, around each step of DDIM, in float32, on the volume's own voxels: this is
how the paper works (arXiv 2410.15432, 1.5 and 1.6). Two networks:

* ``same weights``: the prior's own network as the weight file describes it, so that results can be compared;
* ``stock network``: ``DiffusionModelUNet`` of the paper's size at full resolution. There are no weights for it, so its
  time is all that counts.

The reference is favored: it is given the noise level, fills only the neighborhood of a lesion, and of conditions it
gets the voxel size alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from ...conditioning.condition import Condition, stack
from ...core.devices import synchronize
from ...core.lean_monai import lean_monai
from ...diffusion.data_consistency import DiffPIR, RePaint
from .cases import NOISE_HU

Correct = Callable[[torch.Tensor, float], torch.Tensor]
ANOMALY_SIGMA = 13.0
"""Noise of step 950 of 1000 on the paper's cosine chain, sqrt((1 - abar) / abar)."""
DENOISE_LAMBDA = 10.0
OVERLAP = 0.25
"""MONAI's default."""
SIGMA_MIN, SIGMA_MAX = 0.002, 80.0
CHANNELS = (32, 64, 128, 256)
WARM_CALLS = 1
TIMED_CALLS = 3


@dataclass
class Answer:
    """Time and memory that a run took.

    Attributes:
        seconds: wall clock.
        cpu_seconds: of all threads.
        windows: windows that the network was shown, over all steps.
        extrapolated: whether a few windows were timed and multiplied.
        image: (D, H, W) network range; None where extrapolated.
    """

    seconds: float
    cpu_seconds: float
    windows: int
    extrapolated: bool
    image: torch.Tensor | None = None


def stock_network() -> nn.Module:
    """MONAI's U-Net of the paper's size: base 32, one block a level, attention at the deepest."""
    lean_monai()
    from monai.networks.nets import DiffusionModelUNet

    return DiffusionModelUNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=1,
        channels=CHANNELS,
        num_res_blocks=1,
        attention_levels=(False, False, False, True),
        num_head_channels=32,
        norm_num_groups=32,
    )


class Reference:
    """A network in float32 with a stock sliding window.

    Args:
        network: what :meth:`denoise_window` calls.
        window: edge of its windows.
        steps: of DDIM.
        budget: seconds that a run may take; what would take longer is extrapolated from a few windows.
    """

    def __init__(self, network: nn.Module, device: str, window: int, steps: int, budget: float) -> None:
        from monai.inferers import SlidingWindowInferer

        self.network, self.device = network.to(device).eval().requires_grad_(False), torch.device(device)
        self.window, self.steps, self.budget = window, steps, budget
        self.inferer = SlidingWindowInferer((window,) * 3, overlap=OVERLAP)
        self.spacing = (1.0, 1.0, 1.0)
        self.seen = 0

    def denoise_window(self, windows: torch.Tensor, sigma: float) -> torch.Tensor:
        """One network call: (B, 1, w, w, w) -> x0."""
        raise NotImplementedError

    @torch.inference_mode()
    def network_call(self, batch: int) -> None:
        """One call on a batch of windows."""
        self.denoise_window(torch.zeros((batch, 1, *[self.window] * 3), device=self.device), 0.03)
        synchronize(self.device)

    @torch.inference_mode()
    def sample(self, start: torch.Tensor, sigmas: list[float], correct: Correct | None = None) -> Answer:
        """DDIM over the whole volume, or its extrapolation: start (D, H, W), falling noise levels."""
        count = len(sigmas) * self.windows(tuple(start.shape))
        wall, cpu = self.window_seconds()
        if count * wall > self.budget:
            return Answer(count * wall, count * cpu, count, True)
        begin, cpu_begin, self.seen = time.perf_counter(), time.process_time(), 0
        x = start[None, None].to(self.device)
        for sigma, target in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
            x0 = cast(torch.Tensor, self.inferer(x, self._counted, sigma))
            if correct is not None:
                x0 = correct(x0, sigma)
            x = x0 + target / sigma * (x - x0)
        synchronize(self.device)
        image = x[0, 0].cpu()
        return Answer(time.perf_counter() - begin, time.process_time() - cpu_begin, self.seen, False, image)

    def _counted(self, windows: torch.Tensor, sigma: float) -> torch.Tensor:
        self.seen += len(windows)
        return self.denoise_window(windows, sigma)

    def windows(self, shape: tuple[int, ...]) -> int:
        """Windows that MONAI lays over a volume; a volume smaller than a window is padded to it."""
        from monai.data.utils import dense_patch_slices

        size = tuple(max(n, self.window) for n in shape)
        step = int(self.window * (1 - OVERLAP))
        return len(dense_patch_slices(size, (self.window,) * 3, (step,) * 3))

    def window_seconds(self) -> tuple[float, float]:
        """Median wall and CPU seconds of a call on one window."""
        times = []
        for _ in range(WARM_CALLS + TIMED_CALLS):
            wall, cpu = time.perf_counter(), time.process_time()
            self.network_call(1)
            times.append((time.perf_counter() - wall, time.process_time() - cpu))
        kept = sorted(times[WARM_CALLS:])
        return kept[len(kept) // 2]

    def denoise(self, noisy: torch.Tensor) -> Answer:
        """DiffPIR from the noise level of the image (paper, 1.6 a)."""
        sigma = NOISE_HU / 1000
        image = noisy[None, None].to(self.device)
        return self.sample(noisy, falling(self.steps, sigma, 0.2 * sigma), DiffPIR(image, sigma, DENOISE_LAMBDA))

    def anomaly(self, image: torch.Tensor, generator: torch.Generator) -> Answer:
        """Noise to step 950 and back (paper, 1.6 b); the map is the difference."""
        start = image + ANOMALY_SIGMA * torch.randn(image.shape, generator=generator)
        return self.sample(start, falling(self.steps, ANOMALY_SIGMA))

    def inpaint(self, image: torch.Tensor, hole: torch.Tensor, generator: torch.Generator) -> Answer:
        """RePaint without resampling (paper, 1.6 f)."""
        start = SIGMA_MAX * torch.randn(image.shape, generator=generator)
        known = RePaint(image[None, None].to(self.device), hole[None, None].float().to(self.device))
        return self.sample(start, falling(self.steps, SIGMA_MAX), known)

    def synthesize(self, shape: tuple[int, int, int], generator: torch.Generator) -> Answer:
        """A volume out of noise (paper, 1.6 c)."""
        return self.sample(SIGMA_MAX * torch.randn(shape, generator=generator), falling(self.steps, SIGMA_MAX))

    def train_step(self, batch: int) -> Answer:
        """One step on random windows: forward, backward, Adam. One window stands for all where that takes too long."""
        wall, _ = self.window_seconds()
        alone = 3 * batch * wall > self.budget
        begin, cpu = time.perf_counter(), time.process_time()
        self._train_on(1 if alone else batch)
        times = batch if alone else 1
        seconds, cpu_seconds = (times * taken for taken in (time.perf_counter() - begin, time.process_time() - cpu))
        return Answer(seconds, cpu_seconds, batch, alone)

    def _train_on(self, batch: int) -> None:
        self.network.requires_grad_(True)
        optimizer = torch.optim.Adam(self.network.parameters(), 1e-4)
        windows = torch.randn((batch, 1, *[self.window] * 3), device=self.device)
        self.denoise_window(windows, 0.1).square().mean().backward()
        optimizer.step()
        synchronize(self.device)
        self.network.requires_grad_(False).zero_grad(set_to_none=True)


class SameWeights(Reference):
    """The prior as its weight file describes it: ``network`` is a denoiser (x, sigma, condition) -> x0."""

    def denoise_window(self, windows: torch.Tensor, sigma: float) -> torch.Tensor:
        """With the voxel size as the only condition."""
        condition = Condition(self.spacing).encode((self.window,) * 3, self.device)
        level = torch.full((len(windows),), sigma, device=self.device)
        return self.network(windows, level, stack([condition] * len(windows)))


class Stock(Reference):
    """MONAI's U-Net at full resolution, x0 from its noise estimate."""

    def denoise_window(self, windows: torch.Tensor, sigma: float) -> torch.Tensor:
        """With EDM's scaling of the input, so that random weights cannot overflow."""
        scale = 1 / math.sqrt(1 + sigma**2)
        time_step = torch.full((len(windows),), 500.0, device=self.device)
        return windows - sigma * self.network(windows * scale, time_step)


def falling(steps: int, first: float, last: float = SIGMA_MIN) -> list[float]:
    """Noise levels of DDIM, evenly spaced in their logarithm."""
    if steps == 1:
        return [first]
    return [first * (last / first) ** (n / (steps - 1)) for n in range(steps)]


def flops(call: Callable[[], Any]) -> int:
    """Floating-point operations of a call."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())
