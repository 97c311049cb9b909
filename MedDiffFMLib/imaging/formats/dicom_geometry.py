"""Geometry of a DICOM series: one size and orientation, evenly spaced slices, exact copies left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...core.errors import InputError
from .common import LPS_TO_RAS, affine

EXPORT = "Export the series again from the scanner or the archive, or convert it to NRRD with 3D Slicer."
_STEP_TOLERANCE = 0.05  # of the slice distance: above the rounding of positions, far below a missing slice
_SAME = 1e-3
"""Cosines, and sizes of pixels relative to each other, that differ by less differ by the rounding of some program."""
_SAME_PLACE_MM = 1e-3


def refuse_mixed(name: str, slices: Sequence[Any]) -> None:
    """Images without a place, and of several sizes or orientations, make no volume.

    Raises:
        InputError: they are such.
    """
    for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        if any(not s.get(tag) for s in slices):
            raise InputError(f"'{name}': some images have no {tag}, so their place in the body is unknown.", EXPORT)
    sizes = _different(
        [[int(s.Columns), int(s.Rows), *(np.log(abs(float(x)) or 1.0) for x in s.PixelSpacing)] for s in slices]
    )
    directions = _different([[float(x) for x in s.ImageOrientationPatient] for s in slices])
    if sizes > 1 or directions > 1:
        raise InputError(
            f"'{name}': its {len(slices)} images have {sizes} different sizes and {directions} different "
            "orientations, so they are not one volume.",
            "Remove localizer or reformatted images from the folder.",
        )


def _different(rows: list[list[float]]) -> int:
    """Number of rows that differ by more than rounding."""
    found: list[np.ndarray] = []
    for row in np.array(rows):
        if not any(np.abs(row - other).max() <= _SAME for other in found):
            found.append(row)
    return len(found)


def _place(header: Any) -> np.ndarray:
    return np.array([float(x) for x in header.ImagePositionPatient])


def _axes(header: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Direction of the rows, of the columns, and of the normal."""
    row, column = np.reshape([float(x) for x in header.ImageOrientationPatient], (2, 3))
    return row, column, np.cross(row, column)


def sorted_slices(slices: Sequence[Any]) -> list[Any]:
    """The slices along their normal."""
    normal = _axes(slices[0])[2]
    return sorted(slices, key=lambda s: float(normal @ _place(s)))


def without_copies(slices: Sequence[Any], same: Callable[[Any, Any], bool]) -> list[Any]:
    """Sorted slices without those that are the one before once more.

    Args:
        same: whether two images at one place are the same image.
    """
    kept: list[Any] = []
    for header in slices:
        here = _place(header)
        if not any(same(other, header) for other in kept[-3:] if np.abs(_place(other) - here).max() < _SAME_PLACE_MM):
            kept.append(header)
    return kept


def geometry_of(name: str, slices: Sequence[Any]) -> np.ndarray:
    """ijk_to_ras of sorted slices; the step is taken from the positions, so a tilted gantry stays visible.

    Raises:
        InputError: duplicate, missing or unevenly spaced slices.
    """
    first = slices[0]
    row, column, normal = _axes(first)
    positions = np.array([_place(s) for s in slices])
    if len(slices) > 1:
        step = _even_step(name, positions, positions @ normal)
    else:
        step = normal * float(first.get("SliceThickness") or 1.0)
    between_rows, between_columns = (float(x) for x in first.PixelSpacing)
    axes = np.stack([row * between_columns, column * between_rows, step], axis=1)
    return LPS_TO_RAS @ affine(axes, positions[0])


def _even_step(name: str, positions: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Vector in mm from one slice to the next; positions (n, 3) sorted by their height along the normal."""
    gaps = np.diff(heights)
    doubled = int(np.count_nonzero(gaps < _SAME_PLACE_MM))
    if doubled:
        raise InputError(
            f"'{name}': {doubled} of {len(heights)} images lie at the same place as another one (copies, or several "
            "phases or reconstructions in one series).",
            "Keep one image for each position.",
        )
    usual = float(np.median(gaps))
    worst = int(np.argmax(np.abs(gaps - usual)))
    if abs(gaps[worst] - usual) > _STEP_TOLERANCE * usual:
        if (two := _two_spacings(gaps)) is not None:
            below, above, turn = two
            raise InputError(
                f"'{name}': the slices lie {below:.4g} mm apart up to {heights[turn]:.4g} mm along the scan and "
                f"{above:.4g} mm from there on: two spacings in one series, as in head scans.",
                "Export each part as a series of its own, or load it in 3D Slicer with acquisition geometry "
                "regularization and resample it.",
            )
        missing = round(gaps[worst] / usual) - 1
        detail = f"{missing} missing there" if missing >= 1 else "unevenly spaced"
        raise InputError(
            f"'{name}': slices are {gaps[worst]:.4g} mm apart at {heights[worst]:.4g} mm along the scan, elsewhere "
            f"{usual:.4g} mm ({detail}).",
            EXPORT,
        )
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    straight = positions[0] + np.arange(len(positions))[:, None] * step
    if np.linalg.norm(positions - straight, axis=1).max() > max(2 * _STEP_TOLERANCE * usual, 0.05):
        raise InputError(f"'{name}': the slices do not lie on a straight line.", EXPORT)
    return step


def _two_spacings(gaps: np.ndarray) -> tuple[float, float, int] | None:
    """The two distances, and the slice at which they change, where the gaps are even but for one change."""
    turn = int(np.argmax(np.abs(np.diff(gaps)))) + 1
    parts = gaps[:turn], gaps[turn:]
    for part in parts:
        if len(part) < 2 or np.abs(part - np.median(part)).max() > _STEP_TOLERANCE * np.median(part):
            return None
    return float(np.median(parts[0])), float(np.median(parts[1])), turn
