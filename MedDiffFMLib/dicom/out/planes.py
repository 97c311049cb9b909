"""Planes of a volume as DICOM has them: right-handed, with position and directions in LPS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core.errors import InputError
from ...imaging.formats.common import LPS_TO_RAS
from ...imaging.volume import SHEAR_TOLERANCE, Volume


@dataclass(frozen=True)
class Planes:
    """Images of a series, in the order of their positions along the normal.

    Attributes:
        voxels: (k, j, i), the volume's own or with its planes in the other order.
        matrix: 4x4, voxel index (i, j, k, 1) to LPS mm.
    """

    voxels: np.ndarray
    matrix: np.ndarray

    @property
    def position(self) -> np.ndarray:
        """Centers of the first voxels (k, 3), LPS mm."""
        return self.matrix[:3, 3] + np.arange(len(self.voxels))[:, None] * self.matrix[:3, 2]

    @property
    def orientation(self) -> np.ndarray:
        """Unit vectors along a row and down a column, six numbers."""
        axes = self.matrix[:3, :2] / np.linalg.norm(self.matrix[:3, :2], axis=0)
        return axes.T.reshape(6)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Between columns, rows and planes, mm."""
        i, j, k = np.linalg.norm(self.matrix[:3, :3], axis=0)
        return float(i), float(j), float(k)

    def as_library_volume(self, frame: str) -> Any:
        """For highdicom, which counts axes as the array does."""
        import highdicom

        affine = self.matrix[:, [2, 1, 0, 3]]
        return highdicom.Volume(self.voxels, affine, "PATIENT", frame)


def planes_of(volume: Volume) -> Planes:
    """The planes of a volume, along its k axis.

    Raises:
        InputError: the axes are not at right angles, which no DICOM image can say.
    """
    matrix = LPS_TO_RAS @ volume.ijk_to_ras
    unit = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    if np.abs(unit.T @ unit - np.eye(3)).max() > SHEAR_TOLERANCE:
        raise InputError("The axes of a result are not at right angles: DICOM cannot hold it.", "Resample the input.")
    if np.linalg.det(unit) > 0:
        return Planes(volume.voxels, matrix)
    flip = np.eye(4)
    flip[2, 2], flip[2, 3] = -1, len(volume.voxels) - 1
    return Planes(volume.voxels[::-1], matrix @ flip)
