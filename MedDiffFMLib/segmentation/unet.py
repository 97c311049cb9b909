"""The prior's own U-Net fine-tuned to segment, head first and then all of it; or the same body from random weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from ..inference.control import ProgressMeter
from ..inference.patches import Box
from ..networks.haar import haar_forward
from .activations import decoder_activations, decoder_channels
from .heads import SUBVOXELS
from .loss import mask_loss
from .method import Pace, Prediction, Segmenter
from .sight import Example, Sight
from .windows import Window, WindowBatch, WindowSamples, blend, collate_windows


@dataclass(frozen=True)
class UNetMethod:
    """See :class:`.method.Method`.

    Attributes:
        scratch: start from random weights instead of the prior's.
        head_first: samples for which the body stays as it is while the head learns.
        sigma: noise level that the network is told, in units of 1000 HU.
    """

    window: int = 64
    scratch: bool = False
    head_first: int = 200
    sigma: float = 0.1

    name = "unet"

    def build(self, classes: int, prior: nn.Module) -> Segmenter:
        return UNetSegmenter(self, classes, prior)

    def samples(self, examples: Sequence[Example], seed: int, first: int, count: int) -> Dataset:
        return WindowSamples(examples, self.window, seed, first, count)

    def collate(self, samples: list[dict[str, Any]]) -> WindowBatch:
        return collate_windows(samples)


class UNetSegmenter(Segmenter):
    """A copy of the prior and a 1x1x1 head on the finest level of its decoder and the voxels themselves."""

    def __init__(self, method: UNetMethod, classes: int, prior: nn.Module) -> None:
        super().__init__()
        self.method, self.classes = method, classes
        body = copy.deepcopy(prior)
        if method.scratch:
            _reset(body)
        self.divisor: int = body.network.config.divisor  # type: ignore[union-attr, assignment]
        head = nn.Conv3d(decoder_channels(prior)[0] + 8 + 3, SUBVOXELS * classes, 1)
        self.layers = nn.ModuleDict({"body": body, "head": head})
        self.part = self.layers

    def loss(self, batch: WindowBatch) -> torch.Tensor:
        frozen = not self.method.scratch and int(batch.number.min()) < self.method.head_first
        window = Window(batch.image, batch.body, batch.condition)
        return mask_loss(self._logits(window, frozen), batch.target, batch.known)

    def _logits(self, window: Window, frozen: bool = False) -> torch.Tensor:
        """(B, C, D, H, W)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            finest = decoder_activations(self.layers["body"], window.image, window.condition, self.method.sigma)[0]
        place = nn.functional.avg_pool3d(window.body, 2)
        cells = self.layers["head"](torch.cat([finest.float(), haar_forward(window.image), place], dim=1))
        batch, _, d, h, w = cells.shape
        voxels = cells.reshape(batch, self.classes, 2, 2, 2, d, h, w).permute(0, 1, 5, 2, 6, 3, 7, 4)
        return voxels.reshape(batch, self.classes, 2 * d, 2 * h, 2 * w)

    @torch.inference_mode()
    def predict(self, sight: Sight, pace: Pace, meter: ProgressMeter | None = None) -> Prediction:
        return blended_prediction(sight, pace, self.divisor, self.classes, self._logits, meter)


def blended_prediction(
    sight: Sight, pace: Pace, divisor: int, classes: int, logits: Any, meter: ProgressMeter | None
) -> Prediction:
    """Prediction of a network without chance: probabilities of overlapping windows, averaged."""

    def see(window: Window, boxes: Sequence[Box]) -> torch.Tensor:
        return logits(window).float().sigmoid()

    probability = blend(sight, pace, divisor, classes, see, meter).clamp(0, 1)
    return Prediction(probability, (probability * (1 - probability)).sqrt())


def _reset(module: nn.Module) -> None:
    """Fresh weights everywhere, by each layer's own rule."""
    for layer in module.modules():
        reset = getattr(layer, "reset_parameters", None)
        if reset is not None:
            reset()
