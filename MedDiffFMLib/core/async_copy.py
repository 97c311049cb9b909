"""Asynchronous host/device copies through pinned memory.

An ordinary copy waits until the GPU has done all that it was given, and then the GPU waits for its next order. From
and to page-locked memory a copy only takes its turn among the GPU's orders. On the CPU nothing of this matters.
"""

from __future__ import annotations

import numpy as np
import torch


def upload(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """The tensor on a device, without waiting for a GPU's computations. Not for whole volumes, of which it makes a
    page-locked copy."""
    if torch.device(device).type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.contiguous().pin_memory().to(device, non_blocking=True)


def upload_together(arrays: dict[str, np.ndarray], device: torch.device | str) -> dict[str, torch.Tensor]:
    """Small arrays on a device by a single copy."""
    places, end = {}, 0
    for name, array in arrays.items():
        places[name] = slice(end, end + array.nbytes)
        end += -(-array.nbytes // 16) * 16  # where any type may begin
    together = np.zeros(max(end, 16), dtype=np.uint8)
    for name, array in arrays.items():
        together[places[name]] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    arrived = upload(torch.from_numpy(together), device)
    kinds = {name: torch.from_numpy(np.empty(0, array.dtype)).dtype for name, array in arrays.items()}
    return {name: arrived[places[name]].view(kinds[name]).reshape(array.shape) for name, array in arrays.items()}


class PendingTensor:
    """A tensor that a GPU may still be computing, on its way to its destination.

    Args:
        result: of the GPU's latest orders.
        home: its destination: the same device, or the CPU.
    """

    def __init__(self, result: torch.Tensor, home: torch.device) -> None:
        self._event: torch.cuda.Event | None = None
        if result.device.type == "cuda":
            stream = torch.cuda.current_stream(result.device)
            if home.type == "cpu":
                result = torch.empty(result.shape, dtype=result.dtype, pin_memory=True).copy_(result, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(stream)
        self._result = result

    def wait(self) -> torch.Tensor:
        """The tensor, once it is computed and there; what the GPU was given later is not waited for."""
        if self._event is not None:
            self._event.synchronize()
        return self._result
