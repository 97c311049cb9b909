"""Pose of an X-ray that is given: the beam of a picture that knows its source, or of a named view."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..core.errors import InputError
from ..imaging.grid import Grid
from ..imaging.volume import Volume
from .beam import Beam
from .names import parse_views
from .views import View, from_angles

HALF_BODY_MM = 120.0
"""From the middle of a body to its surface, to guess where it stands before a detector."""
_NO_POSE = (
    "Name the direction of each X-ray with --views (ap, pa, lat ...), or give --sources: what the report of radiograph "
    "lists as source_ras_mm."
)


def beam_of(picture: Volume, source: Sequence[float] | None) -> Beam:
    """Beam of a picture that stands at its detector.

    Args:
        picture: (1, j, i) with the geometry of the detector.
        source: RAS mm of the focal spot; empty for parallel rays.

    Raises:
        InputError: the source lies in the detector's plane.
    """
    matrix = picture.ijk_to_ras.copy()
    normal = np.cross(matrix[:3, 0], matrix[:3, 1])
    normal = normal / np.linalg.norm(normal)
    focal_spot = np.array(source, float) if source else None
    if focal_spot is not None:
        depth = float((matrix[:3, 3] - focal_spot) @ normal)
        if abs(depth) < HALF_BODY_MM:
            raise InputError(
                f"The source stands {abs(depth):.3g} mm from its detector: no body fits between them.",
                "Check the source, which is told in RAS millimeters.",
            )
        normal = normal if depth > 0 else -normal
    matrix[:3, 2] = normal
    return Beam(Grid((1, *picture.voxels.shape[1:]), matrix), focal_spot)


def standing(picture: Volume, view: View, source_distance: float, gap: float, pixel: float | None) -> Beam:
    """Beam of a plain picture: its middle on the central ray, a body around 0 so far before it as ``gap`` says.

    Args:
        pixel: edge of its pixels on the detector in mm; None for what the file says.
    """
    rows, columns = picture.voxels.shape[1:]
    i, j, _ = picture.spacing if pixel is None else (pixel,) * 3
    matrix = np.eye(4)
    matrix[:3, :3] = np.column_stack([i * view.right, j * view.down, view.ahead])
    middle = (gap + HALF_BODY_MM) * view.ahead
    matrix[:3, 3] = middle - matrix[:3, 0] * (columns - 1) / 2 - matrix[:3, 1] * (rows - 1) / 2
    return Beam(Grid((1, rows, columns), matrix), middle - source_distance * view.ahead)


def poses(
    pictures: Sequence[Volume],
    views: str,
    sources: Sequence[float] | None,
    source_distance: float,
    gap: float,
    pixel: float | None,
) -> list[Beam]:
    """Beams of X-rays: by name where views are named, else where the pictures stand.

    Args:
        views: names, separated by commas, one a picture; empty for none.
        sources: three numbers a picture, RAS mm; None for what each file says.

    Raises:
        InputError: a picture without a pose, or another number of views or sources than of pictures.
    """
    if views:
        angles = parse_views(views)
        if len(angles) != len(pictures) or None in angles:
            raise InputError(
                f"{len(pictures)} X-rays are given and {len(angles)} views named, of which none may be a camera's.",
                "Name one direction for each X-ray, in their order.",
            )
        directions = [from_angles(one) for one in angles if one is not None]
        return [
            standing(picture, view, source_distance, gap, pixel)
            for picture, view in zip(pictures, directions, strict=True)
        ]
    if sources is not None and len(sources) != 3 * len(pictures):
        raise InputError(
            f"{len(pictures)} X-rays are given and {len(sources)} numbers for their sources.", "Give three for each."
        )
    beams = []
    for number, picture in enumerate(pictures):
        spot = picture.beam_source if sources is None else tuple(sources[3 * number : 3 * number + 3])
        if spot is None:
            raise InputError(f"X-ray {number + 1} says nothing about where its source stood.", _NO_POSE)
        beams.append(beam_of(picture, spot))
    return beams


def binned(beam: Beam, pixels: np.ndarray, millimeters: float) -> tuple[Beam, np.ndarray]:
    """The same X-ray with pixels of about ``millimeters``, means of whole blocks; what fills no block is left out.

    Args:
        pixels: (j, i).
    """
    matrix = beam.detector.ijk_to_ras
    factors = [max(1, round(millimeters / float(np.linalg.norm(matrix[:3, axis])))) for axis in (1, 0)]
    rows, columns = (n // f for n, f in zip(pixels.shape, factors, strict=True))
    fj, fi = factors
    blocks = pixels[: rows * fj, : columns * fi].reshape(rows, fj, columns, fi)
    coarse = matrix.copy()
    coarse[:3, 3] += (fi - 1) / 2 * matrix[:3, 0] + (fj - 1) / 2 * matrix[:3, 1]
    coarse[:3, 0] *= fi
    coarse[:3, 1] *= fj
    return Beam(Grid((1, rows, columns), coarse), beam.source), blocks.mean((1, 3))
