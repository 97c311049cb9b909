"""Layers of a page's pictures: how each kind of output is drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..imaging.volume import Volume
from ..tasks.output_kinds import OutputKind
from .content import Picture, Scale
from .slices import (
    GRAY,
    HEAT,
    MOST_PIXELS,
    SIDES,
    SIGNED,
    Cut,
    outlined,
    over,
    ringed,
    shaded,
    slice_of,
    window_for,
)

MASK_COLOR, RING_COLOR = (255, 210, 63), (90, 200, 250)
RING_MM = 14.0
LABEL_OPACITY = 0.45
_TABLE = ((230, 80, 70), (80, 170, 90), (70, 120, 220), (230, 180, 50), (160, 90, 200), (60, 190, 190), (240, 130, 180))

Drawn = tuple[np.ndarray, str, Scale | None]
"""Pixels, what they are in words, and the scale of their colors."""
Painter = Callable[[np.ndarray, np.ndarray | None], Drawn]
"""Draws a slice of a volume, over the slice of the scan where there is one."""


@dataclass(frozen=True)
class Layer:
    """A column of pictures.

    Attributes:
        paint: how it is drawn.
        below: the scan on which maps lie.
        mask: outlined.
    """

    paint: Painter
    volume: Volume
    title: str
    below: Volume | None = None
    mask: Volume | None = None


def picture(layer: Layer, cut: Cut, label: str) -> Picture:
    """The picture of a layer; ``label`` is the number of a place, which gets a ring, or empty."""
    own = slice_of(layer.volume, cut, nearest=layer.volume.voxels.dtype.kind in "bu")
    below = None if layer.below is None else slice_of(layer.below, cut).values
    if below is not None and below.shape != own.values.shape:
        below = None  # on a grid of its own
    pixels, kind, scale = layer.paint(own.values, below)
    if layer.mask is not None:
        inside = slice_of(layer.mask.with_voxels(layer.mask.voxels.astype(np.float32)), cut).values > 0.5
        pixels = outlined(pixels, inside, MASK_COLOR) if inside.shape == pixels.shape[:2] else pixels
    if label:
        pixels = ringed(pixels, own.at, RING_MM / own.edge, RING_COLOR)
    caption = f"{layer.title}, {cut.plane} {label}".strip() + (f" ({kind})" if kind else "")
    at = ", ".join(f"{x:.0f}" for x in cut.point)
    near = f", {2 * cut.reach:.0f} mm around it" if cut.reach else ""
    description = f"{layer.title}: {cut.plane} slice through R A S {at} mm{near}; {kind or 'map'}"
    return Picture(pixels, pixels.shape[1] * own.edge, caption, description, SIDES[cut.plane], scale)


def overlay(kind: OutputKind, threshold: float | None = None, labels: Any = None) -> Painter:
    """How volumes of a kind are drawn.

    Args:
        threshold: z-score from which a map is shown.
        labels: names and colors of label values, from the result's facts.
    """
    painters: dict[OutputKind, Painter] = {
        OutputKind.CT: _ct,
        OutputKind.DIFFERENCE: _difference,
        OutputKind.Z_SCORE: lambda values, below: _z_score(values, below, threshold or 3.0),
        OutputKind.CHANGE: lambda values, below: _change(values, below, threshold or 3.0),
        OutputKind.LABELS: lambda values, below: _labels(values, below, labels),
        OutputKind.MASK: lambda values, below: _labels(values, below, None),
        OutputKind.HU_SPREAD: lambda values, _below: _heat(values, "HU"),
    }
    return painters.get(kind, lambda values, _below: _heat(values, ""))


def xray(volume: Volume, window: tuple[float, float], title: str) -> Picture:
    """An X-ray in its window, with all of its plane."""
    pixels = shaded(volume.voxels[0], *window)
    step = max(1, -(-max(pixels.shape[:2]) // MOST_PIXELS))
    pixels = pixels[::step, ::step]
    caption = f"{title}, calculated"
    return Picture(pixels, pixels.shape[1] * step * volume.spacing[0], caption, f"{caption} from the CT: not acquired")


def _ct(values: np.ndarray, _below: np.ndarray | None) -> Drawn:
    low, high = window_for(values)
    return shaded(values, low, high), f"{low:.0f} to {high:.0f} HU", None


def _below(values: np.ndarray, below: np.ndarray | None) -> np.ndarray:
    """The gray picture that a map lies on."""
    if below is None:
        return np.zeros((*values.shape, 3), np.uint8)
    return shaded(below, *window_for(below))


def _reach(values: np.ndarray) -> float:
    changed = np.abs(values[values != 0])
    return max(float(np.percentile(changed, 99)), 1.0) if changed.size else 1.0


def _difference(values: np.ndarray, _below: np.ndarray | None) -> Drawn:
    reach = _reach(values)
    return (
        shaded(values, -reach, reach),
        f"-{reach:.0f} to {reach:.0f} HU",
        Scale(GRAY, f"-{reach:.0f}", f"{reach:.0f} HU"),
    )


def _z_score(values: np.ndarray, below: np.ndarray | None, threshold: float) -> Drawn:
    high = 3 * threshold
    opacity = np.where(values >= threshold, 0.75, 0.0)
    pixels = over(_below(values, below), shaded(values, 0.3 * threshold, high, HEAT), opacity)
    return pixels, f"z above {threshold:g} in color", Scale(HEAT[60:], f"z {threshold:g}", f"{high:g}")


def _change(values: np.ndarray, below: np.ndarray | None, threshold: float) -> Drawn:
    high = 3 * threshold
    opacity = np.clip((np.abs(values) - 0.5 * threshold) / threshold, 0, 0.85)
    pixels = over(_below(values, below), shaded(values, -high, high, SIGNED), opacity)
    return pixels, "in noise; blue less, red more", Scale(SIGNED, f"{-high:g}", f"{high:g}")


def _heat(values: np.ndarray, unit: str) -> Drawn:
    high = _reach(values) if values.max(initial=0) > 1 else max(float(values.max(initial=0)), 1e-3)
    return shaded(values, 0, high, HEAT), "", Scale(HEAT, "0", f"{high:.3g} {unit}".strip())


def _labels(values: np.ndarray, below: np.ndarray | None, labels: Any) -> Drawn:
    known = {row.get("value"): row.get("color") for row in labels} if isinstance(labels, list) else {}
    pixels = _below(values, below)
    for number in np.unique(values[values > 0]):
        color = known.get(int(number)) or _TABLE[(int(number) - 1) % len(_TABLE)]
        flat = np.broadcast_to(np.array(color, float), pixels.shape)
        pixels = over(pixels, flat, np.where(values == number, LABEL_OPACITY, 0.0))
    return pixels, "", None
