"""Interface of a segmentation method, all that fine-tuning, the ``segment`` task and the experiments know of one.

A :class:`Method` is its options: a frozen dataclass without tensors that draws samples in any process and builds a
:class:`Segmenter`, the network. Each method is one row of METHODS, which stands in the file of a trained head.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import nn
from torch.utils.data import Dataset

from ..core.errors import InputError
from ..core.precision import autocast
from ..core.progress import ProgressMeter
from .inputs import LabeledInput, SegmentationInput
from .registry import METHODS


class Prediction(NamedTuple):
    """Prediction of a method for a CT; float32 on the CPU.

    Attributes:
        probabilities: (C, D, H, W); classes are independent of each other (sigmoids).
        uncertainty: (C, D, H, W): standard deviation of the label, 0 to 0.5. Among the samples where there are
            several, else that of a coin with the class' probability.
    """

    probabilities: torch.Tensor
    uncertainty: torch.Tensor


@dataclass(frozen=True)
class InferenceBudget:
    """Device, precision and memory of a prediction.

    Attributes:
        device: where the network runs.
        dtype: of its arithmetic, see :meth:`autocast`; None for what the device computes fast.
        batch: windows a call.
        window: largest edge of a window in voxels.
        samples: size of an ensemble; None for the method's own choice. A method without chance ignores it.
        seed: of whatever is random.
    """

    device: torch.device
    dtype: torch.dtype | None = None
    batch: int = 2
    window: int = 64
    samples: int | None = None
    seed: int = 0

    def autocast(self) -> torch.autocast:
        """Context in which the networks are computed."""
        return autocast(self.device, self.dtype or "auto")


class Segmenter(nn.Module):
    """A network of a method with what it needs of the prior.

    Attributes:
        part: the trained weights, and nothing else: what is saved, averaged and given to the optimizer. The prior,
            if it is used frozen, is another attribute, whose weights are shared by all copies.
    """

    part: nn.Module

    def loss(self, batch: Any) -> torch.Tensor:
        """Loss of each sample (B,), on the batch's device; called inside autocast for bfloat16."""
        raise NotImplementedError

    def predict(
        self, inputs: SegmentationInput, budget: InferenceBudget, meter: ProgressMeter | None = None
    ) -> Prediction:
        """Segment a whole CT; ``part`` is on ``budget.device`` already. Advances the meter by 1 in all.

        Raises:
            Cancelled: the meter says so.
        """
        raise NotImplementedError

    def precompute(self, examples: Sequence[LabeledInput], budget: InferenceBudget, meter: ProgressMeter) -> None:
        """Compute once, into each example's folder, what training reads again and again; nothing by default.

        Args:
            meter: advanced by 1 for each example that needs work; its stage says which.
        """


class Method(Protocol):
    """Options of a method; a frozen dataclass that :func:`make_method` builds.

    Attributes:
        name: row of METHODS.
        window: edge of the training windows in voxels.
        own_body: whether what it trains includes a body of its own instead of the prior's.
    """

    window: int
    own_body: ClassVar[bool]

    @property
    def name(self) -> str: ...

    def build(self, classes: int, prior: nn.Module) -> Segmenter:
        """The network with fresh weights.

        Args:
            classes: C, at least 1, background not counted.
            prior: the prior's denoiser (``prior.network`` is a Backbone); must not be changed.
        """

    def samples(self, examples: Sequence[LabeledInput], seed: int, first: int, count: int) -> Dataset:
        """Samples [first, first + count) of a run: dicts; item n is a pure function of (seed, first + n), with its
        example's name as "case"."""

    def collate(self, samples: list[dict[str, Any]]) -> Any:
        """Samples -> a NamedTuple of what has ``.to(device)``, on the CPU."""


def make_method(name: str, options: dict[str, Any]) -> Method:
    """A method by name; options that it does not know are refused.

    Raises:
        InputError: no such method or option.
    """
    if name not in METHODS:
        raise InputError(f"There is no segmentation method called {name!r}.", f"Choose {', '.join(METHODS)}.")
    row = METHODS[name]
    kind = getattr(importlib.import_module(row.module), row.options)
    unknown = sorted(set(options) - {field.name for field in fields(kind)})
    if unknown:
        known = ", ".join(field.name for field in fields(kind))
        raise InputError(f"The method {name} has no option {unknown[0]!r}.", f"Known are: {known}.")
    return kind(**options)


def options_of(method: Any) -> dict[str, Any]:
    """Options with which :func:`make_method` builds the same method; JSON-ready."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(method).items()}
