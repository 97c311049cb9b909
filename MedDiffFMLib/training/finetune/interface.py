"""Interface of a fine-tuning task: samples, loss, validation.

The loop that trains a ControlNet knows none of the tasks. It draws samples by number, collates them, asks for the loss
and, now and then, for the task's own figures; everything else about super-resolution or lesions is behind this.

Everything random about sample n is decided where the sample is drawn, noise included, from a generator seeded with
(seed, n): a resumed run, and one that is divided among processes, see the same samples with the same noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch.utils.data import Dataset

from ...conditioning.condition import EncodedCondition, stack
from ...datasets.prepared_cases import Case

if TYPE_CHECKING:
    from ...diffusion.controlled_denoiser import ControlledDenoiser
    from ...networks.controlnet import ControlConfig
    from .preview import Preview

VALIDATION_SEED = 12345
"""Of all that a task draws for its validation: the same at every step of every run."""


@dataclass(frozen=True)
class ControlCase:
    """One case to fine-tune on.

    Attributes:
        case: the prepared CT.
        mask: what ``np.asarray`` makes (k, j, i) uint8 on the grid of ``case.levels[0]`` of; 0 is none, each other
            number one lesion. None where the task needs no mask.
    """

    case: Case
    mask: Any = None


class ControlBatch(NamedTuple):
    """Input of one training step.

    Attributes:
        x0: (B, 1, S, S, S) clean windows in the network's range.
        sigma: (B,) noise levels.
        noise: (B, 1, S, S, S) unit noise.
        condition: encoded, with ``control``; ``expected`` and ``hole`` where the task fills holes.
    """

    x0: torch.Tensor
    sigma: torch.Tensor
    noise: torch.Tensor
    condition: EncodedCondition


class NoisyWindows:
    """Batch and loss of a task whose samples are windows with noise: ``x0``, ``sigma``, ``noise`` and ``condition``."""

    def collate(self, samples: list[dict[str, Any]]) -> ControlBatch:
        return ControlBatch(
            torch.cat([sample["x0"] for sample in samples]),
            torch.tensor([sample["sigma"] for sample in samples], dtype=torch.float32),
            torch.cat([sample["noise"] for sample in samples]),
            stack([sample["condition"].encode(tuple(sample["x0"].shape[2:])) for sample in samples]),
        )

    def loss(self, denoiser: ControlledDenoiser, batch: ControlBatch) -> torch.Tensor:
        return denoiser.loss(batch.x0, batch.sigma, batch.noise, batch.condition)


class ControlTask(Protocol):
    """One task that a ControlNet can be trained for.

    Attributes:
        name: "super-resolution" or "lesion"; stands in the file of the ControlNet.
        needs_mask: whether every case must come with a mask that is not empty.
        metric: key of :meth:`validate`'s figures that decides which checkpoint is kept.
        higher_is_better: whether a larger figure is the better one.
        window: edge of the training windows in voxels.
    """

    name: str
    needs_mask: bool
    metric: str
    higher_is_better: bool
    window: int

    def network(self) -> ControlConfig:
        """Size and inputs of the ControlNet that the task trains."""

    def check(self, cases: Sequence[ControlCase]) -> list[str]:
        """Complaints and doubts about the cases for this task, one sentence each.

        Raises:
            InputError: none of them can be used.
        """

    def samples(self, cases: Sequence[ControlCase], seed: int, first: int, count: int) -> Dataset:
        """Samples [first, first + count) of a run; item n is a pure function of (seed, first + n), with its "case"."""

    def collate(self, samples: list[dict[str, Any]]) -> ControlBatch:
        """Samples -> a batch, on the CPU."""

    def loss(self, denoiser: ControlledDenoiser, batch: ControlBatch) -> torch.Tensor:
        """Loss of each sample (B,), on the batch's device; call it inside :func:`core.precision.autocast`."""

    def validate(
        self,
        denoiser: ControlledDenoiser,
        cases: Sequence[ControlCase],
        preview: Preview | None = None,
        precision: str = "auto",
    ) -> dict[str, float]:
        """The task's own figures on fixed windows of unseen cases; ``metric`` is among them.

        Runs on the device of the denoiser's weights, in ``precision``; changes no random state.

        Args:
            preview: is given slices of what was made.
            precision: "auto" or "float32", see :func:`core.precision.choose_precision`.
        """

    def settings(self, cases: Sequence[ControlCase]) -> dict[str, Any]:
        """Settings that inference must know of the training cases, JSON-ready; goes into the file of the ControlNet."""
