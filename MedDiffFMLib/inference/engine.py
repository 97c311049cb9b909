"""Inference engine: device, precision, batching, out-of-memory fallback."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import nn

from ..conditioning.condition import EncodedCondition
from ..core import devices
from ..core.devices import choose_device, is_accelerator
from ..core.errors import DeviceError, tells_of_memory
from ..core.precision import autocast, choose_precision
from .direct_convolution import convolve_directly
from .memory_plan import BATCH_ON_CPU, batch_for, plan_memory
from .upsample_fusion import fold_upsampling

T = TypeVar("T")

WINDOW = 80
"""Largest window edge: a quarter more than in training, where fewer voxels are computed twice at the same quality."""


@dataclass(frozen=True)
class MemoryLevel:
    """Memory use of the engine, lowered when memory runs out.

    Attributes:
        device: where the network runs.
        batch: windows a call.
        window: largest window edge in voxels.
        host: keep whole-volume sums in host memory.
    """

    device: torch.device
    batch: int
    window: int
    host: bool = False

    def lower(self) -> tuple[MemoryLevel, str] | None:
        """The next lower level and a sentence for the user; None at the lowest."""
        if self.batch > 1:
            return replace(self, batch=self.batch // 2), f"Memory ran out: {self.batch // 2} windows at a time now."
        if self.window > 32:
            smaller = self.window - 16
            return replace(self, window=smaller), f"Memory ran out: windows of {smaller} voxels now."
        if self.device.type != "cpu" and not self.host:
            return replace(self, host=True), "Memory ran out: sums are kept in host memory now."
        if self.device.type != "cpu":
            return self.on_cpu(), "GPU memory ran out even for one small window: going on, slower, on the CPU."
        return None

    def on_cpu(self) -> MemoryLevel:
        """The same without the GPU."""
        return MemoryLevel(torch.device("cpu"), 1, self.window, True)


def repeatable(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Context in which a GPU's convolutions give the same bits in every run, and float32 is not rounded to TF32.

    cuDNN's benchmark is off: it chooses kernels by the clock, and tries them anew, for seconds, with each size of
    batch and window, of which a run has several.
    """
    if device.type != "cuda":
        return contextlib.nullcontext()
    return torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, deterministic=True, allow_tf32=False)


def is_out_of_memory(error: BaseException) -> bool:
    """True for the ways in which allocations fail on a CPU and on accelerators."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and tells_of_memory(str(error).lower())


class Engine:
    """A denoiser on a device.

    Args:
        denoiser: module (x, sigma, condition) -> x0.
        device, precision: see :func:`core.devices.choose_device` and :func:`core.precision.choose_precision`.
        window: largest window edge in voxels.
        memory: bytes of the device that may be used; None for what is free on a GPU.

    Attributes:
        memory_level: the present level; stays low for the rest of the session once it was lowered.
        on_warning: called with a sentence when memory ran out; a log warning by default.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        device: str = "auto",
        precision: str = "auto",
        window: int = WINDOW,
        memory: int | None = None,
    ) -> None:
        chosen = choose_device(device)
        self.dtype = choose_precision(precision, chosen)
        self.divisor: int = denoiser.network.config.divisor  # type: ignore[union-attr, assignment]
        self.memory_level = MemoryLevel(chosen, BATCH_ON_CPU, window)
        self.on_warning: Callable[[str], None] = logging.getLogger(__name__).warning
        self.calls = 0
        self._memory = memory
        self._denoiser = denoiser.eval().requires_grad_(False)
        self._place()
        if is_accelerator(self.memory_level.device):
            self.memory_level = replace(self.memory_level, batch=batch_for(self.free_memory(), window))

    @property
    def device(self) -> torch.device:
        """Device on which the network runs now."""
        return self.memory_level.device

    @property
    def precision(self) -> str:
        """Name of the network's number type."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def denoiser(self) -> nn.Module:
        """Denoiser that runs now."""
        return self._denoiser

    @contextlib.contextmanager
    def running(self, denoiser: nn.Module) -> Iterator[Engine]:
        """Another denoiser of the same windows in place of the engine's own inside a ``with`` block.

        Device, memory level, warnings and count of calls stay shared, as do the weights of a prior that
        both contain.
        """
        before, self._denoiser = self._denoiser, denoiser.eval().requires_grad_(False)
        try:
            self._place()
            yield self
        finally:
            self._denoiser = before
            self._place()

    def free_memory(self) -> int | None:
        """Bytes that a run may use on a GPU, what earlier ones left included; on the CPU the given limit, or None."""
        device = self.memory_level.device
        free = devices.free_memory(device)
        if free is None or self._memory is None:
            return self._memory if free is None else free
        return min(free, self._memory - devices.allocated_memory(device))

    def home(self, voxels: int) -> torch.device:
        """Device that holds an image of so many voxels and its estimate in a step: the network's if there is room."""
        plan = plan_memory(voxels, self.free_memory(), self.memory_level.window)
        return torch.device("cpu") if self.memory_level.host or plan.host else self.memory_level.device

    def _place(self) -> None:
        fold_upsampling(self._denoiser)
        convolve_directly(self._denoiser)
        try:
            self._denoiser.to(device=self.memory_level.device)
            self._denoiser.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        except RuntimeError as error:
            if self.memory_level.device.type == "cpu" or not is_out_of_memory(error):
                raise
            # Not the next level: smaller batches would leave half of the weights behind.
            self.memory_level = self.memory_level.on_cpu()
            self.on_warning("GPU memory does not hold even the network: going on, slower, on the CPU.")
            self._place()

    def reduce_memory(self, error: BaseException) -> None:
        """Use less memory from now on; raises DeviceError when nothing is left to give up."""
        lower = self.memory_level.lower()
        if lower is None:
            raise DeviceError(
                "There is too little memory even for one window of 32 voxels.", "Close other programs and run again."
            ) from error
        before, (self.memory_level, sentence) = self.memory_level, lower
        devices.give_back_memory(before.device)
        self.on_warning(sentence)
        if self.memory_level.device != before.device:
            self._place()

    def retry_on_oom(self, compute: Callable[[], T]) -> T:
        """Result of a computation, repeated with less memory each time that memory runs out.

        Args:
            compute: looks at :attr:`memory_level` anew in every attempt, and may be interrupted anywhere.

        Raises:
            DeviceError: nothing is left to give up.
        """
        while True:
            try:
                return compute()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self.reduce_memory(error)

    @torch.inference_mode()
    def denoise(self, x: torch.Tensor, sigma: float, condition: EncodedCondition) -> torch.Tensor:
        """One network call: x (B, 1, d, h, w) and condition on the device -> x0 float32."""
        self.calls += 1
        level = torch.full((len(x),), sigma, device=x.device)
        with repeatable(x.device), autocast(x.device, self.dtype):
            return self._denoiser(x, level, condition).float()
