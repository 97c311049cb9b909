"""A template of the width and with the lungs that are asked for: measured, framed with air, and scaled.

Guidance of the sampler moves the borders of what there is by some voxels; a body of another size, and lungs that are
larger by a third, have to come with the anatomy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...conditioning.tissue import LUNG, OUTSIDE
from .expected_hu import LUNG_VESSELS

MARGIN_MM = 18.0
"""Air around the body, into which bending may move it."""
WITH_LUNGS = ("chest", "whole-body")
"""Regions whose templates show whole lungs."""
LEAST_LUNG_ML = 1000.0


@dataclass(frozen=True)
class Measures:
    """What is asked of a body.

    Attributes:
        width: largest one of a slice, mm; None for that of the template.
        lungs: volume, ml; None for that of the template.
    """

    width: float | None = None
    lungs: float | None = None


def framed(codes: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Codes (k, j, i) of the box of the body with air on all four sides, also where the template's field of view ended
    at the skin: what goes on to the edge of a slice is wider than anyone can tell."""
    body = codes > OUTSIDE
    box = [slice(None)]
    for axis in (1, 2):
        shown = np.flatnonzero(body.any(tuple({0, 1, 2} - {axis})))
        box.append(slice(int(shown[0]), int(shown[-1]) + 1))
    margin = [(0, 0), *((n, n) for n in np.ceil(MARGIN_MM / edges[1:]).astype(int))]
    return np.pad(codes[tuple(box)], margin, constant_values=OUTSIDE)


def width_of(codes: np.ndarray, edges: np.ndarray) -> float:
    """Largest width of a slice, mm, as :mod:`multimodal.facts.body` measures it."""
    columns = np.asarray((codes > OUTSIDE).any(1))
    return float(edges[2] * max(np.ptp(np.flatnonzero(row)) + 1 for row in columns if row.any()))


def lungs_of(codes: np.ndarray, edges: np.ndarray) -> float:
    """Volume of the lungs with the vessels in them, ml."""
    return float(np.isin(codes, (LUNG, *LUNG_VESSELS)).sum() * np.prod(edges) / 1000)


def fitted(codes: np.ndarray, edges: np.ndarray, asked: Measures, vary: np.ndarray) -> np.ndarray:
    """Factors (k, j, i) on a template's voxels with which its body is as asked.

    A width scales the slices, and by its cube root the length: who is wider is not much taller. What is lacking in the
    lungs then comes from length and depth, or from all three where no width is asked for.

    Args:
        vary: factors (k, j, i) of a random body, whose proportions are kept.
    """
    scale = vary.astype(float)
    if asked.width is not None:
        wider = asked.width / (width_of(codes, edges) * scale[2])
        scale = scale * np.array([wider ** (1 / 3), wider, wider])
    volume = lungs_of(codes, edges)
    if asked.lungs is not None and volume >= LEAST_LUNG_ML:
        lacking = asked.lungs / (volume * scale.prod())
        if asked.width is None:
            scale = scale * lacking ** (1 / 3)
        else:
            scale[:2] *= lacking**0.5
    return scale


def misfit(scale: np.ndarray, least: float, most: float) -> float:
    """How far factors lie beyond the limits, 0 within them."""
    return float(np.maximum(np.log(scale / most), np.log(least / scale)).clip(0).sum())
