"""X-rays as they were given: pose, exposure, and a copy with pixels as large as the voxels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...imaging.volume import Volume
from ...multimodal.beam import Beam
from ...multimodal.exposure import Exposure, exposure
from ...multimodal.shadow_hull import Shadow
from ...multimodal.xray_pose import binned, poses
from ..base import Case
from .spec import FURTHER, Reconstruct


@dataclass(frozen=True)
class GivenXray:
    """One X-ray.

    Attributes:
        name: of its input.
        picture: as read.
        beam, exposure: with all pixels.
        coarse_beam, coarse: with pixels about as large as voxels.
    """

    name: str
    picture: Volume
    beam: Beam
    exposure: Exposure
    coarse_beam: Beam
    coarse: Exposure

    @property
    def shadow(self) -> Shadow:
        """Outline of the body."""
        return Shadow(self.coarse_beam, self.coarse.shadow())


def given_xrays(task: Reconstruct, case: Case) -> list[GivenXray]:
    """The X-rays of a case in their order.

    Raises:
        InputError: one without a pose.
    """
    pictures = {"first": case.scan, **{name: case.scans[name] for name in FURTHER if name in case.scans}}
    beams = poses(list(pictures.values()), task.views, task.sources, task.source_distance, task.gap, task.pixel)
    found = []
    for (name, picture), beam in zip(pictures.items(), beams, strict=True):
        read = exposure(np.asarray(picture.voxels[0]), task.pixels)
        coarse_beam, pixels = binned(beam, read.relative, task.spacing)
        coarse = Exposure(pixels.astype(np.float32), read.free_scale, read.free_offset)
        found.append(GivenXray(name, picture, beam, read, coarse_beam, coarse))
    return found
