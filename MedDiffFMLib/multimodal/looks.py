"""Looks of an X-ray: what a picture shows of the water and the bone along its rays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .attenuation import attenuation
from .names import BONE, DIGITAL, SOFT

if TYPE_CHECKING:
    import torch

FILM_RANGE = 3.0
"""Optical density between the blackest and the clearest film."""
FILM_GRADIENT = 1.6
"""Steepest slope of density over the decimal logarithm of exposure: wide-latitude film for chests."""
BODY_ATTENUATION = 0.7
"""Three centimeters of soft tissue: where less lies along a ray, the picture shows air or skin."""


@dataclass(frozen=True)
class Picture:
    """A radiograph before it is written.

    Attributes:
        pixels: (j, i) float32 in the unit of the look.
        window: lowest and highest pixel value that a viewer should tell from black and white.
    """

    pixels: np.ndarray
    window: tuple[float, float]


def render(areal: torch.Tensor, look: str) -> Picture:
    """Picture of a look.

    Args:
        areal: (2, j, i) g/cm2 of water and of bone along each ray.
        look: one of ``LOOKS``.
    """
    lost = attenuation(areal)
    body = (lost > BODY_ATTENUATION).cpu().numpy()
    if look == BONE:
        pixels = areal[1].cpu().numpy()
        return Picture(pixels, (0.0, _share(pixels, body, 99.5)))
    if look == SOFT:
        pixels = areal[0].cpu().numpy()
        return Picture(pixels, (_share(pixels, body, 0.5), _share(pixels, body, 99.8)))
    pixels = lost.cpu().numpy()
    if look == DIGITAL:
        return Picture(pixels, (_share(pixels, body, 0.5), _share(pixels, body, 99.8)))
    return Picture(_film(pixels, body), (0.1, FILM_RANGE - 0.05))


def _film(lost: np.ndarray, body: np.ndarray) -> np.ndarray:
    """Film exposed for the middle of the body's shadow; Hurter and Driffield's curve as a logistic one."""
    exposure = -lost / np.log(10)
    middle = float(np.median(exposure[body])) if body.any() else -BODY_ATTENUATION
    density = FILM_RANGE / (1 + np.exp(-4 * FILM_GRADIENT / FILM_RANGE * (exposure - middle)))
    return (FILM_RANGE - density).astype(np.float32)


def _share(pixels: np.ndarray, body: np.ndarray, percent: float) -> float:
    """Value that so many percent of the body's shadow stay below."""
    values = pixels[body] if body.any() else pixels
    return max(float(np.percentile(values, percent)), 1e-3)
