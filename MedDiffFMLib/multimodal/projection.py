"""Line integrals of a volume along the rays of a beam, and their adjoint, in torch.

Joseph's method (Joseph, An improved algorithm for reprojecting rays through pixel images, IEEE TMI 1982): each ray
meets the planes of voxels that lie most across it, is interpolated bilinearly in each, and the values are summed up
times the length of the ray from plane to plane. It is the trapezoidal rule on the trilinear image with no step longer
than a voxel. Siddon's exact lengths through boxes would show the boxes; marching in fixed steps costs eight voxels
a step instead of four, in three dimensions of which torch has a fast path for two only.

The backward pass of the projection is the back projection and the other way round, so both can be differentiated any
number of times with respect to voxels and pixels, and neither keeps anything of the size of its rays.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from .beam import Beam

RAYS = 1 << 15
PLANES = 8
"""Rays and planes of voxels that are worked on at a time: little memory, and most of it in a processor's cache."""
GPU_RAYS = 1 << 20


@dataclass(frozen=True)
class _Bundle:
    """Rays that cross the planes of one axis of the volume.

    Attributes:
        axis: of (k, j, i), the one that the planes lie across.
        pixels: numbers of the pixels that they end in, (n,) int64.
        start, slope: where they meet plane 0, and how far they move from plane to plane: (n, 2), along the later and
            the earlier of the other two axes, in :func:`torch.nn.functional.grid_sample`'s units.
        lengths: mm of ray from plane to plane, (n,).
    """

    axis: int
    pixels: torch.Tensor
    start: torch.Tensor
    slope: torch.Tensor
    lengths: torch.Tensor

    def __iter__(self) -> Iterator[_Bundle]:
        """Parts with a bounded number of rays."""
        fields = (self.pixels, self.start, self.slope, self.lengths)
        size = GPU_RAYS if self.pixels.device.type != "cpu" else RAYS
        for parts in zip(*(field.split(size) for field in fields), strict=True):
            yield _Bundle(self.axis, *parts)

    def points(self, first: int, last: int) -> torch.Tensor:
        """Points where the rays meet the planes ``first`` to ``last`` (not included), (planes, 1, n, 2)."""
        planes = torch.arange(first, last, device=self.start.device, dtype=self.start.dtype)
        return torch.addcmul(self.start, self.slope, planes[:, None, None])[:, None]


def project(volume: torch.Tensor, ijk_to_ras: np.ndarray, beam: Beam) -> torch.Tensor:
    """Line integrals through a volume along the rays of a beam, differentiable with respect to the voxels.

    Between voxel centers the volume is trilinear, and it falls to zero within a voxel around the outermost centers.
    Rays are whole lines, which also meet what lies behind the source or the detector; :func:`.views.aim` has nothing
    lie there.

    Args:
        volume: (channels, k, j, i), float32 or float64, on any device.
        ijk_to_ras: 4x4, voxel index to RAS mm; any axes that are not in one plane.

    Returns:
        (channels, j, i) on the beam's detector: the unit of the voxels times mm.
    """
    return _Projection.apply(volume, ijk_to_ras, beam)  # type: ignore[no-untyped-call]


def back_project(
    picture: torch.Tensor, shape: tuple[int, int, int], ijk_to_ras: np.ndarray, beam: Beam
) -> torch.Tensor:
    """Adjoint of :func:`project`: each pixel is spread over the voxels that its ray was summed up from.

    Args:
        picture: (channels, j, i).
        shape: of the volume, (k, j, i).

    Returns:
        (channels, k, j, i).
    """
    return _BackProjection.apply(picture, tuple(shape), ijk_to_ras, beam)  # type: ignore[no-untyped-call]


class _Projection(torch.autograd.Function):
    """Project, and back project on the way back."""

    @staticmethod
    def forward(ctx: Any, volume: torch.Tensor, ijk_to_ras: np.ndarray, beam: Beam) -> torch.Tensor:
        ctx.geometry = tuple(volume.shape[1:]), ijk_to_ras, beam
        return _sum_up(volume, ijk_to_ras, beam)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        return _BackProjection.apply(gradient, *ctx.geometry), None, None  # type: ignore[no-untyped-call]


class _BackProjection(torch.autograd.Function):
    """Back project, and project on the way back."""

    @staticmethod
    def forward(
        ctx: Any, picture: torch.Tensor, shape: tuple[int, int, int], ijk_to_ras: np.ndarray, beam: Beam
    ) -> torch.Tensor:
        ctx.geometry = ijk_to_ras, beam
        return _spread(picture, shape, ijk_to_ras, beam)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        return _Projection.apply(gradient, *ctx.geometry), None, None, None  # type: ignore[no-untyped-call]


def _sum_up(volume: torch.Tensor, ijk_to_ras: np.ndarray, beam: Beam) -> torch.Tensor:
    """Values of ``volume`` summed up along the rays."""
    _, rows, columns = beam.detector.shape
    picture = volume.new_zeros(len(volume), rows * columns)
    volume, ijk_to_ras = _without_zeros(volume.detach(), ijk_to_ras)
    for bundle in _bundles(beam, volume.shape[1:], ijk_to_ras, volume):
        planes = _planes(volume, bundle.axis)
        for part in bundle:
            total = volume.new_zeros(len(volume), len(part.pixels))
            for first in range(0, len(planes), PLANES):
                points = part.points(first, min(first + PLANES, len(planes)))
                total += functional.grid_sample(planes[first : first + PLANES], points, align_corners=False)[
                    :, :, 0
                ].sum(0)
            picture[:, part.pixels] = total * part.lengths
    return picture.view(-1, rows, columns)


def _spread(picture: torch.Tensor, shape: tuple[int, int, int], ijk_to_ras: np.ndarray, beam: Beam) -> torch.Tensor:
    """Values of ``picture`` spread along the rays: the transposed steps of :func:`_sum_up`."""
    flat = picture.detach().flatten(1)
    volume = picture.new_zeros(len(picture), *shape)
    for bundle in _bundles(beam, shape, ijk_to_ras, picture):
        planes = volume.movedim(1 + bundle.axis, 0)
        for part in bundle:
            values = flat[:, part.pixels] * part.lengths
            for first in range(0, len(planes), PLANES):
                target = planes[first : first + PLANES]
                points = part.points(first, first + len(target))
                share = values[None, :, None].expand(len(target), -1, -1, -1)
                like = picture.new_zeros(1).expand(target.shape)
                # bilinear, zeros outside, align_corners=False; the gradient of the points is not wanted
                target += torch.ops.aten.grid_sampler_2d_backward(share, like, points, 0, 0, False, [True, False])[0]
    return volume


def _planes(volume: torch.Tensor, axis: int) -> torch.Tensor:
    """(channels, k, j, i) -> (planes, channels, a, b), planes across ``axis``, contiguous for fast reading."""
    return volume.movedim(1 + axis, 0).contiguous()


def _without_zeros(volume: torch.Tensor, ijk_to_ras: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
    """The box of a volume that holds all that is not zero, which casts the same shadow, and its geometry."""
    filled = (volume != 0).any(0)
    box = []
    for axis in range(3):
        others = [other for other in range(3) if other != axis]
        used = filled.any(others[1]).any(others[0]).nonzero()
        box.append(slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0))
    shift = np.eye(4)
    shift[:3, 3] = [part.start for part in reversed(box)]
    k, j, i = box
    return volume[:, k, j, i], ijk_to_ras @ shift


def _bundles(beam: Beam, shape: tuple[int, ...], ijk_to_ras: np.ndarray, like: torch.Tensor) -> Iterator[_Bundle]:
    """The rays of a beam that meet a volume, by the axis along which they cross most voxels."""
    inverse = np.linalg.inv(ijk_to_ras)
    pixels = beam.pixels()
    directions = beam.directions(pixels) @ inverse[:3, :3].T  # voxels (i, j, k)
    ends = pixels @ inverse[:3, :3].T + inverse[:3, 3]
    lengths = np.linalg.norm(beam.directions(pixels), axis=1)
    steepest = np.abs(directions).argmax(1)
    hit = _meets(ends, directions, shape)
    for axis in range(3):
        chosen = np.flatnonzero(hit & (steepest == axis))
        if len(chosen):
            crossing = ends[chosen], directions[chosen], lengths[chosen]
            yield _bundle(axis, chosen, *crossing, shape, like)


def _bundle(
    axis: int,
    pixels: np.ndarray,
    ends: np.ndarray,
    directions: np.ndarray,
    lengths: np.ndarray,
    shape: tuple[int, ...],
    like: torch.Tensor,
) -> _Bundle:
    """Rays by their crossings of the planes across ``axis``, of (i, j, k)."""
    across = [other for other in range(3) if other != axis]  # the axis whose voxels lie closest together comes first
    slope = directions[:, across] / directions[:, axis : axis + 1]
    start = ends[:, across] - slope * ends[:, axis : axis + 1]
    sizes = np.array([shape[2 - other] for other in across], float)
    # grid_sample without aligned corners counts from -1 to 1 between the outer edges of the voxels
    start, slope = (2 * start + 1) / sizes - 1, 2 * slope / sizes
    steps = lengths / np.abs(directions[:, axis])
    numbers = [torch.from_numpy(array).to(like.device, like.dtype) for array in (start, slope, steps)]
    return _Bundle(2 - axis, torch.from_numpy(pixels).to(like.device), *numbers)


def _meets(ends: np.ndarray, directions: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Which lines meet the box that a volume is not zero in (index (i, j, k) from -1 to the size), bool (n,)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        low = (-1 - ends) / directions
        high = (np.array(shape[::-1]) - ends) / directions
    near, far = (
        np.fmin(low, high).max(1),
        np.fmax(low, high).min(1),
    )  # a line along a face meets 0 / 0, which is left out
    return near <= far
