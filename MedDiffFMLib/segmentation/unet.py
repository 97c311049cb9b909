"""U-Net method: the prior's own network fine-tuned, head first and then all of it; or the same from random weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as functional
from torch import nn
from torch.utils.data import Dataset

from ..core.progress import ProgressMeter
from ..imaging.haar import haar_forward
from ..imaging.volume import Box
from .activations import decoder_activations, decoder_channels
from .inputs import LabeledInput, SegmentationInput
from .loss import mask_loss, share_entropy
from .method import InferenceBudget, Prediction, Segmenter
from .point_head import PointHead
from .sliding_window import Window, blend
from .window_dataset import WindowBatch, WindowSamples, collate_windows, window_shares

STANDARD_WINDOWS = 8
"""Training windows from which mean and deviation of the activations are taken."""
OWN_FEATURES = 8 + 3
"""Of each point: eight Haar bands of the image and three body coordinates."""


@dataclass(frozen=True)
class UNetMethod:
    """See :class:`.method.Method`.

    Attributes:
        scratch: start from random weights instead of the prior's.
        head_first: samples for which the body stays as it is while the head learns.
        sigma: noise level given to the network, in units of 1000 HU.
        flip: learn from mirrored windows too, for structures without a side.
    """

    window: int = 64
    scratch: bool = False
    head_first: int = 200
    sigma: float = 0.1
    flip: bool = False

    name = "unet"
    own_body = True

    def build(self, classes: int, prior: nn.Module) -> Segmenter:
        return UNetSegmenter(self, classes, prior)

    def samples(self, examples: Sequence[LabeledInput], seed: int, first: int, count: int) -> Dataset:
        return WindowSamples(examples, self.window, seed, first, count, self.flip)

    def collate(self, samples: list[dict[str, Any]]) -> WindowBatch:
        return collate_windows(samples)


class UNetSegmenter(Segmenter):
    """A copy of the prior with the non-linear 1x1x1 head on all levels of its decoder and the voxels themselves."""

    def __init__(self, method: UNetMethod, classes: int, prior: nn.Module) -> None:
        super().__init__()
        self.method, self.classes = method, classes
        body = copy.deepcopy(prior)
        if method.scratch:
            _reset(body)
        self.divisor: int = body.network.config.divisor  # type: ignore[union-attr, assignment]
        head = PointHead([OWN_FEATURES, *decoder_channels(prior)], classes, "nonlinear")
        self.layers = nn.ModuleDict({"body": body, "head": head})
        self.part = self.layers
        self.entropy = torch.ones(classes)

    def loss(self, batch: WindowBatch) -> torch.Tensor:
        frozen = not self.method.scratch and int(batch.number.min()) < self.method.head_first
        window = Window(batch.image, batch.body, batch.condition)
        return mask_loss(self._logits(window, frozen), batch.target, batch.known, self.entropy)

    def _features(self, window: Window) -> torch.Tensor:
        """(B, F, d, h, w) at half the resolution of the window."""
        levels = decoder_activations(self.layers["body"], window.image, window.condition, self.method.sigma)
        shape = levels[0].shape[2:]
        levels = [functional.interpolate(level.float(), shape, mode="trilinear") for level in levels]
        place = functional.avg_pool3d(window.body, 2)
        return torch.cat([haar_forward(window.image), place, *levels], dim=1)

    def _logits(self, window: Window, frozen: bool = False) -> torch.Tensor:
        """(B, C, D, H, W)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            features = self._features(window)
        batch, _, d, h, w = features.shape
        cells = self.layers["head"](features.movedim(1, -1).flatten(0, -2)).reshape(batch, d, h, w, -1, 2, 2, 2)
        return cells.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(batch, self.classes, 2 * d, 2 * h, 2 * w)

    @torch.no_grad()
    def precompute(self, examples: Sequence[LabeledInput], budget: InferenceBudget, meter: ProgressMeter) -> None:
        """Into the head mean and deviation of the activations in training windows, and each class' share."""
        samples = self.method.samples(examples, 0, 0, STANDARD_WINDOWS)
        activations = []
        for number in range(STANDARD_WINDOWS):
            meter.check()
            batch = self.method.collate([samples[number]])
            image, body = batch.image.to(budget.device), batch.body.to(budget.device)
            window = Window(image, body, batch.condition.to(budget.device))
            activations.append(self._features(window).movedim(1, -1).flatten(0, -2))
        self.layers["head"].standardize(torch.cat(activations))  # type: ignore[operator]
        shares = window_shares(examples, self.method.window)
        self.layers["head"].start_from(shares)  # type: ignore[operator]
        self.entropy = share_entropy(shares)

    @torch.inference_mode()
    def predict(
        self, inputs: SegmentationInput, budget: InferenceBudget, meter: ProgressMeter | None = None
    ) -> Prediction:
        return blended_prediction(inputs, budget, self.divisor, self.classes, self._logits, meter)


def blended_prediction(
    inputs: SegmentationInput,
    budget: InferenceBudget,
    divisor: int,
    classes: int,
    logits: Any,
    meter: ProgressMeter | None,
) -> Prediction:
    """Prediction of a network without chance: probabilities of overlapping windows, averaged."""

    def predict(window: Window, boxes: Sequence[Box]) -> torch.Tensor:
        return logits(window).float().sigmoid()

    probability = blend(inputs, budget, divisor, classes, predict, meter).clamp(0, 1)
    return Prediction(probability, (probability * (1 - probability)).sqrt())


def _reset(module: nn.Module) -> None:
    """Fresh weights everywhere, by each layer's own rule."""
    for layer in module.modules():
        reset = getattr(layer, "reset_parameters", None)
        if reset is not None:
            reset()
