"""Devices: what PyTorch's kinds of accelerator are asked for is decided here alone.

NVIDIA's and AMD's GPUs are PyTorch's "cuda", Intel's are "xpu", Apple's "mps". What a kind cannot compute, PyTorch
computes on the CPU where :func:`allow_fallback` was called before it was imported.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from .errors import DeviceError, InputError

if TYPE_CHECKING:
    import torch

AUTOMATIC = "auto"
"""Device and precision are chosen by what the computer has."""
CPU = "cpu"
KINDS = ("cuda", "xpu", "mps")
"""Kinds of accelerator, the first that computes is taken where nothing is asked for."""
TITLES = {"cuda": "CUDA", "xpu": "Intel GPU", "mps": "Apple GPU"}
DEVICE_HELP = "auto, cpu, cuda, cuda:1, xpu, mps ... (default: auto)"
FAST_BFLOAT16_AMD = ("gfx908", "gfx90a", "gfx94", "gfx95", "gfx11", "gfx12")
"""AMD's architectures, or how their names begin, that compute bfloat16 themselves: CDNA, and RDNA from 3 on."""


def allow_fallback() -> None:
    """Let PyTorch compute on the CPU what an Apple or Intel GPU lacks; of use before torch is imported only."""
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
    os.environ.setdefault("PYTORCH_ENABLE_XPU_FALLBACK", "1")


def choose_device(requested: str) -> torch.device:
    """ "auto", "cpu", or a kind with or without a number, such as "cuda" or "xpu:1" -> device.

    Raises:
        InputError: there is no such kind.
        DeviceError: it is not in this computer, or this PyTorch cannot use it.
    """
    import torch

    if requested == AUTOMATIC:
        found = (f"{kind}:0" for kind in KINDS if count(kind) and computes(f"{kind}:0"))
        return torch.device(next(found, CPU))
    try:
        device = torch.device(requested)
    except RuntimeError:
        device = None
    if device is None or device.type not in (CPU, *KINDS):
        raise InputError(
            f"There is no kind of device called {requested!r:.40}.", f"Use auto, cpu, {', '.join(KINDS)} or cuda:1."
        )
    if device.type == CPU:
        return device
    there = count(device.type)
    if (device.index or 0) >= there:
        raise DeviceError(
            f"{requested} was asked for, but PyTorch {torch.__version__} sees {there} {TITLES[device.type]} devices.",
            "Use --device cpu, or install a build of PyTorch for that device and a current driver.",
        )
    return torch.device(device.type, device.index or 0)


def count(kind: str) -> int:
    """Number of accelerators of a kind that PyTorch sees."""
    import torch

    if kind == "mps":
        return int(torch.backends.mps.is_available())
    module = _module(kind)
    return int(module.device_count()) if module is not None and module.is_available() else 0


def computes(device: str) -> bool:
    """Whether an accelerator that is there can be used: this PyTorch may be too new for it, another program may hold
    it, or its kind may lack three-dimensional convolutions."""
    import torch

    try:
        image = torch.ones(1, 1, 3, 3, 3, device=device)
        return bool(torch.nn.functional.conv3d(image, image).item() == 27)
    except (RuntimeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        logging.getLogger(__name__).warning("The GPU cannot be used: going on, slower, on the CPU. %s", reason)
        return False


def is_accelerator(device: torch.device) -> bool:
    """Whether a device has a memory of its own account, which may run out."""
    return device.type in KINDS


def is_fast_in_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 pays. Older GPUs emulate it, slower than they compute float32, and PyTorch calls that supported;
    Apple's are as fast in float32. Processors without instructions for it take a hundred times as long."""
    import torch

    if device.type == CPU:
        return _processor_has_bfloat16()
    if device.type == "cuda" and torch.version.hip:
        return str(torch.cuda.get_device_properties(device).gcnArchName).startswith(FAST_BFLOAT16_AMD)
    if device.type == "cuda":
        return bool(torch.cuda.get_device_capability(device) >= (8, 0))
    return device.type == "xpu" and bool(torch.xpu.is_bf16_supported())


def _processor_has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 by itself: AVX-512 BF16, AMX, or ARM's. PyTorch's own question is
    also answered with yes where AVX-512 emulates it."""
    import platform

    import torch

    try:
        if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
    except (AttributeError, RuntimeError):  # a build of PyTorch without oneDNN
        return False
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # PyTorch 2.6
    return native is None or platform.machine().lower() not in ("x86_64", "amd64") or bool(native())


def free_memory(device: torch.device) -> int | None:
    """Bytes of an accelerator that this process may use, what it holds in reserve included; None for a CPU."""
    import torch

    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    module = _module(device.type)
    if module is None:
        return None
    free, _ = module.mem_get_info(device)
    return int(free + module.memory_reserved(device) - module.memory_allocated(device))


def allocated_memory(device: torch.device) -> int:
    """Bytes of an accelerator that this process's tensors take; 0 for a CPU."""
    import torch

    if device.type == "mps":
        return int(torch.mps.current_allocated_memory())
    module = _module(device.type)
    return 0 if module is None else int(module.memory_allocated(device))


def give_back_memory(device: torch.device) -> None:
    """Give what is held in reserve back to the driver."""
    module = _module(device.type)
    if module is not None:
        module.empty_cache()


def synchronize(device: torch.device) -> None:
    """Wait until an accelerator has done all it was given."""
    module = _module(device.type)
    if module is not None and device.type == "mps":
        module.synchronize()
    elif module is not None:
        module.synchronize(device)


def reset_peak_memory() -> None:
    """Begin the peaks of :func:`peak_memory` anew."""
    for module in _counting_modules().values():
        for device in range(module.device_count()):
            module.reset_peak_memory_stats(device)


def peak_memory() -> dict[str, int]:
    """Most bytes that tensors took on one device, by kind; kinds that this process does not use, and Apple's, which
    keeps no such count, are left out."""
    return {
        kind: max(int(module.max_memory_allocated(device)) for device in range(module.device_count()))
        for kind, module in _counting_modules().items()
    }


def title(device: torch.device | str) -> str:
    """Name of an accelerator as its maker gives it."""
    import torch

    device = torch.device(device)
    if device.type == "mps":
        return TITLES["mps"]
    module = _module(device.type)
    return CPU if module is None else str(module.get_device_name(device))


def total_memory(device: torch.device | str) -> int | None:
    """Bytes of an accelerator; of Apple's, what PyTorch is advised to use of the main memory."""
    import torch

    device = torch.device(device)
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory())
    module = _module(device.type)
    return None if module is None else int(module.get_device_properties(device).total_memory)


def _module(kind: str) -> Any:
    """PyTorch's module of a kind of accelerator, None for the CPU."""
    import torch

    return getattr(torch, kind, None) if kind in KINDS else None


def _counting_modules() -> dict[str, Any]:
    """Modules that count memory, of the kinds that this process has begun to use, by kind."""
    torch = sys.modules.get("torch")
    if torch is None:
        return {}
    modules = {kind: getattr(torch, kind, None) for kind in KINDS if kind != "mps"}
    return {kind: module for kind, module in modules.items() if module is not None and module.is_initialized()}
