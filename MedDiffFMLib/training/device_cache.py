"""The prepared cases in a device's memory, from which it cuts training windows itself.

A CPU draws some ten windows a second and core, a large GPU trains on hundreds. Four bytes a voxel are kept: int16 HU,
uint8 organ labels and uint8 tissue classes of every level, as they lie in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..core.async_copy import upload
from ..core.devices import free_memory
from ..core.errors import DeviceError
from ..datasets.prepared_cases import Case

LABELS = ("anatomy", "tissue")
"""Maps that a level may have, by the name of its attribute."""
WORK_SHARE = 0.5
"""Share of a device's free memory that the cases may take; the rest is for the network."""
AT_ONCE = 2**24
"""Voxels whose places are computed at a time: eight bytes each."""


@dataclass(frozen=True)
class Stored:
    """Place of a level of a case.

    Attributes:
        offset: of its first voxel in the flat arrays.
        shape: (k, j, i).
    """

    offset: int
    shape: tuple[int, int, int]

    @property
    def size(self) -> int:
        """Voxels."""
        return self.shape[0] * self.shape[1] * self.shape[2]


@dataclass(frozen=True)
class Places:
    """Places of n windows of edge S.

    Attributes:
        level: (n,) number of the level of each, see :attr:`DeviceCache.numbers`; on the CPU.
        crop: (n,) bool, windows whose voxels are voxels of the level; on the CPU.
        reach: (n, 3, 2) first voxel of the level that is needed along each axis, and the one after the last; on the
            CPU.
        geometry: (n, 4) what :meth:`DeviceCache.geometry` tells of the levels.
        positions: (n, 3, S) float64 place in the level's voxels, within them.
        step: (n, 3) float64 distance of neighbors in the level's voxels.
        nearest: (n, 3, S) int64 the nearest of the level's voxels.
    """

    level: np.ndarray
    crop: np.ndarray
    reach: np.ndarray
    geometry: torch.Tensor
    positions: torch.Tensor
    step: torch.Tensor
    nearest: torch.Tensor


class DeviceCache:
    """All levels of some cases.

    Args:
        cases: opened; their files are read once.

    Attributes:
        numbers: number of the first level of each case; the others follow.

    Raises:
        DeviceError: the device has too little memory.
    """

    def __init__(self, cases: Sequence[Case], device: torch.device) -> None:
        self.stored: list[Stored] = []
        self.numbers: list[int] = []
        offset = 0
        for case in cases:
            self.numbers.append(len(self.stored))
            for level in case.levels:
                k, j, i = level.shape
                self.stored.append(Stored(offset, (k, j, i)))
                offset += self.stored[-1].size
        _check_room((2 + len(LABELS)) * offset, device)
        self.voxels = torch.empty(offset, dtype=torch.int16, device=device)
        self.maps = {kind: torch.zeros(offset, dtype=torch.uint8, device=device) for kind in LABELS}
        levels = [level for case in cases for level in case.levels]
        for entry, level in zip(self.stored, levels, strict=True):
            self._put(self.voxels, entry, np.array(level.voxels, dtype=np.int16))
            for kind in LABELS:
                labels = getattr(level, kind)
                if labels is not None:
                    self._put(self.maps[kind], entry, np.array(labels))

    @staticmethod
    def _put(flat: torch.Tensor, entry: Stored, array: np.ndarray) -> None:
        flat[entry.offset : entry.offset + entry.size] = torch.from_numpy(array.reshape(-1)).to(flat.device)

    def geometry(self, level: np.ndarray) -> np.ndarray:
        """(n, 4) int64 of levels (n,): offset, and how many voxels apart neighbors along each axis lie."""
        rows = [(e.offset, e.shape[1] * e.shape[2], e.shape[2], 1) for e in (self.stored[n] for n in level)]
        return np.array(rows, dtype=np.int64).reshape(-1, 4)

    def hounsfield(self, places: Places) -> torch.Tensor:
        """(n, S, S, S) float32 HU."""
        n, _, size = places.positions.shape
        windows = torch.empty((n, size, size, size), device=self.voxels.device)
        self._crop(places, np.flatnonzero(places.crop), windows)
        self._resample(places, np.flatnonzero(~places.crop), windows)
        return windows

    def labels(self, kind: str, places: Places) -> torch.Tensor:
        """(n, S, S, S) uint8 of one of :data:`LABELS`, 0 where a case has none."""
        n, _, size = places.nearest.shape
        windows = torch.empty((n, size, size, size), dtype=torch.uint8, device=self.voxels.device)
        some = max(AT_ONCE // size**3, 1)
        for first in range(0, n, some):
            part = slice(first, first + some)
            windows[part] = _gather(self.maps[kind], places.geometry[part], places.nearest[part])
        return windows

    def _crop(self, places: Places, which: np.ndarray, windows: torch.Tensor) -> None:
        """Voxels as they are."""
        some = max(AT_ONCE // windows[0].numel(), 1)
        for first in range(0, len(which), some):
            part = upload(torch.from_numpy(which[first : first + some]), windows.device)
            windows[part] = _gather(self.voxels, places.geometry[part], places.nearest[part]).float()

    def _resample(self, places: Places, which: np.ndarray, windows: torch.Tensor) -> None:
        """Antialiased linear interpolation, as ``resample_box``: a product with a matrix for each axis."""
        if not len(which):
            return
        reach = places.reach[which]
        chosen = upload(torch.from_numpy(np.concatenate([which[:, None], reach.reshape(-1, 6)], 1)), windows.device)
        rows, box = chosen[:, 0], chosen[:, 1:].reshape(-1, 3, 2)
        weights = _weights(places.positions[rows], places.step[rows], box, int(np.ptp(reach, axis=2).max()))
        for row, n in enumerate(which):
            (k0, k1), (j0, j1), (i0, i1) = reach[row].tolist()
            entry = self.stored[int(places.level[n])]
            level = self.voxels[entry.offset : entry.offset + entry.size].view(entry.shape)
            part = level[k0:k1, j0:j1, i0:i1].float()
            k, j, i = (weights[row, axis, :, :length] for axis, length in enumerate(part.shape))
            planes = torch.mm(k, part.reshape(len(part), -1)).reshape(-1, j1 - j0, i1 - i0)
            windows[n] = torch.matmul(torch.matmul(j, planes), i.T)


def _gather(flat: torch.Tensor, geometry: torch.Tensor, lines: torch.Tensor) -> torch.Tensor:
    """Voxels (n, S, S, S) at the places along each axis (n, 3, S) of levels with some geometry (n, 4)."""
    steps = lines * geometry[:, 1:, None]
    k, j, i = steps[:, 0, :, None, None], steps[:, 1, None, :, None], steps[:, 2, None, None, :]
    index = geometry[:, 0, None, None, None] + k + j + i
    return flat[index.reshape(-1)].reshape(index.shape)


def _weights(positions: torch.Tensor, step: torch.Tensor, reach: torch.Tensor, longest: int) -> torch.Tensor:
    """(n, 3, S, longest) float32: ``linear_weights`` of each axis, zeros beyond ``reach`` (n, 3, 2)."""
    voxel = torch.arange(longest, device=positions.device)
    distance = (reach[:, :, :1] + voxel)[:, :, None] - positions[..., None]
    weights = (1 - distance.abs() / step.clamp(min=1)[:, :, None, None]).clamp(min=0)
    weights = weights * (voxel < reach[:, :, 1:] - reach[:, :, :1])[:, :, None]
    return (weights / weights.sum(-1, keepdim=True)).float()


def _check_room(needed: int, device: torch.device) -> None:
    """Refuse what would leave no room for the network."""
    free = free_memory(device)
    if free is not None and needed > WORK_SHARE * free:
        raise DeviceError(
            f"The cases take {needed / 1e9:.1f} GB, and the GPU has {free / 1e9:.1f} GB free.",
            "Draw windows on the CPU (leave --windows-on-device out), or use fewer cases.",
        )
