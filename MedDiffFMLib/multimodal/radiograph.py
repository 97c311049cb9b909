"""X-rays of a CT: body, beam, line integrals, look."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..conditioning.region import body_box
from ..imaging.volume import Box, Volume
from .attenuation import densities
from .beam import Beam
from .framing import Frame, frame_body
from .looks import Picture, render
from .projection import project
from .views import Setup, View, aim

MM_PER_CM = 10.0
AIR_HU = -1000


@dataclass(frozen=True)
class Radiograph:
    """One X-ray.

    Attributes:
        view: as asked for.
        beam: where source and detector stand.
        picture: pixels and window.
        complete: whether every ray passes through all of the body that was there.
    """

    view: View
    beam: Beam
    picture: Picture
    complete: bool


class Patient:
    """Water and bone of a CT on a device, ready for any number of X-rays.

    Args:
        volume: CT in HU, any geometry.
        keep_table: leave in the picture what is not the body.

    Attributes:
        frame: what to aim at.
        materials: (2, k, j, i) float32, g/cm3 of water and of bone in the box of the body.
        ijk_to_ras: of that box.
    """

    def __init__(self, volume: Volume, keep_table: bool = False, device: str | torch.device = "cpu") -> None:
        self.frame: Frame = frame_body(volume, keep_table)
        box, self.ijk_to_ras = _box(self.frame.body, volume.ijk_to_ras)
        self.materials = _materials(volume.voxels[box], self.frame.body[box]).to(device)

    def areal_densities(self, beam: Beam) -> torch.Tensor:
        """(2, j, i) g/cm2 of water and of bone along the rays of a beam."""
        return project(self.materials, self.ijk_to_ras, beam) / MM_PER_CM

    def radiograph(self, view: View, setup: Setup, look: str) -> Radiograph:
        """X-ray of one view.

        Raises:
            InputError: source or detector cannot stand where they would.
        """
        beam, complete = aim(view, self.frame, setup)
        return Radiograph(view, beam, render(self.areal_densities(beam), look), complete)


def _box(body: np.ndarray, ijk_to_ras: np.ndarray) -> tuple[Box, np.ndarray]:
    """Index box (k, j, i) of a mask, and the geometry of what it cuts out."""
    first, last = body_box(body)
    shift = np.eye(4)
    shift[:3, 3] = first[::-1]
    k, j, i = (slice(int(a), int(b) + 1) for a, b in zip(first, last, strict=True))
    return (k, j, i), ijk_to_ras @ shift


def _materials(hounsfield: np.ndarray, body: np.ndarray) -> torch.Tensor:
    """Water and bone in each voxel, air around the body; plane by plane, which a processor's cache can hold."""
    materials = torch.empty((2, *hounsfield.shape), dtype=torch.float32)
    for k, (plane, inside) in enumerate(zip(hounsfield, body, strict=True)):
        values = np.where(inside, plane, AIR_HU).astype(np.float32)
        materials[:, k] = densities(torch.from_numpy(values))
    return materials
