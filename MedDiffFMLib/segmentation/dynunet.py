"""MONAI's DynUNet from scratch: nnU-Net's network, the baseline of the other methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from ..core.lean_monai import lean_monai
from ..core.progress import ProgressMeter
from .inputs import LabeledInput, SegmentationInput
from .loss import mask_loss, share_entropy
from .method import InferenceBudget, Prediction, Segmenter
from .point_head import share_logits
from .sliding_window import Window
from .unet import blended_prediction
from .window_dataset import WindowBatch, WindowSamples, collate_windows, window_shares


@dataclass(frozen=True)
class DynUNetMethod:
    """See :class:`.method.Method`.

    Attributes:
        filters: channels of each level.
        flip: learn from mirrored windows too, for structures without a side.
    """

    window: int = 64
    filters: Sequence[int] = (16, 32, 64, 128)
    flip: bool = False

    name = "dynunet"
    own_body = False

    def build(self, classes: int, prior: nn.Module) -> Segmenter:
        return DynUNetSegmenter(self, classes)

    def samples(self, examples: Sequence[LabeledInput], seed: int, first: int, count: int) -> Dataset:
        return WindowSamples(examples, self.window, seed, first, count, self.flip)

    def collate(self, samples: list[dict[str, Any]]) -> WindowBatch:
        return collate_windows(samples)


class DynUNetSegmenter(Segmenter):
    """CT in a wide and a soft-tissue window, and body coordinates, to masks."""

    def __init__(self, method: DynUNetMethod, classes: int) -> None:
        super().__init__()
        lean_monai()
        from monai.networks.nets import DynUNet

        levels = len(method.filters)
        self.method, self.classes, self.divisor = method, classes, 2 ** (levels - 1)
        self.entropy = torch.ones(classes)
        self.part = DynUNet(
            spatial_dims=3,
            in_channels=5,
            out_channels=classes,
            kernel_size=[3] * levels,
            strides=[1] + [2] * (levels - 1),
            upsample_kernel_size=[2] * (levels - 1),
            filters=list(method.filters),
            norm_name=("INSTANCE", {"affine": True}),
        )

    def loss(self, batch: WindowBatch) -> torch.Tensor:
        logits = self._logits(Window(batch.image, batch.body, batch.condition))
        return mask_loss(logits, batch.target, batch.known, self.entropy)

    def _logits(self, window: Window) -> torch.Tensor:
        soft = ((window.image - 0.04) / 0.2).clamp(-1, 1)
        return self.part(torch.cat([window.image, soft, window.body], dim=1))

    @torch.no_grad()
    def precompute(self, examples: Sequence[LabeledInput], budget: InferenceBudget, meter: ProgressMeter) -> None:
        """Have the fresh network expect each class as often as it is in training windows."""
        last = self.part.get_submodule("output_block.conv.conv")
        assert isinstance(last, nn.Conv3d) and last.bias is not None
        shares = window_shares(examples, self.method.window)
        last.bias.copy_(share_logits(shares))
        self.entropy = share_entropy(shares)

    @torch.inference_mode()
    def predict(
        self, inputs: SegmentationInput, budget: InferenceBudget, meter: ProgressMeter | None = None
    ) -> Prediction:
        return blended_prediction(inputs, budget, self.divisor, self.classes, self._logits, meter)
