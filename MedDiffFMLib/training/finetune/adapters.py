"""Adapters: the trained part, its attachment to the frozen prior, its file.

Fine-tuning knows only :class:`Adapter`; a ControlNet is one. :class:`AdaptedModule` is what the training loop sees: a
module whose weights are those of the trained part alone, so that checkpoint, average and optimizer leave the prior out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from ...core.errors import InputError
from ...core.precision import autocast
from ...core.progress import ProgressMeter
from .config import FinetuneConfig
from .interface import ControlCase, ControlTask


class Adapter:
    """Join of a trained part and the prior.

    Attributes:
        kind: of the catalogue's entry.
        does_task_untrained: whether the fresh part does the task as well as the prior alone; else a figure of before
            the training says nothing and would only be waited for.
    """

    kind: str
    does_task_untrained = True

    def fitted(
        self,
        task: ControlTask,
        cases: Sequence[ControlCase],
        data: Path,
        labels: tuple[int, ...],
        prior: dict[str, str],
        precision: str,
    ) -> ControlTask:
        """The task with what only the training cases decide, such as the number of classes.

        Args:
            data: dataset folder or datalist that the cases come from.
            labels: numbers in the masks that count; empty for all.
            prior: ``name`` and ``sha256``.
            precision: of the run, "float32" or "bfloat16".
        """
        return task

    def precompute(
        self,
        denoiser: nn.Module,
        task: ControlTask,
        training: Sequence[ControlCase],
        meter: ProgressMeter,
        precision: str,
    ) -> None:
        """Compute once what training looks at again and again; what an earlier start computed is kept.

        What validation needs of its cases is computed by the first one, so that training begins before.

        Args:
            meter: a unit is a case; its stage names the present one.
        """

    def attach(self, denoiser: nn.Module, task: ControlTask) -> nn.Module:
        """The prior's denoiser with a fresh part beside it; the prior's own weights are frozen."""
        raise NotImplementedError

    def part(self, denoiser: nn.Module) -> nn.Module:
        """The trained part of what :meth:`attach` gave."""
        raise NotImplementedError

    def start_from(self, denoiser: nn.Module, spec: str, task: ControlTask) -> None:
        """Give the trained part the weights of a model.

        Raises:
            InputError: this kind cannot.
            ModelError: it does not fit.
        """
        raise InputError(f"A {self.kind} model starts from the prior alone.", "Leave --initial out.")

    def save(
        self,
        path: Path,
        denoiser: nn.Module,
        task: ControlTask,
        prior: dict[str, str],
        settings: dict[str, Any],
        training: dict[str, Any],
    ) -> str:
        """Write the trained part atomically; returns the file's SHA-256.

        Args:
            prior: ``name`` and ``sha256``.
            settings: what inference must know, see :meth:`.interface.ControlTask.settings`.
            training: facts of the training.
        """
        raise NotImplementedError

    def finish(
        self,
        path: Path,
        denoiser: nn.Module,
        task: ControlTask,
        training: Sequence[ControlCase],
        validation: Sequence[ControlCase],
        config: FinetuneConfig,
        steps: int,
        precision: str,
        meter: ProgressMeter,
    ) -> list[str]:
        """Add to the kept file what only the finished part tells, such as temperatures; the same each time.

        Args:
            path: what :meth:`save` wrote.
            denoiser: of :meth:`attach`; its trained part may be changed, nothing is trained after this.
            validation: cases that nothing was learned from; may be empty.
            steps: to the kept checkpoint.

        Returns:
            Sentences for the user.
        """
        return []


class ControlAdapter(Adapter):
    """A ControlNet, see :mod:`networks.controlnet`."""

    kind = "control"

    def attach(self, denoiser: nn.Module, task: ControlTask) -> nn.Module:
        from ...diffusion.controlled_denoiser import with_control

        return with_control(cast(Any, denoiser.requires_grad_(False)), task.network())

    def part(self, denoiser: nn.Module) -> nn.Module:
        return cast(nn.Module, denoiser.control)

    def start_from(self, denoiser: nn.Module, spec: str, task: ControlTask) -> None:
        from ...models.controlnet_file import start_from

        start_from(cast(Any, self.part(denoiser)), spec, task.name)

    def save(
        self,
        path: Path,
        denoiser: nn.Module,
        task: ControlTask,
        prior: dict[str, str],
        settings: dict[str, Any],
        training: dict[str, Any],
    ) -> str:
        from ...models.controlnet_file import save_control

        branch = cast(Any, self.part(denoiser))
        return save_control(path, branch, task=task.name, prior=prior, settings=settings, training=training)


class AdaptedModule(nn.Module):
    """Forward returns the mean loss, so that one distributed call holds the whole step.

    Attributes:
        losses: (B,) of the last batch, to find the samples whose loss is not finite.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        part: nn.Module,
        loss: Callable[[Any, Any], torch.Tensor],
        precision: str = "auto",
    ) -> None:
        super().__init__()
        self.part = part.requires_grad_(True).train()
        self._denoiser = (denoiser,)  # in a tuple, so that the prior's weights are not listed
        self._loss = loss
        self._precision = precision
        self.losses = torch.zeros(0)

    @property
    def denoiser(self) -> nn.Module:
        """Prior and trained part as one denoiser."""
        return self._denoiser[0]

    def forward(self, batch: Any) -> torch.Tensor:
        device = next(self.part.parameters()).device
        with autocast(device, self._precision):
            losses = self._loss(self.denoiser, batch).float()
        self.losses = losses.detach()
        return losses.mean()

    def __deepcopy__(self, memo: dict[int, Any]) -> AdaptedModule:
        """A copy with its own part that shares the prior's weights."""
        own = {id(tensor) for tensor in self.part.state_dict(keep_vars=True).values()}
        for tensor in (*self.denoiser.parameters(), *self.denoiser.buffers()):
            if id(tensor) not in own:
                memo[id(tensor)] = tensor
        twin = AdaptedModule.__new__(AdaptedModule)
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return twin
