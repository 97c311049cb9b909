"""X-ray beam: a flat detector, and the source that its rays come from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..imaging.grid import Grid


@dataclass(frozen=True)
class Beam:
    """Rays from a source, or parallel ones, to the pixels of a detector.

    Attributes:
        detector: shape (1, j, i), pixels at the indices (i, j, 0); the third axis points away from the source.
        source: RAS mm of the focal spot; None for parallel rays, which fall onto the detector at right angles.
    """

    detector: Grid
    source: np.ndarray | None = None

    @property
    def normal(self) -> np.ndarray:
        """Unit vector (RAS) at right angles to the detector, away from the source."""
        axis = np.cross(self.detector.ijk_to_ras[:3, 0], self.detector.ijk_to_ras[:3, 1])
        axis = axis / np.linalg.norm(axis)
        return axis if axis @ self.detector.ijk_to_ras[:3, 2] > 0 else -axis

    def pixels(self) -> np.ndarray:
        """RAS mm of the pixel centers, (j * i, 3) float64, row by row."""
        _, rows, columns = self.detector.shape
        matrix = self.detector.ijk_to_ras
        i, j = np.arange(columns)[None, :, None], np.arange(rows)[:, None, None]
        return (matrix[:3, 3] + i * matrix[:3, 0] + j * matrix[:3, 1]).reshape(-1, 3)

    def directions(self, pixels: np.ndarray) -> np.ndarray:
        """Vectors (n, 3) along the rays that end in ``pixels``, of any length, RAS."""
        return np.broadcast_to(self.normal, pixels.shape) if self.source is None else pixels - self.source

    def depths(self, points: np.ndarray) -> np.ndarray:
        """Distances by which points (n, 3), RAS mm, lie before the detector; negative behind it."""
        return (self.detector.ijk_to_ras[:3, 3] - points) @ self.normal

    @property
    def source_depth(self) -> float:
        """Distance from source to detector, mm; infinite for parallel rays."""
        return float("inf") if self.source is None else float(self.depths(self.source[None])[0])

    def shadows(self, points: np.ndarray) -> np.ndarray:
        """Places where points cast their shadow: pixel indices (i, j), not rounded.

        Args:
            points: (n, 3) RAS mm, before the source.

        Returns:
            (n, 2) float64.
        """
        depths = self.depths(points)[:, None]
        if self.source is None:
            hits = points + depths * self.normal
        else:
            hits = self.source + (points - self.source) * (self.source_depth / (self.source_depth - depths))
        index = np.linalg.inv(self.detector.ijk_to_ras) @ np.c_[hits, np.ones(len(hits))].T
        return index[:2].T

    @property
    def picture_to_ras(self) -> np.ndarray:
        """4x4 of the picture as a volume of one plane: right-handed, 1 mm thick."""
        matrix = self.detector.ijk_to_ras.copy()
        across = np.cross(matrix[:3, 0], matrix[:3, 1])
        matrix[:3, 2] = across / np.linalg.norm(across)
        return matrix

    def frustum(self) -> np.ndarray:
        """RAS mm of the detector's corners (outer edges) in a circle, (4, 3)."""
        _, rows, columns = self.detector.shape
        corners = [(-0.5, -0.5), (columns - 0.5, -0.5), (columns - 0.5, rows - 0.5), (-0.5, rows - 0.5)]
        index = np.array([[i, j, 0.0, 1.0] for i, j in corners])
        return (index @ self.detector.ijk_to_ras.T)[:, :3]
