"""Regression from an AP and a lateral X-ray of a chest to its expected CT on voxels of 8 mm.

The mean over all that X-rays leave open has the least error. A small U-Net estimates it from what can be calculated
without one: a consistent image that begins with even tissue, each X-ray's mean density laid back along its rays (lift),
the hull, and the place in the body's box. It corrects the consistent image; ribs and vessels are beyond 8 mm.

The hull holds a third more than the body, and a mean over body and air is too thin in the one and too dense in the
other. So two more outputs tell how probably a voxel belongs to the body, and what it is if it does. What the X-rays
make of these on the same voxels is read by a refinement, which corrects both. The network is asked about the scene and
about its mirror image, and the mean is taken.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as functional
from torch import nn

from ..core.errors import ModelError
from ..imaging.grid import same_box
from .shadow_hull import Hull
from .xray_consistency import XrayConsistency
from .xray_refinement import Refinement

FORMAT, MODEL = "meddifffm-xrays-2", "chest-xrays"
EDGE_MM = 8.0
CHANNELS = 7
ROOM = 3
"""Channel of the hull."""
WIDTHS = (12, 24, 40)
INSIDE = 24
"""Channels of what tells the body from the air in its hull."""
EVEN, ROUNDS = -0.25, 2
"""Tissue that the consistent image begins with, network range, and its steps."""
LEAST_ROOM = 0.05
"""Of a voxel of 8 mm that lies in the hull, from which it may hold tissue."""
MET_BY_AIR, MET_BY_ALL = 2, 1
"""Steps of consistency before the refinement."""
PER_CM = 5.0
"""Scale of attenuation per cm, which is 0.2 in water."""
ALONG = 0.87
"""Least cosine, 30 degrees, between an X-ray's central ray and the axis by which it counts as frontal or lateral."""


@dataclass(frozen=True)
class ExpectedChest:
    """What the regression makes of two X-rays, (k, j, i) each.

    Attributes:
        image: what a voxel is expected to be if it belongs to the body, in the network's range.
        body: probability that it does.
    """

    image: torch.Tensor
    body: torch.Tensor


class XrayRegression(nn.Module):
    """(B, 7, k, j, i) of :func:`regression_input` -> expected image (B, 1, k, j, i) in the network's range."""

    def __init__(self, widths: tuple[int, int, int] = WIDTHS) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.fine = _pair(CHANNELS, fine, fine)
        self.middle = _pair(fine, middle, middle)
        self.coarse = _pair(middle, coarse, middle)
        self.up_middle = _pair(2 * middle, middle, fine)
        self.up_fine = nn.Sequential(nn.Conv3d(2 * fine, fine, 3, padding=1), nn.SiLU())
        self.out = nn.Conv3d(fine, 1, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]
        facts = fine + CHANNELS + 3
        self.inside = nn.Sequential(
            nn.Conv3d(facts, INSIDE, 1), nn.SiLU(), nn.Conv3d(INSIDE, INSIDE, 1), nn.SiLU(), nn.Conv3d(INSIDE, 2, 1)
        )
        self.refine = Refinement(facts)

    def forward(self, known: torch.Tensor) -> torch.Tensor:
        """The consistent image, corrected."""
        return known[:, :1] + self.out(self._features(known))

    def facts(self, known: torch.Tensor) -> torch.Tensor:
        """What a voxel is judged by, (B, 22, k, j, i): features, input, place, and expected image."""
        features = self._features(known)
        expected = known[:, :1] + self.out(features)
        return torch.cat([features, known, place_in_planes(known[:, ROOM]), expected], 1)

    def within(self, facts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What each voxel is expected to be within the body, and the logit of being there: (B, 1, k, j, i) each."""
        found = self.inside(facts)
        return facts[:, -1:] + found[:, :1], found[:, 1:]

    def _features(self, known: torch.Tensor) -> torch.Tensor:
        fine = self.fine(known)
        middle = self.middle(functional.avg_pool3d(fine, 2, ceil_mode=True))
        coarse = self.coarse(functional.avg_pool3d(middle, 2, ceil_mode=True))
        middle = self.up_middle(torch.cat([middle, _like(coarse, middle)], 1))
        return self.up_fine(torch.cat([fine, _like(middle, fine)], 1))


def _pair(given: int, between: int, made: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(given, between, 3, padding=1), nn.SiLU(), nn.Conv3d(between, made, 3, padding=1), nn.SiLU()
    )


def _like(image: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(image, size=other.shape[2:], mode="trilinear")


def place_in_planes(room: torch.Tensor) -> torch.Tensor:
    """Place along j and i, -1 to 1, in the box that the room (B, k, j, i) has in each plane k: (B, 2, k, j, i).

    A trunk is round and the hull of two shadows is a box, whose corners are air.
    """
    places = []
    for across in (-1, -2):
        line = (room > 0.5).any(across)
        numbers = torch.arange(line.shape[-1], dtype=room.dtype, device=room.device)
        last = float(len(numbers) - 1)
        first = torch.where(line, numbers, last).amin(-1, keepdim=True)
        final = torch.where(line, numbers, 0.0).amax(-1, keepdim=True)
        first, final = torch.minimum(first, final), torch.maximum(first, final)  # a plane without room: its own box
        place = ((numbers - (first + final) / 2) / ((final - first + 1) / 2)).clamp(-1.5, 1.5)
        places.append(place.unsqueeze(across).expand(room.shape))
    return torch.stack(places, 1)


def mirrored(known: torch.Tensor) -> torch.Tensor:
    """Input (..., 7, k, j, i) of the network for the same body with right and left exchanged.

    The lateral X-ray is then one from the other side; of the places in the body's box only the last changes its sign.
    """
    turned = known.flip(-1)
    return torch.cat([turned[..., :-1, :, :, :], -turned[..., -1:, :, :, :]], -4)


def frontal_and_lateral(consistency: XrayConsistency) -> tuple[int, int] | None:
    """Numbers of the one frontal and the one lateral X-ray; None where there are others."""
    normals = [view.beam.normal for view in consistency.views]
    frontal = [n for n, normal in enumerate(normals) if abs(normal[1]) >= ALONG]
    lateral = [n for n, normal in enumerate(normals) if abs(normal[0]) >= ALONG]
    return (frontal[0], lateral[0]) if len(normals) == 2 and len(frontal) == len(lateral) == 1 else None


def regression_input(hull: Hull, consistency: XrayConsistency, views: tuple[int, int]) -> torch.Tensor:
    """Input (1, 7, k, j, i) of the network on voxels of about 8 mm over the box of the hull's grid.

    Args:
        consistency: with all voxels of the hull alike.
        views: numbers of the frontal and the lateral X-ray.
    """
    room = consistency.support.float()
    even = consistency.meet(torch.full(room.shape, EVEN), ROUNDS)
    lifts = consistency.lifted()
    lines = []
    for axis, (count, low, high) in enumerate(zip(room.shape, *hull.box, strict=True)):
        shape = [1, 1, 1]
        shape[axis] = count
        line = (torch.arange(count, dtype=torch.float32) - float(low)) / float(high - low) * 2 - 1
        lines.append(line.reshape(shape).expand(room.shape))
    known = torch.stack([even * room, *(PER_CM * lifts[view] * room for view in views), room, *lines])
    spacing = hull.grid.spacing[0]
    size = [max(1, round(count * spacing / EDGE_MM)) for count in room.shape]
    return functional.interpolate(known[None], size=size, mode="area")


@torch.no_grad()
def expected_chest(network: XrayRegression, hull: Hull, consistency: XrayConsistency) -> ExpectedChest | None:
    """What is expected on the hull's grid; None for other than two such X-rays."""
    views = frontal_and_lateral(consistency)
    if views is None:
        return None
    known = regression_input(hull, consistency, views)
    k, j, i = known.shape[2:]
    support = known[0, ROOM] > LEAST_ROOM
    coarse = XrayConsistency(consistency.views, same_box(hull.grid, (k, j, i)), support, damping=consistency.damping)

    def met(image: torch.Tensor, body: torch.Tensor) -> torch.Tensor:
        return coarse.meet(coarse.meet_by_air(image, body, MET_BY_AIR), MET_BY_ALL)

    found = refined(network, known, met)
    image, logit = (functional.interpolate(part, size=hull.grid.shape, mode="trilinear")[0, 0] for part in found)
    room = consistency.support
    return ExpectedChest(torch.where(room, image.clamp(-1, 1), -1.0), logit.sigmoid() * room)


def refined(
    network: XrayRegression, known: torch.Tensor, met: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a voxel is expected to be within the body, and the logit of being there, (1, 1, k, j, i) each.

    Args:
        known: (1, 7, k, j, i) of :func:`regression_input`.
        met: image and probability of the body, (k, j, i) each -> image that meets the X-rays.
    """
    facts = network.facts(torch.cat([known, mirrored(known)]))
    image, logit = (_mean_of_both(part) for part in network.within(facts))
    body = logit.sigmoid()
    seen = met(image[0, 0], body[0, 0])[None, None]
    change = _mean_of_both(network.refine(facts, *(torch.cat([part, part.flip(-1)]) for part in (image, body, seen))))
    return image + change[:, :1], logit + change[:, 1:]


def _mean_of_both(part: torch.Tensor) -> torch.Tensor:
    """Mean (1, c, k, j, i) of what was found of a scene and of its mirror image (2, c, k, j, i)."""
    return (part[:1] + part[1:].flip(-1)) / 2


def save_regression(path: Path, network: XrayRegression, facts: dict[str, object]) -> str:
    """Write the network in eight bits, atomically; returns the file's SHA-256.

    Raises:
        OutputError: the file cannot be written.
    """
    from ..models.checkpoint import write_weights

    metadata = {"format": FORMAT, "training": json.dumps(facts)}
    return write_weights(path, network.state_dict(), metadata, eight_bits=True)


def load_regression(path: Path, sha256: str | None = None) -> XrayRegression:
    """Read a network, on the CPU.

    Args:
        sha256: what the file's bytes must have, None for any.

    Raises:
        ModelError: missing, damaged, a pickle, or something else.
    """
    from ..models.checkpoint import check_format, read_weights

    remedy = "Install MedDiff-FM again."
    weights = read_weights(path, sha256)
    check_format(path, weights.metadata, FORMAT, "regression of X-rays", remedy)
    network = XrayRegression()
    try:
        network.load_state_dict(weights.state)
    except RuntimeError as error:
        raise ModelError(f"The weights in {path.name} do not fit ({str(error).splitlines()[0]}).", remedy) from error
    return network.eval().requires_grad_(False)


@functools.cache
def shipped_regression() -> XrayRegression:
    """The network of the catalogue, read once a process."""
    from ..models.catalogue import resolve

    _, path, expected = resolve(MODEL)
    return load_regression(path, expected)
