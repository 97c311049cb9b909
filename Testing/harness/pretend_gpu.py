"""A pretend accelerator for tests on a PyTorch that has none: ``with pretend_gpu(memory=2**30) as gpu``.

Tensors on ``cuda:0``, or on Intel's or Apple's kind of device, are a subclass whose values lie in a CPU tensor. Each
operation is computed there, so results are true, and what a real GPU refuses is refused in its words: operands on two
devices, ``.numpy()``, too little memory, float64 on Apple's.
C++ that asks for the device takes CUDA's branches, so autocast casts what it casts there and GroupNorm leaves
channels-last as it does there.

Bytes are counted by storage, in blocks of 512, as PyTorch's allocator does. A convolution counts the copy in
channels-last format that cuDNN needs where its input has another one; its workspace, cached blocks and fragmentation
are taken as zero.

What it cannot tell: time, CUDA's own kernels and their rounding, TF32, streams, graphs, fused optimizers, several GPUs.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import types
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_iter, tree_map

aten = torch.ops.aten
BLOCK = 512
NUMBERS = {"cuda": 1, "xpu": 12, "mps": 13}
META = 14
"""PyTorch's numbers of kinds of device."""
NAME = "Pretend GPU"
MIXED = (
    "Expected all tensors to be on the same device, but found at least two devices, {device} and cpu! (in {operation})"
)
NO_FLOAT64 = (
    "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64. "
    "Please use float32 instead."
)
COPIES = (aten._to_copy.default, aten.copy_.default)
INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)
AT_ONCE = {aten._conj.default: aten._conj_physical.default, aten._neg_view.default: aten.neg.default}
"""Of what PyTorch puts off by a flag: the flag is not looked at below the level on which these operations are seen."""
WAITING = (
    aten._local_scalar_dense.default,
    aten.equal.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
)
"""Operations that make the CPU wait for the GPU, as the shape or a number of what comes out depends on values."""


class Gpu:
    """The device's account.

    Attributes:
        memory: bytes that it has.
        live, peak: bytes of tensors now, and the most there were since the start or ``reset_peak_memory_stats``.
        waits: how often the CPU had to wait until the GPU had done all it was given: copies that block, ``.item()``.
        events: how often it waited for an event only.
    """

    def __init__(self, memory: int, autograd: bool, kind: str = "cuda") -> None:
        self.device = torch.device(kind, 0)
        self.memory, self.live, self.peak, self.waits, self.events = memory, 0, 0, 0, 0
        self.autograd = autograd
        self._storages: dict[int, list[int]] = {}  # address: bytes, tensors that share it
        self.pinned: set[int] = set()

    def hold(self, values: torch.Tensor) -> torch.Tensor:
        """Count the storage of a CPU tensor as the device's until the tensor is gone."""
        storage = values.untyped_storage()
        address, size = storage.data_ptr(), -(-storage.nbytes() // BLOCK) * BLOCK
        if address in self._storages:
            self._storages[address][1] += 1
        elif self.live + size > self.memory:
            raise torch.OutOfMemoryError(
                f"{self.device.type.upper()} out of memory. Tried to allocate {size / 2**20:.2f} MiB. "
                f"GPU 0 has a total capacity of {self.memory / 2**20:.2f} MiB of which "
                f"{(self.memory - self.live) / 2**20:.2f} MiB is free."
            )
        else:
            self._storages[address] = [size, 1]
            self.live += size
            self.peak = max(self.peak, self.live)
        weakref.finalize(values, self._release, address)
        return values

    def pin(self, values: torch.Tensor) -> torch.Tensor:
        """A CPU tensor whose memory counts as page-locked."""
        address = values.untyped_storage().data_ptr()
        self.pinned.add(address)
        weakref.finalize(values, self.pinned.discard, address)
        return values

    def is_pinned(self, values: torch.Tensor) -> bool:
        """Whether copies of a CPU tensor need nobody to wait."""
        return values.untyped_storage().data_ptr() in self.pinned

    def _release(self, address: int) -> None:
        entry = self._storages[address]
        entry[1] -= 1
        if entry[1] == 0:
            self.live -= entry[0]
            del self._storages[address]


class GpuTensor(torch.Tensor):
    """A tensor on the device; ``behind`` is the CPU tensor that holds its values."""

    behind: torch.Tensor
    gpu: Gpu

    @staticmethod
    def __new__(cls, values: torch.Tensor, gpu: Gpu) -> GpuTensor:
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            layout=values.layout,
            device=torch.device("cpu") if gpu.autograd else gpu.device,
        )
        made.behind, made.gpu = gpu.hold(values), gpu
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """As Python sees it; for C++ see :func:`pretend_gpu`."""
        return self.gpu.device

    def numpy(self, *, force: bool = False) -> Any:
        """As of any tensor that is not on the CPU."""
        if force:
            return self.cpu().numpy()
        raise TypeError(
            f"can't convert {self.gpu.device} device type tensor to numpy. "
            "Use Tensor.cpu() to copy the tensor to host memory first."
        )

    def tolist(self) -> Any:
        """By way of the CPU."""
        return self.cpu().tolist()

    def __tensor_flatten__(self) -> tuple[list[str], Any]:
        """Marks a wrapper that ``nn.Module.to`` may swap into a module."""
        return ["behind"], self.gpu

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, torch.Tensor], gpu: Any, size: Any, stride: Any) -> GpuTensor:
        return GpuTensor(inner["behind"], gpu)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        gpu = next(part.gpu for part in tree_iter((args, kwargs)) if isinstance(part, GpuTensor))
        return _Dispatch(gpu).compute(func, args, kwargs or {})


class _Dispatch(TorchDispatchMode):
    """Sees every operation, those without a tensor on the device as well."""

    def __init__(self, gpu: Gpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        on_gpu = any(isinstance(part, GpuTensor) for part in tree_iter((args, kwargs)))
        asked = kwargs.get("device")
        asks_gpu = asked is not None and torch.device(asked).type == self.gpu.device.type
        if on_gpu or asks_gpu or kwargs.get("pin_memory"):
            return self.compute(func, args, kwargs)
        return func(*args, **kwargs)

    def compute(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """One operation of which something is on the device."""
        if func.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd):
            with self:
                return func.decompose(*args, **kwargs)
        given = [part for part in tree_iter((args, kwargs)) if isinstance(part, torch.Tensor)]
        mixed = any(isinstance(part, GpuTensor) for part in given) and any(map(_on_cpu, given))
        if mixed and func not in COPIES:
            self._check_devices(func, args, given)
        target = self._target(kwargs, given)
        self._count_waits(func, args, kwargs, given, target)
        plain = {name: "cpu" if name == "device" and value is not None else value for name, value in kwargs.items()}
        if plain.pop("pin_memory", None):
            return self.gpu.pin(func(*args, **plain))
        held = [self.gpu.hold(part) for part in _channels_last_copies(func, args)]  # for as long as it is computed
        inner, plain = tree_map(_values, (args, plain))
        found = AT_ONCE.get(func, func)(*inner, **plain)
        del held
        if target.type == "cpu":
            return found
        if target.type == "mps" and any(
            torch.is_tensor(part) and part.dtype == torch.float64 for part in tree_iter(found)
        ):
            raise TypeError(NO_FLOAT64)
        # In inference mode a view of an ordinary tensor is an ordinary one, all else is not.
        ordinary = func.is_view and not given[0].is_inference()
        with torch.inference_mode(torch.is_inference_mode_enabled() and not ordinary):
            wrapped = tree_map(lambda part: GpuTensor(part, self.gpu) if torch.is_tensor(part) else part, found)
        return return_and_correct_aliasing(func, args, kwargs, wrapped) if given else wrapped

    def _target(self, kwargs: dict[str, Any], given: list[torch.Tensor]) -> torch.device:
        """Where the result is."""
        asked = kwargs.get("device")
        if asked is None or (self.gpu.autograd and given and not _on_cpu(given[0])):  # C++ asked for its like
            return given[0].device if given else torch.device("cpu")
        return torch.device(asked)

    def _check_devices(self, func: Any, args: Any, given: list[torch.Tensor]) -> None:
        """CUDA takes CPU operands of one number, and CPU tensors as indices."""
        allowed = {id(part) for part in args[1] if part is not None} if func in INDEXED else set()
        for part in given:
            if _on_cpu(part) and part.dim() > 0 and id(part) not in allowed:
                raise RuntimeError(MIXED.format(operation=func, device=self.gpu.device))
        first = given[0]
        if _on_cpu(first) and func._schema.is_mutable:
            raise RuntimeError(MIXED.format(operation=func, device=self.gpu.device))

    def _count_waits(
        self, func: Any, args: Any, kwargs: dict[str, Any], given: list[torch.Tensor], target: torch.device
    ) -> None:
        if func in COPIES:
            source = args[1] if func is aten.copy_.default else args[0]
            if source.device.type != target.type:
                blocks = not (kwargs.get("non_blocking") or (func is aten.copy_.default and args[2:3] == (True,)))
                host = source if target.type != "cpu" else (args[0] if func is aten.copy_.default else None)
                self.gpu.waits += blocks or host is None or not self.gpu.is_pinned(host)
        elif func in INDEXED:
            indices = [part for part in args[1] if part is not None]
            self.gpu.waits += any(_on_cpu(part) or part.dtype == torch.bool for part in indices)
        else:
            # ``where`` uploads a number; elsewhere it travels with the kernel.
            self.gpu.waits += func in WAITING or (func is aten.where.self and any(map(_on_cpu, given)))


def _on_cpu(part: torch.Tensor) -> bool:
    return not isinstance(part, GpuTensor)


def _values(part: Any) -> Any:
    return part.behind if isinstance(part, GpuTensor) else part


def _channels_last_copies(func: Any, args: Any) -> list[torch.Tensor]:
    """The copy of a convolution's input that cuDNN makes where the weights alone are in channels-last format."""
    if func is not aten.convolution.default or args[0].dim() != 5:
        return []
    image, weight = args[:2]
    last = torch.channels_last_3d
    if weight.is_contiguous(memory_format=last) and not image.is_contiguous(memory_format=last):
        return [image.behind.contiguous(memory_format=last)]
    return []


def _autocast_on_cpu(device: str, *given: Any, **options: Any) -> Any:
    return torch.amp.autocast("cpu" if device == "cuda" else device, *given, **options)


class _Event:
    """In place of ``torch.cuda.Event``."""

    gpu: Gpu

    def __init__(self, *options: Any, **more: Any) -> None:
        pass

    def record(self, stream: Any = None) -> None:
        pass

    def synchronize(self) -> None:
        self.gpu.events += 1


_CpuGenerator = torch.Generator


class _GeneratorKind(type):
    def __instancecheck__(cls, given: Any) -> bool:
        return isinstance(given, _CpuGenerator)


class _Generator(metaclass=_GeneratorKind):
    """In place of ``torch.Generator``: the device's numbers are those of the CPU's generator."""

    def __new__(cls, device: Any = "cpu") -> Any:
        return _CpuGenerator()


def can_pretend() -> bool:
    """Whether there is no real GPU, and this system's PyTorch lets its table of devices be reached."""
    known = hasattr(torch._C, "_set_only_lift_cpu_tensors")
    return known and not torch.cuda.is_available() and _device_table() is not None


def _device_table() -> Any:
    """PyTorch's table of what switches devices, one pointer for each kind; None where its name is another one."""
    names = {"linux": "libc10.so", "darwin": "libc10.dylib"}
    path = Path(torch.__file__).parent / "lib" / names.get(sys.platform, "")
    try:
        library = ctypes.CDLL(str(path))
        return (ctypes.c_void_p * (META + 1)).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def _switchable(kind: str) -> Iterator[None]:
    """C++ that switches to the tensor's device, as ``tensor[1]`` does, finds something that does nothing.

    And ``torch.tensor(1.0, device="cuda:0")`` makes a tensor on the CPU and copies it, which can then be seen;
    modules take a moved parameter as it is, not its memory.
    """
    table, lifts = _device_table(), torch._C._only_lift_cpu_tensors()
    swaps = torch.__future__.get_swap_module_params_on_conversion()
    number = NUMBERS[kind]
    before, table[number] = table[number], table[META]
    torch._C._set_only_lift_cpu_tensors(True)
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        yield
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swaps)
        torch._C._set_only_lift_cpu_tensors(lifts)
        table[number] = before


def _properties(gpu: Gpu) -> Any:
    return types.SimpleNamespace(
        name=NAME, total_memory=gpu.memory, major=8, minor=0, multi_processor_count=1, uuid="pretend"
    )


@contextlib.contextmanager
def pretend_gpu(
    memory: int = 24 * 2**30,
    capability: tuple[int, int] = (8, 0),
    autograd: bool = False,
    kind: str = "cuda",
) -> Iterator[Gpu]:
    """A device inside a ``with`` block; all that is patched is put back afterwards.

    Args:
        memory: bytes of the device.
        capability: compute capability of a CUDA device; bfloat16 needs 8.0.
        autograd: for training. PyTorch's engine asks for the streams of a real device, so C++ takes the tensors for
            the CPU's, and autocast casts what it casts there. Python and the checks here see the GPU.
        kind: "cuda", "xpu" (Intel) or "mps" (Apple, which refuses float64).
    """
    import torch._dynamo  # PyTorch would import it at some later time and then list the substitutes as its own

    gpu = Gpu(memory, autograd, kind)

    def nothing(*given: Any, **options: Any) -> None:
        return None

    def synchronize(device: Any = None) -> None:
        gpu.waits += 1

    def reset_peak(device: Any = None) -> None:
        gpu.peak = gpu.live

    def pin_memory(values: torch.Tensor, device: Any = None) -> torch.Tensor:
        if isinstance(values, GpuTensor):
            raise RuntimeError(f"cannot pin '{values.type()}' only dense CPU tensors can be pinned")
        return gpu.pin(values.clone(memory_format=torch.preserve_format))

    def supports_bfloat16(including_emulation: bool = True) -> bool:
        return including_emulation or capability >= (8, 0)

    patched = {
        "is_available": lambda: True, "is_initialized": lambda: True, "device_count": lambda: 1,
        "current_device": lambda: 0, "_lazy_init": nothing, "manual_seed_all": nothing, "empty_cache": nothing,
        "synchronize": synchronize, "current_stream": nothing, "Event": type("Event", (_Event,), {"gpu": gpu}),
        "mem_get_info": lambda device=None: (gpu.memory - gpu.live, gpu.memory),
        "memory_reserved": lambda device=None: gpu.live, "memory_allocated": lambda device=None: gpu.live,
        "max_memory_allocated": lambda device=None: gpu.peak, "reset_peak_memory_stats": reset_peak,
        "is_bf16_supported": supports_bfloat16, "get_device_capability": lambda device=None: capability,
        "get_device_name": lambda device=None: NAME, "get_device_properties": lambda device=None: _properties(gpu),
    }  # fmt: skip
    if kind == "mps":
        patched = {
            "current_allocated_memory": lambda: gpu.live, "recommended_max_memory": lambda: gpu.memory,
            "empty_cache": nothing, "synchronize": synchronize,
        }  # fmt: skip
    with contextlib.ExitStack() as stack:
        if autograd:
            stack.enter_context(mock.patch.object(torch, "autocast", _autocast_on_cpu))
        for name, substitute in patched.items():
            stack.enter_context(mock.patch.object(getattr(torch, kind), name, substitute))
        if kind == "mps":
            stack.enter_context(mock.patch.object(torch.backends.mps, "is_available", lambda: True))
        stack.enter_context(mock.patch.object(torch.Tensor, "pin_memory", pin_memory))
        stack.enter_context(mock.patch.object(torch, "Generator", _Generator))
        stack.enter_context(_switchable(kind))
        stack.enter_context(_Dispatch(gpu))
        yield gpu
