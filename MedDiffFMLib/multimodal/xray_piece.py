"""An X-ray as the encoders know it: of a piece of a body of 128 mm that stands alone in air, by its attenuation."""

from __future__ import annotations

import numpy as np

from ..imaging.volume import Volume
from .box_xray import BRIGHTEST, MARGIN
from .boxes import SPACING_MM
from .encoders import EDGE, PIXELS
from .exposure import SHADOW
from .facts.kinds import EXPOSURE, LARGE, TOO_LITTLE

FIELD_MM = MARGIN * EDGE * SPACING_MM
"""Width of the field where the piece stands."""
MAGNIFICATION = 1.07
"""Of a piece before its detector: its middle lies 114 mm before it, the source 1.8 m."""
HIGHEST = 12.0
"""No body loses more than so many powers of e."""
LEAST_SHARE = 0.02
"""Of the field that the piece covers at least."""
FAINT = round(SHADOW / BRIGHTEST * 255)
"""Byte from which on a pixel shows tissue."""


def piece_of(picture: Volume) -> tuple[np.ndarray | None, str]:
    """Picture (64, 64) uint8 for the encoder, or None and why there is none, one of ``kinds.REASONS``.

    Args:
        picture: (1, j, i) attenuation, -ln(I / I0).
    """
    pixels = np.asarray(picture.voxels[0], np.float32)
    if not np.isfinite(pixels).all() or pixels.min() < -0.5 or np.percentile(pixels, 99.9) > HIGHEST:
        return None, EXPOSURE
    shadow = pixels > SHADOW
    column, row = (float(edge) / MAGNIFICATION for edge in picture.spacing[:2])
    if shadow[[0, -1]].any() or shadow[:, [0, -1]].any():
        return None, LARGE
    if not shadow.any():
        return None, TOO_LITTLE
    (top, bottom), (left, right) = (_ends(np.asarray(shadow.any(axis))) for axis in (1, 0))
    if max((bottom - top + 1) * row, (right - left + 1) * column) > FIELD_MM:
        return None, LARGE
    if shadow.sum() * row * column < LEAST_SHARE * FIELD_MM**2:
        return None, TOO_LITTLE
    middle = ((top + bottom) / 2, (left + right) / 2)
    field = _field(pixels, middle, (row, column))
    return centered(np.clip(np.rint(field * (255 / BRIGHTEST)), 0, 255).astype(np.uint8)), ""


def _ends(line: np.ndarray) -> tuple[int, int]:
    found = np.flatnonzero(line)
    return int(found[0]), int(found[-1])


def _field(pixels: np.ndarray, middle: tuple[float, float], size: tuple[float, float]) -> np.ndarray:
    """Means over the 64 x 64 pixels of the field around a middle; 0 beyond the picture."""
    from scipy.ndimage import gaussian_filter, map_coordinates

    edge = FIELD_MM / PIXELS
    steps = [edge / one for one in size]
    smooth = gaussian_filter(pixels, [max(step - 1, 0) / 2.5 for step in steps])
    lines = [m + (np.arange(PIXELS) - (PIXELS - 1) / 2) * step for m, step in zip(middle, steps, strict=True)]
    return map_coordinates(smooth, np.meshgrid(*lines, indexing="ij"), order=1, cval=0.0)


def centered(pictures: np.ndarray) -> np.ndarray:
    """X-rays (..., 64, 64) uint8 moved by whole pixels so that what they show lies in the middle."""
    moved = np.zeros_like(pictures)
    for index in np.ndindex(*pictures.shape[:-2]):
        shadow = pictures[index] > FAINT
        if not shadow.any():
            continue
        shift = [round((PIXELS - 1 - sum(_ends(shadow.any(axis)))) / 2) for axis in (1, 0)]
        into, out_of = zip(*(_overlap(n) for n in shift), strict=True)
        moved[index][into] = pictures[index][out_of]
    return moved


def _overlap(shift: int) -> tuple[slice, slice]:
    """Where pixels go, and where they come from."""
    return slice(max(shift, 0), PIXELS + min(shift, 0)), slice(max(-shift, 0), PIXELS - max(shift, 0))
