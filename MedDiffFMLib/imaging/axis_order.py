"""Order of the voxel axes: one scan as one array, however it is stored."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np

LPS_AXES = np.diag([-1.0, -1.0, 1.0])
"""Axes i to the patient's left, j to posterior, k to superior (DICOM's LPS), written as RAS columns."""


@dataclass(frozen=True)
class AxisOrder:
    """Turn of a stored array (k, j, i) into one with axes as close as possible to superior, posterior, left.

    Attributes:
        axes: stored array axis that becomes array axis 0, 1, 2.
        flips: whether the new axis runs the other way.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    @classmethod
    def of(cls, ijk_to_ras: np.ndarray) -> AxisOrder:
        """The order of an array with this 4x4 matrix."""
        steps = ijk_to_ras[:3, :3]
        directions = LPS_AXES @ (steps / np.linalg.norm(steps, axis=0))
        best = max(permutations(range(3)), key=lambda p: sum(abs(directions[row, axis]) for row, axis in enumerate(p)))
        flips = [bool(directions[row, axis] < 0) for row, axis in enumerate(best)]
        k, j, i = (2 - axis for axis in reversed(best))
        return cls((k, j, i), (flips[2], flips[1], flips[0]))

    @property
    def kept(self) -> bool:
        """Whether the array is stored so already."""
        return self.axes == (0, 1, 2) and not any(self.flips)

    def turn(self, array: np.ndarray) -> np.ndarray:
        """A view of a stored array, axes permuted and flipped."""
        return array.transpose(self.axes)[self._steps()]

    def turn_back(self, array: np.ndarray) -> np.ndarray:
        """The view of an array as it is stored, inverse of :meth:`turn`."""
        return array[self._steps()].transpose(np.argsort(self.axes))

    def matrix(self, stored_shape: tuple[int, ...]) -> np.ndarray:
        """4x4: index (i, j, k, 1) in the turned array -> index in the stored one, whose shape (k, j, i) is given."""
        matrix = np.zeros((4, 4))
        matrix[3, 3] = 1
        for new, (old, flip) in enumerate(zip(self.axes, self.flips, strict=True)):
            matrix[2 - old, 2 - new] = -1 if flip else 1
            matrix[2 - old, 3] = stored_shape[old] - 1 if flip else 0
        return matrix

    def every(self, steps: tuple[int, int, int], stored_shape: tuple[int, ...]) -> tuple[slice, slice, slice]:
        """Slices (k, j, i) of a stored array: every n-th voxel, counted from the end where the turned array begins."""
        begins = [0, 0, 0]
        for old, flip in zip(self.axes, self.flips, strict=True):
            begins[old] = (stored_shape[old] - 1) % steps[old] if flip else 0
        k, j, i = (slice(begin, None, step) for begin, step in zip(begins, steps, strict=True))
        return k, j, i

    def _steps(self) -> tuple[slice, ...]:
        return tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)
