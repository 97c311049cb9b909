"""Shared pre- and post-processing: resample to the working grid, map results back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..conditioning.anatomy import check_labels
from ..conditioning.condition import Condition
from ..conditioning.regions import NULL_REGION, REGIONS
from ..imaging.grid import Grid, from_grid, to_grid, working_grid
from ..imaging.intensity import in_network_range, to_network
from ..imaging.volume import Box, Volume
from .body_localization import choose_region, localize_body

SLAB_VOXELS = 4_000_000
"""Voxels of the input that are worked on at a time where a step looks at single voxels."""


@dataclass(frozen=True)
class WorkingImage:
    """A volume, or a part of it, as the network sees it.

    Attributes:
        volume: the input, untouched.
        grid: the working grid.
        hounsfield: (D, H, W) float32 on the grid.
        condition: for the whole grid.
    """

    volume: Volume
    grid: Grid
    hounsfield: np.ndarray
    condition: Condition

    @property
    def shape(self) -> tuple[int, int, int]:
        """(D, H, W)."""
        return self.grid.shape

    @property
    def spacing_kji(self) -> tuple[float, float, float]:
        """Voxel size (k, j, i) in mm."""
        i, j, k = self.grid.spacing
        return k, j, i

    @property
    def region(self) -> str | None:
        """Region class in use."""
        return None if self.condition.region == NULL_REGION else REGIONS[self.condition.region]

    def network_input(self) -> torch.Tensor:
        """(1, 1, D, H, W) in the network's range."""
        return torch.from_numpy(to_network(self.hounsfield))[None, None]

    def without_voxels(self) -> WorkingImage:
        """The same place and conditions; the voxels, needed no longer, are freed with the image that held them."""
        return replace(self, hounsfield=np.broadcast_to(np.float32(np.nan), self.shape))

    def on_input(self, values: np.ndarray, fill: float = 0.0, box: Box | None = None) -> np.ndarray:
        """Values on the grid -> the input's voxels, float32; ``fill`` where the grid does not reach.

        Args:
            box: slices (k, j, i) of the input's voxels that are asked for; None for all.
        """
        back = from_grid(np.ascontiguousarray(values), self.grid, part_of(self.volume, box), fill=fill)
        return back.astype(np.float32, copy=False)

    def slabs_on_input(self, values: np.ndarray, fill: float = 0.0) -> Iterator[tuple[slice, np.ndarray]]:
        """As :meth:`on_input`, some planes of the input at a time: (planes, float32 values), first to last."""
        values = np.ascontiguousarray(values)
        for planes in slabs_of(self.volume):
            back = from_grid(values, self.grid, self.volume, fill=fill, planes=planes)
            yield planes, back.astype(np.float32, copy=False)

    def mask_on_grid(self, mask: np.ndarray) -> np.ndarray:
        """Mask on the input's voxels -> share of mask in each working voxel, float32 in [0, 1]."""
        near = crop_volume(Volume(mask, self.volume.ijk_to_ras, "mask"), self.grid)
        values = near.voxels.view(np.uint8) if mask.dtype == bool else near.voxels.astype(np.float32)
        return to_grid(Volume(values, near.ijk_to_ras, "mask"), self.grid, fill=0.0)


def part_of_image(image: WorkingImage, first: np.ndarray, last: np.ndarray) -> tuple[WorkingImage, Box]:
    """The part of an image that covers the input voxels with index (i, j, k) from ``first`` to ``last``.

    Returns:
        The part, and its place (k, j, i) in the image's voxels.
    """
    grid = crop_grid(image.grid, image.volume, first, last)
    start = np.rint((np.linalg.inv(image.grid.ijk_to_ras) @ grid.ijk_to_ras)[:3, 3]).astype(int)
    k, j, i = (slice(int(n), int(n) + size) for n, size in zip(reversed(start), grid.shape, strict=True))
    box = (k, j, i)
    hounsfield, condition = np.ascontiguousarray(image.hounsfield[box]), image.condition.window(box)
    return replace(image, grid=grid, hounsfield=hounsfield, condition=condition), box


def part_of(volume: Volume, box: Box | None) -> Volume:
    """The voxels in a box of slices (k, j, i), where they lie."""
    if box is None:
        return volume
    shift = np.eye(4)
    shift[:3, 3] = [edge.start for edge in reversed(box)]
    return Volume(volume.voxels[box], volume.ijk_to_ras @ shift, volume.modality)


def working_image(
    volume: Volume,
    spacing: float | None,
    *,
    region: str | None = None,
    anatomy: np.ndarray | None = None,
    around: tuple[np.ndarray, np.ndarray] | None = None,
) -> WorkingImage:
    """Bring a volume to the working grid and work out its conditions.

    Args:
        spacing: isotropic working voxel in mm; None keeps the scanner's own voxels.
        region: a region class, "none" for no condition, or None for an automatic guess.
        anatomy: TotalSegmentator labels on the input's grid.
        around: first and last input index (i, j, k) of a box; only the part of the grid that covers it is made.
    """
    localization = localize_body(volume)
    grid = working_grid(volume, spacing)
    source = volume
    if around is not None:
        grid = crop_grid(grid, volume, *around)
        source = crop_volume(volume, grid)
    labels = None
    if anatomy is not None:
        map_on_input = Volume(check_labels(anatomy), volume.ijk_to_ras, "mask")
        labels = torch.from_numpy(to_grid(map_on_input, grid, order=0, fill=0).astype(np.uint8))
    name = choose_region(region, localization)
    k, j, i = (torch.from_numpy(line) for line in localization.coordinates(grid))
    spacing_i, spacing_j, spacing_k = grid.spacing
    condition = Condition(
        (spacing_k, spacing_j, spacing_i), (k, j, i), REGIONS.index(name) if name else NULL_REGION, labels
    )
    return WorkingImage(volume, grid, to_grid(source, grid), condition)


def crop_grid(grid: Grid, volume: Volume, first: np.ndarray, last: np.ndarray) -> Grid:
    """The part of a grid that covers the input voxels with index (i, j, k) from ``first`` to ``last``."""
    corners = np.array(
        [[a, b, c, 1.0] for a in (first[0], last[0]) for b in (first[1], last[1]) for c in (first[2], last[2])]
    )
    index = (np.linalg.inv(grid.ijk_to_ras) @ volume.ijk_to_ras @ corners.T)[:3]
    size = np.array(grid.shape[::-1])
    low = np.clip(np.floor(index.min(1) + 1e-6), 0, size - 1).astype(int)
    high = np.clip(np.ceil(index.max(1) - 1e-6), low, size - 1).astype(int)
    shift = np.eye(4)
    shift[:3, 3] = low
    i, j, k = (int(n) for n in high - low + 1)
    return Grid((k, j, i), grid.ijk_to_ras @ shift)


def crop_volume(volume: Volume, grid: Grid, margin: int = 4) -> Volume:
    """The part of a volume that a grid needs for interpolation, so that large volumes are not filtered in whole."""
    k, j, i = grid.shape
    corners = np.array([[a, b, c, 1.0] for a in (0, i - 1) for b in (0, j - 1) for c in (0, k - 1)])
    index = (np.linalg.inv(volume.ijk_to_ras) @ grid.ijk_to_ras @ corners.T)[:3]
    wide = margin * np.maximum(1, np.ceil(np.array(grid.spacing).max() / np.array(volume.spacing)))
    size = np.array(volume.voxels.shape[::-1])
    low = np.clip(np.floor(index.min(1) - wide), 0, size - 1).astype(int)
    high = np.clip(np.ceil(index.max(1) + wide) + 1, low + 1, size).astype(int)
    if np.array_equal(low, [0, 0, 0]) and np.array_equal(high, size):
        return volume
    i_part, j_part, k_part = (slice(int(first), int(last)) for first, last in zip(low, high, strict=True))
    return part_of(volume, (k_part, j_part, i_part))


def slabs_of(volume: Volume) -> Iterator[slice]:
    """Planes of the input's first axis, some at a time."""
    count = len(volume.voxels)
    step = max(1, SLAB_VOXELS * count // volume.voxels.size)
    return (slice(first, min(first + step, count)) for first in range(0, count, step))


def changed(volume: Volume, slabs: Iterable[tuple[slice, np.ndarray]]) -> np.ndarray:
    """The input with a change in HU added, in its own number type; what the network saw clipped stays bit for bit.

    Args:
        slabs: planes of the input and the change of their voxels, such as :meth:`WorkingImage.slabs_on_input` gives.
    """
    result = np.empty(volume.voxels.shape, volume.voxels.dtype)
    for planes, change in slabs:
        before = volume.voxels[planes]
        result[planes] = before
        if change.any():
            np.copyto(result[planes], like_input(before + change, volume), where=in_network_range(before))
    return result


def like_input(values: np.ndarray, volume: Volume) -> np.ndarray:
    """HU in the input's own number type: rounded and limited where that is an integer."""
    kind = volume.voxels.dtype
    if np.issubdtype(kind, np.integer):
        limits, rounded = np.iinfo(kind), np.rint(values)
        return np.clip(rounded, limits.min, limits.max, out=rounded).astype(kind)
    return values.astype(kind, copy=False)


def unchanged_out_of_range(change: np.ndarray, volume: Volume) -> None:
    """Set a change to 0, in place, where the network saw clipped values; (k, j, i) of the input."""
    for planes in slabs_of(volume):
        change[planes] *= in_network_range(volume.voxels[planes])
