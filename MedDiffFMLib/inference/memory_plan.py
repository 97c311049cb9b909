"""Memory plan of a run; plain arithmetic, no network.

One set of windows and, of the volume's size, the image and its estimate are all that a step holds. The first does not
grow with the volume. The second moves to host memory where the device has too little room for it.
"""

from __future__ import annotations

from dataclasses import dataclass

BATCH_ON_CPU = 2
LARGEST_BATCH = 16
BYTES_PER_VOXEL = 600
"""Of a window in one network call, beyond the weights: 440 were measured, see docs/results/performance.md."""
SHARE = 0.5
"""Of the free memory, how much windows may take, and how much whole volumes."""


@dataclass(frozen=True)
class MemoryPlan:
    """Memory that a step takes besides the weights.

    Attributes:
        batch: windows a call.
        host: whether the image and its estimate are held in host memory.
        device_bytes: peak on the device.
        host_bytes: of the image and its estimate in host memory; the image given is there anyway.
    """

    batch: int
    host: bool
    device_bytes: int
    host_bytes: int


def plan_memory(voxels: int, free: int | None, window: int) -> MemoryPlan:
    """Plan for an image of so many voxels.

    Args:
        free: bytes that the device has left; None where unknown, as on a CPU.
        window: longest edge of the windows.
    """
    batch = batch_for(free, window)
    windows, whole = batch * BYTES_PER_VOXEL * window**3, whole_volume_bytes(voxels)
    host = free is not None and whole > SHARE * free
    return MemoryPlan(batch, host, windows + (0 if host else whole), whole if host else 0)


def batch_for(free: int | None, window: int) -> int:
    """Windows a call for so much free memory."""
    if free is None:
        return BATCH_ON_CPU
    return int(min(max(SHARE * free // (BYTES_PER_VOXEL * window**3), 1), LARGEST_BATCH))


def whole_volume_bytes(voxels: int) -> int:
    """An image and its estimate in single precision."""
    return 2 * 4 * voxels
