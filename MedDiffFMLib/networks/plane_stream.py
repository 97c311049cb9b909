"""Convolutions over planes that come some at a time, as if all had come at once.

A stack in windows along its depth sees planes near a window's end twice, and its features outgrow the processor's
cache. Here each convolution keeps the last planes that it was given until their neighbors come.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as functional
from torch import nn


class PlaneStream:
    """What one pass of a network over a stack keeps from some planes for the next.

    A convolution gives a plane once that behind it has come, so that results come later than images; those that take
    another way through the network wait for them.

    Attributes:
        ends: True once the last planes are given; beyond them, and before the first, are zeros.
    """

    def __init__(self) -> None:
        self.ends = False
        self._last: dict[nn.Module, torch.Tensor] = {}
        self._waiting: dict[nn.Module, torch.Tensor] = {}
        self._bare: dict[nn.Module, nn.Module] = {}

    def across(self, convolution: nn.Conv3d, x: torch.Tensor, rectified: bool) -> torch.Tensor:
        """The next planes of a convolution that sees one plane on either side.

        Args:
            convolution: with a kernel of three planes and zeros around.
            x: (B, C, d, h, w), what comes next, three planes or more where it is the first.
            rectified: it sees 0 where that is negative.

        Returns:
            (B, C', d, h', w'), one plane fewer the first time, and one more at the end.
        """
        if convolution not in self._bare:
            bare = copy.copy(convolution)
            bare.padding = (0, *convolution.padding[1:])  # type: ignore[assignment]
            self._bare[convolution] = bare
        before = self._last.get(convolution, torch.zeros_like(x[:, :, :1]))
        planes = _beside(before, x, rectified, self.ends)
        # A copy: a view would keep all planes.
        self._last[convolution] = planes[:, :, -2:].clone()
        result: torch.Tensor = self._bare[convolution](planes)
        return result

    def wait(self, place: nn.Module, x: torch.Tensor, count: int) -> torch.Tensor:
        """The next ``count`` planes of those that were given, where they meet what took longer.

        Args:
            place: of the meeting, a module of the network.
            x: (B, C, d, h, w), what comes next.
        """
        before = self._waiting.get(place)
        planes = x if before is None else torch.cat([before, x], 2)
        self._waiting[place] = planes[:, :, count:].clone()
        return planes[:, :, :count]


def across(convolution: nn.Conv3d, x: torch.Tensor, stream: PlaneStream | None, rectified: bool = True) -> torch.Tensor:
    """A convolution over all planes at once, or over those that come next; ``rectified``, of what is above 0."""
    if stream is None:
        result: torch.Tensor = convolution(functional.relu(x) if rectified else x)
        return result
    return stream.across(convolution, x, rectified)


def wait(place: nn.Module, x: torch.Tensor, longer: torch.Tensor, stream: PlaneStream | None) -> torch.Tensor:
    """Of ``x`` the planes that belong to those of ``longer``, which took the longer way."""
    return x if stream is None else stream.wait(place, x, longer.shape[2])


def _beside(before: torch.Tensor, x: torch.Tensor, rectified: bool, ends: bool) -> torch.Tensor:
    """Planes before, those that come next, and one of zeros where they end, written once."""
    (batch, channels, depth, *plane), first = x.shape, before.shape[2]
    shape = (batch, channels, first + depth + ends, *plane)
    planes = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last_3d)
    planes[:, :, :first] = before
    if ends:
        planes[:, :, -1] = 0
    place = planes[:, :, first : first + depth]
    if rectified:
        torch.clamp_min(x, 0, out=place)
    else:
        place.copy_(x)
    return planes
