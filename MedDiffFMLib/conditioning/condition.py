"""Conditions of the network: region, anatomy, position, scale, known voxels, control.

Each but the scale may be absent. Known voxels are those around a hole that is to be filled: the noisy image hides
them at high noise, just when the network decides what belongs into the hole. The control is what a ControlNet is
steered by; the prior does not look at it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from ..core.async_copy import upload
from .anatomy import ANATOMY_CHANNELS, encode_anatomy
from .known_voxels import CONTEXT_CHANNELS, biharmonic_init, encode_context
from .position import POSITION_CHANNELS, encode_position, encode_spacing
from .regions import NULL_REGION
from .tissue import TISSUE_CHANNELS, encode_tissue

SCALE_AT = slice(POSITION_CHANNELS, POSITION_CHANNELS + 3)
ANATOMY_AT = slice(SCALE_AT.stop, SCALE_AT.stop + ANATOMY_CHANNELS)
CONTEXT_AT = slice(ANATOMY_AT.stop, ANATOMY_AT.stop + CONTEXT_CHANNELS)
TISSUE_AT = slice(CONTEXT_AT.stop, CONTEXT_AT.stop + TISSUE_CHANNELS)
"""Channels of each part, those of the position first; a network that knows fewer takes the first ones."""
CONDITION_CHANNELS = TISSUE_AT.stop


@dataclass(frozen=True)
class EncodedCondition:
    """Ready for the network.

    Attributes:
        region: (B,) class index, NULL_REGION where unknown.
        channels: (B, 54, D/2, H/2, W/2): position, scale, anatomy, known voxels, tissue; zeros where unknown.
        expected: (B, 1, D, H, W) known voxels and the biharmonic initialization for the others, network range; None
            where no sample has known voxels.
        hole: (B, 1, D, H, W), 1 where a voxel is unknown, all of them in samples without known voxels; None together
            with ``expected``.
        control: (B, C, D, H, W) channels for a ControlNet; None where there is none.
    """

    region: torch.Tensor
    channels: torch.Tensor
    expected: torch.Tensor | None = None
    hole: torch.Tensor | None = None
    control: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> EncodedCondition:
        """Copy on a device."""
        parts = (self.region, self.channels, self.expected, self.hole, self.control)
        return EncodedCondition(*(None if part is None else upload(part, device) for part in parts))  # type: ignore[arg-type]

    @property
    def bytes(self) -> int:
        """Memory that it takes."""
        parts = (self.region, self.channels, self.expected, self.hole, self.control)
        return sum(part.nbytes for part in parts if part is not None)

    def has_hole(self) -> torch.Tensor:
        """(B,) bool: samples that have known voxels around a hole."""
        if self.hole is None:
            return torch.zeros(len(self.region), dtype=torch.bool, device=self.region.device)
        return self.hole.flatten(1).amin(1) < 1


@dataclass(frozen=True)
class Condition:
    """Condition of one box of voxels, cut into windows by slicing.

    Attributes:
        spacing: voxel size (k, j, i) in mm.
        coordinates: three 1-D tensors, position of each voxel along k, j, i in the body box, [-1, 1]; None if unknown.
        region: class index, NULL_REGION if unknown.
        anatomy: (D, H, W) uint8 labels, None if unknown.
        known: (D, H, W) image in the network's range, known outside ``hole`` and its initialization inside; None if
            there is no hole to fill.
        hole: (D, H, W) float, 1 where the image is to be filled.
        control: (C, D, H, W) channels for a ControlNet, None if there is none.
        tissue: (D, H, W) uint8 classes of :mod:`.tissue`, 0 where unknown; None if unknown everywhere.
    """

    spacing: tuple[float, float, float]
    coordinates: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
    region: int = NULL_REGION
    anatomy: torch.Tensor | None = None
    known: torch.Tensor | None = None
    hole: torch.Tensor | None = None
    control: torch.Tensor | None = None
    tissue: torch.Tensor | None = None

    def window(self, box: tuple[slice, slice, slice]) -> Condition:
        """The condition of a sub-box given by slices (k, j, i)."""
        coordinates = self.coordinates
        if coordinates is not None:
            coordinates = tuple(c[s] for c, s in zip(coordinates, box, strict=True))  # type: ignore[assignment]
        last_axes = (Ellipsis, *box)
        return replace(self, coordinates=coordinates).with_images(lambda image: image[last_axes])

    def with_images(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Condition:
        """The same with ``change`` done to each part whose last three axes are those of the box."""
        parts = (self.anatomy, self.known, self.hole, self.control, self.tissue)
        anatomy, known, hole, control, tissue = (None if part is None else change(part) for part in parts)
        return replace(self, anatomy=anatomy, known=known, hole=hole, control=control, tissue=tissue)

    def filling(self, known: torch.Tensor, hole: torch.Tensor) -> Condition:
        """The same box with a hole to fill; both (D, H, W). What ``known`` holds inside the hole is not looked at."""
        return replace(self, known=biharmonic_init(known, hole, self.spacing), hole=hole)

    def without(
        self, region: bool = True, anatomy: bool = True, position: bool = False, tissue: bool = True
    ) -> Condition:
        """The same box with some conditions dropped; the defaults are those that guidance contrasts."""
        return replace(
            self,
            region=NULL_REGION if region else self.region,
            anatomy=None if anatomy else self.anatomy,
            coordinates=None if position else self.coordinates,
            tissue=None if tissue else self.tissue,
        )

    def encode(self, shape: tuple[int, int, int], device: torch.device | str = "cpu") -> EncodedCondition:
        """Encode for one window of ``shape`` (D, H, W), even edges; batch size 1."""
        half = tuple(n // 2 for n in shape)
        channels = torch.zeros(CONDITION_CHANNELS, *half, device=device)
        if self.coordinates is not None:
            centers = [upload(c, device).reshape(-1, 2).mean(1) for c in self.coordinates]
            channels[:POSITION_CHANNELS] = encode_position(*centers)
        for axis, scale in enumerate(encode_spacing(torch.tensor(self.spacing)).tolist()):
            channels[SCALE_AT.start + axis] = scale
        if self.anatomy is not None:
            channels[ANATOMY_AT] = encode_anatomy(upload(self.anatomy, device))
        if self.tissue is not None:
            channels[TISSUE_AT] = encode_tissue(upload(self.tissue, device))
        region = torch.full((1,), self.region, device=device)
        control = None if self.control is None else upload(self.control[None], device)
        if self.known is None or self.hole is None:
            return EncodedCondition(region, channels[None], control=control)
        known, hole = upload(self.known, device), upload(self.hole, device)
        channels[CONTEXT_AT] = encode_context(known, hole)
        return EncodedCondition(region, channels[None], known[None, None], hole[None, None], control)


def stack(conditions: list[EncodedCondition], holes: bool = False) -> EncodedCondition:
    """A batch of encoded conditions of equal window shape; all of them have a control, or none.

    Args:
        holes: give ``expected`` and ``hole`` also where no sample has known voxels.
    """
    region = torch.cat([c.region for c in conditions])
    channels = torch.cat([c.channels for c in conditions])
    controls = [c.control for c in conditions if c.control is not None]
    control = torch.cat(controls) if controls else None
    if not holes and all(c.hole is None for c in conditions):
        return EncodedCondition(region, channels, control=control)
    shape = (1, 1, *(2 * n for n in channels.shape[2:]))
    expected = [channels.new_zeros(shape) if c.expected is None else c.expected for c in conditions]
    hole = [channels.new_ones(shape) if c.hole is None else c.hole for c in conditions]
    return EncodedCondition(region, channels, torch.cat(expected), torch.cat(hole), control)
