"""Exposure of an X-ray: from what pixels say to attenuation, -ln(I / I0).

Integrals need an absolute scale, which only an attenuation has. Of a film the exposure is not known, of counts that of
the tube, of a processed picture neither zero nor slope: what is missing is chosen such that the whole shadow is what an
average body of the same outline would cast.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .looks import BODY_ATTENUATION, FILM_GRADIENT, FILM_RANGE
from .names import ATTENUATION, COUNTS, FILM, PICTURE

SHADOW = 0.06
"""Attenuation from which on a pixel shows tissue: three millimeters of water."""
_FAINT, _DARK, _BRIGHT = 0.05, 1.0, 99.0
"""Share of the brightest attenuation that counts as shadow where the scale is not known; percentiles."""


@dataclass(frozen=True)
class Exposure:
    """An X-ray up to its exposure.

    Attributes:
        relative: (j, i) float32, attenuation but for what is free.
        free_scale, free_offset: what the pixels do not tell.
    """

    relative: np.ndarray
    free_scale: bool = False
    free_offset: bool = False

    def shadow(self) -> np.ndarray:
        """Mask of the pixels that show tissue, bool (j, i)."""
        if not (self.free_scale or self.free_offset):
            return self.relative > SHADOW
        low, high = np.percentile(self.relative, (_DARK, _BRIGHT))
        return self.relative > low + _FAINT * (high - low)

    def fit(self, expected: np.ndarray) -> tuple[float, float]:
        """Scale and offset after which the shadow is in all as dark as expected; 1 and 0 where nothing is free.

        Args:
            expected: (j, i) attenuation of a usual body of this outline.
        """
        inside = self.shadow() & (expected > BODY_ATTENUATION)
        if not (self.free_scale or self.free_offset) or not inside.any():
            return 1.0, 0.0
        mine, usual = float(self.relative[inside].mean()), float(expected[inside].mean())
        if not self.free_scale:
            return 1.0, usual - mine
        zero = float(np.percentile(self.relative, _DARK)) if self.free_offset else 0.0
        scale = usual / max(mine - zero, 1e-6)
        return scale, -scale * zero

    def absolute(self, fit: tuple[float, float]) -> np.ndarray:
        """Attenuation (j, i) with a scale and an offset."""
        scale, offset = fit
        return self.relative if fit == (1.0, 0.0) else np.maximum(scale * self.relative + offset, 0)


def exposure(pixels: np.ndarray, kind: str) -> Exposure:
    """Reading of the pixels of an X-ray.

    Args:
        pixels: (j, i).
        kind: ``ATTENUATION``; ``FILM``, optical density below the blackest film, as the look of that name;
            ``COUNTS``, what a detector received; or ``PICTURE``, gray values in which more attenuation is brighter.
    """
    values = np.asarray(pixels, np.float64)
    if kind == ATTENUATION:
        return Exposure(values.astype(np.float32))
    if kind == FILM:  # the logistic curve of looks.py, solved for the exposure; its middle is not known
        density = np.clip(FILM_RANGE - values, 1e-3, FILM_RANGE - 1e-3)
        exposed = -FILM_RANGE / (4 * FILM_GRADIENT) * np.log(FILM_RANGE / density - 1)
        return Exposure((-np.log(10) * exposed).astype(np.float32), free_offset=True)
    if kind == COUNTS:
        brightest = max(float(np.percentile(values, 99.9)), 1e-6)
        lost = -np.log(np.clip(values / brightest, 1e-6, 1))
        return Exposure(lost.astype(np.float32), free_offset=True)
    assert kind == PICTURE
    return Exposure(values.astype(np.float32), free_scale=True, free_offset=True)
