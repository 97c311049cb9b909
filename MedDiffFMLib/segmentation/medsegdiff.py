"""MedSegDiff method: an ensemble of sampled masks, fused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from ..conditioning.condition import EncodedCondition
from ..core.errors import InputError
from ..core.progress import ProgressMeter
from ..diffusion.mask_denoiser import MASK_DENOISERS
from ..diffusion.samplers import dpm_solver_pp_2m, karras_sigmas
from ..imaging.volume import Box
from ..inference.window_plan import OVERLAP, extend, plan_windows
from ..networks.medsegdiff import Guide, MedSegDiff, MedSegDiffConfig
from .activations import decoder_activations, decoder_channels
from .inputs import LabeledInput, SegmentationInput
from .method import InferenceBudget, Prediction, Segmenter
from .sliding_window import Window, blend
from .staple import simple_itk, staple
from .window_dataset import WindowBatch, WindowSamples, collate_windows

LOG_SIGMA = (1.5, 1.2)
"""Mean and deviation of log sigma in training. A structure of many voxels shows through noise of several times its
contrast, so masks need more noise than images until the image is what decides."""
SIGMA_RANGE = (0.3, 20.0)
"""Noise at the end and at the start of sampling."""
FEWEST_RATERS = 3
PRIOR_SIGMA = 0.1
"""Noise level given to the prior for a window, in units of 1000 HU."""
QUIET = 0.01
"""Windows in which the first step finds no voxel inside with this probability are not looked at again."""


@dataclass(frozen=True)
class MedSegDiffMethod:
    """See :class:`.method.Method`.

    Attributes:
        window: edge of the training windows in voxels.
        dynamic, parser, anchor, channels: see :class:`networks.medsegdiff.MedSegDiffConfig`.
        features: whether the image encoder is given the frozen prior's activations.
        estimate: what the network gives, row of MASK_DENOISERS: "logit", or the paper's "noise".
        steps: of DPM-Solver++ for each draw.
        draws: masks that are drawn, unless the budget says otherwise; the paper has 25.
        fusion: how they become one: "staple", or their "mean".
        flip: learn from mirrored windows too, for structures without a side.
    """

    window: int = 32
    dynamic: bool = True
    parser: bool = True
    anchor: bool = False
    features: bool = True
    channels: Sequence[int] = (16, 32, 64, 64)
    estimate: str = "logit"
    steps: int = 8
    draws: int = 8
    fusion: str = "staple"
    flip: bool = False

    name = "medsegdiff"
    own_body = False

    def __post_init__(self) -> None:
        _choose("estimate", self.estimate, MASK_DENOISERS)
        _choose("fusion", self.fusion, ("staple", "mean"))
        if self.steps < 1 or self.draws < 1:
            raise InputError("medsegdiff needs steps and draws of at least 1.", "Give larger numbers.")
        if len(self.channels) < 2 or any(count < 4 or count % 4 for count in self.channels):
            raise InputError(f"medsegdiff cannot have the channels {self.channels}.", "Give multiples of 4.")
        divisor = 2 ** len(self.channels)
        if self.window < 1 or self.window % divisor:
            raise InputError(
                f"A window of {self.window} voxels does not fit medsegdiff.", f"Give a multiple of {divisor}."
            )

    def build(self, classes: int, prior: nn.Module) -> MedSegDiffSegmenter:
        return MedSegDiffSegmenter(self, classes, prior)

    def samples(self, examples: Sequence[LabeledInput], seed: int, first: int, count: int) -> Dataset:
        return WindowSamples(examples, self.window, seed, first, count, self.flip)

    def collate(self, samples: list[dict[str, Any]]) -> WindowBatch:
        return collate_windows(samples)


class MedSegDiffSegmenter(Segmenter):
    """See :class:`.method.Segmenter`; ``part`` is the denoiser of masks."""

    def __init__(self, method: MedSegDiffMethod, classes: int, prior: nn.Module) -> None:
        super().__init__()
        self.method, self.classes = method, classes
        self.prior = prior if method.features else None
        prior_channels = decoder_channels(prior)[: len(method.channels) - 1] if method.features else []
        config = MedSegDiffConfig(
            classes, tuple(method.channels), tuple(prior_channels), method.dynamic, method.parser, method.anchor
        )
        self.part = MASK_DENOISERS[method.estimate](MedSegDiff(config))

    @property
    def network(self) -> MedSegDiff:
        """The network inside the denoiser."""
        return self.part.network  # type: ignore[return-value]

    def loss(self, batch: WindowBatch) -> torch.Tensor:
        known = batch.known[:, :, None, None, None]
        mask = (2 * batch.target - 1) * known  # 0, neither in nor out, where nothing was outlined
        drawn = [_noise_level_and_noise(int(seed), mask.shape[1:]) for seed in batch.seeds]
        sigma, noise = (torch.stack(part).to(mask) for part in zip(*drawn, strict=True))
        guide = self.guide(batch.image, batch.body, batch.condition)
        return self.part.loss(mask, sigma, noise, guide, batch.known)  # type: ignore[operator]

    def guide(self, image: torch.Tensor, body: torch.Tensor, condition: EncodedCondition) -> Guide:
        """Guide of a batch of windows, known before any mask, see :meth:`MedSegDiff.guide`."""
        activations: list[torch.Tensor] = []
        if self.prior is not None:
            with torch.no_grad():
                activations = decoder_activations(self.prior, image, condition, PRIOR_SIGMA)
        return self.network.guide(image, body, activations[: len(self.network.config.prior)])

    def predict(
        self, inputs: SegmentationInput, budget: InferenceBudget, meter: ProgressMeter | None = None
    ) -> Prediction:
        draws = self.method.draws if budget.samples is None else budget.samples
        if draws >= FEWEST_RATERS and self.method.fusion == "staple":
            simple_itk()  # better before the work than after it
        with torch.no_grad():
            drawn = self.draw(inputs, budget, draws, meter)
        return fuse(drawn, self.method.fusion)

    def draw(
        self, inputs: SegmentationInput, budget: InferenceBudget, draws: int, meter: ProgressMeter | None = None
    ) -> torch.Tensor:
        """Independent masks of a whole CT; all windows take each step together, so that neighbors agree.

        Returns:
            (draws, classes, D, H, W) float32 on the CPU, 0 to 1.
        """
        sigmas = karras_sigmas(self.method.steps, SIGMA_RANGE[1], SIGMA_RANGE[0])
        denoise = _BlendedDenoiser(self, inputs, budget, sigmas[0], meter, 1 / (draws * self.method.steps))
        masks = []
        for first in range(0, draws, budget.batch):  # of many classes and draws at once the noise alone would be large
            numbers = range(first, min(first + budget.batch, draws))
            noise = torch.stack([_noise([budget.seed, n], (self.classes, *inputs.shape)) for n in numbers])
            masks.append(dpm_solver_pp_2m(denoise, sigmas[0] * noise, sigmas))
        return (torch.cat(masks).clamp(-1, 1) + 1) / 2


def fuse(drawn: torch.Tensor, fusion: str) -> Prediction:
    """Several masks as one, with what they differ by.

    Args:
        drawn: (n, C, D, H, W), 0 to 1.
        fusion: "staple" or "mean". Of one or two it is the mean anyway: two raters cannot say which one is wrong.
    """
    mean = drawn.mean(dim=0)
    if len(drawn) == 1:
        return Prediction(mean, (mean * (1 - mean)).sqrt())
    spread = drawn.std(dim=0, correction=0)
    if fusion == "mean" or len(drawn) < FEWEST_RATERS:
        return Prediction(mean, spread)
    fused = [torch.from_numpy(staple(drawn[:, number].numpy() > 0.5).probability) for number in range(drawn.shape[1])]
    return Prediction(torch.stack(fused), spread)


class _BlendedDenoiser:
    """``denoise(x, sigma) -> x0`` of a whole CT, x (draws, classes, D, H, W) on the CPU.

    Args:
        start: noise of the first step.
        share: of the meter's unit that one draw's step advances.
    """

    def __init__(
        self,
        segmenter: MedSegDiffSegmenter,
        inputs: SegmentationInput,
        budget: InferenceBudget,
        start: float,
        meter: ProgressMeter | None,
        share: float,
    ) -> None:
        self.segmenter, self.inputs, self.start, self.meter, self.share = segmenter, inputs, start, meter, share
        self.divisor = segmenter.network.config.divisor
        # Layer norms see a whole window: in larger ones than in training, with more air, masks appear in the air.
        largest = min(budget.window, segmenter.method.window)
        self.budget = replace(budget, window=max(largest // self.divisor, 1) * self.divisor)
        self._shape = plan_windows(inputs.shape, self.budget.window, OVERLAP, self.divisor).shape
        self._guides: dict[str, Guide | None] = {}

    def __call__(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        noisy = extend(x, self._shape)

        def predict(window: Window, boxes: Sequence[Box]) -> torch.Tensor:
            estimates = []
            for row, (k, j, i) in enumerate(boxes):
                estimates.append(self._estimate(window, row, noisy[..., k, j, i], sigma, str((k, j, i))))
            return torch.stack(estimates).flatten(1, 2)

        channels, share = x.shape[0] * x.shape[1], self.share * len(x)
        x0 = blend(self.inputs, self.budget, self.divisor, channels, predict, self.meter, share)
        return x0.unflatten(0, x.shape[:2])

    def _estimate(self, window: Window, row: int, noisy: torch.Tensor, sigma: float, where: str) -> torch.Tensor:
        """(draws, classes, d, h, w): the estimate in one window, whose guide is kept for the next step."""
        if where not in self._guides:
            one = slice(row, row + 1)
            condition = EncodedCondition(window.condition.region[one], window.condition.channels[one])
            self._guides[where] = self.segmenter.guide(window.image[one], window.body[one], condition)
        guide = self._guides[where]
        if guide is None:
            return torch.full_like(noisy, -1)
        device = window.image.device
        level = torch.full((len(noisy),), sigma, device=device)
        estimate = self.segmenter.part(noisy.to(device), level, guide.repeated(len(noisy))).float().cpu()
        if sigma == self.start and estimate.max() < 2 * QUIET - 1:
            self._guides[where] = None
        return estimate


def _noise_level_and_noise(seed: int, shape: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Sigma and unit noise of a training sample, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    mean, deviation = LOG_SIGMA
    return (mean + deviation * torch.randn((), generator=generator)).exp(), torch.randn(*shape, generator=generator)


def _noise(seeds: list[int], shape: Sequence[int]) -> torch.Tensor:
    """Unit noise of one draw, whatever their number."""
    state = int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0] >> 1)
    return torch.randn(*shape, generator=torch.Generator().manual_seed(state))


def _choose(option: str, value: str, known: Sequence[str] | dict[str, Any]) -> None:
    if value not in known:
        raise InputError(f"medsegdiff has no {option} {value!r}.", f"Choose {' or '.join(known)}.")
