"""Synthetic lesions with known size, contrast and outline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...tasks.generate_lesion.lesion_shape import lesion_shape, overlap
from .regions import depth, lung, soft_tissue
from .synthetic_holes import pick_centers

TEXTURE_HU = 10.0
NODULE_HU = 30.0
NODULE_NOISE_HU = 12.0


@dataclass(frozen=True)
class Lesion:
    """One inserted lesion.

    Attributes:
        label: its value in the label volume.
        kind: "soft" (contrast added to organ or muscle) or "lung" (solid nodule replaces lung).
        diameter_mm: of the ball of equal volume, measured where the rim is half lesion.
        contrast_hu: against what was there before; for a nodule its own HU.
        center: voxel (k, j, i).
    """

    label: int
    kind: str
    diameter_mm: float
    contrast_hu: float
    center: tuple[int, ...]


def insert_lesions(
    volume_hu: np.ndarray,
    spacing: tuple[float, float, float],
    body: np.ndarray,
    avoid: np.ndarray | None = None,
    diameters_mm: tuple[float, ...] = (25.0, 15.0, 8.0),
    contrasts_hu: tuple[float, ...] = (-80.0, -40.0, 40.0, 80.0),
    per_size: int = 2,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, list[Lesion]]:
    """Put soft-tissue lesions and, where there is lung, one nodule of each size into a CT.

    Args:
        volume_hu: (k, j, i); spacing: (i, j, k) in mm; body: see :func:`.regions.body_mask`.
        avoid: voxels that must stay as they are (real lesions).
        diameters_mm: placed in this order, so name the largest first.
        contrasts_hu: dealt out in a random order, so that over many cases each size meets each contrast equally often.
        per_size: soft-tissue lesions of each diameter; fewer where there is no room.
        seed: the same seed gives the same lesions.

    Returns:
        the CT with lesions, float32; their labels, uint8 (at least half lesion); and the list of lesions.
    """
    rng = np.random.default_rng(seed)
    allowed = np.ones(volume_hu.shape, dtype=bool) if avoid is None else ~avoid
    inside = depth(body & allowed, spacing)
    rooms = {
        "soft": depth(soft_tissue(volume_hu, spacing, body) & allowed, spacing),
        "lung": depth(lung(volume_hu, spacing, body) & allowed, spacing),
    }
    changed = np.array(volume_hu, dtype=np.float32)
    labels = np.zeros(volume_hu.shape, dtype=np.uint8)
    taken: list[tuple[tuple[int, ...], float]] = []
    lesions: list[Lesion] = []
    deal = _dealer(contrasts_hu, rng)
    for diameter in diameters_mm:
        for kind, count in (("soft", per_size), ("lung", 1)):
            # A lesion may reach a little beyond its organ, but not out of the body.
            room = (rooms[kind] >= 0.35 * diameter) & (inside >= 0.8 * diameter + 2)
            for center in pick_centers(room, diameter / 2, count, spacing, taken, rng):
                contrast = NODULE_HU if kind == "lung" else next(deal)
                lesion = Lesion(len(lesions) + 1, kind, diameter, contrast, center)
                _insert(changed, labels, lesion, spacing, rng)
                lesions.append(lesion)
    return changed, labels, lesions


def _insert(
    changed: np.ndarray,
    labels: np.ndarray,
    lesion: Lesion,
    spacing: tuple[float, float, float],
    rng: np.random.Generator,
) -> None:
    """Blend one lesion into ``changed`` and mark it in ``labels``, both in place."""
    share, grain = lesion_shape(lesion.diameter_mm, spacing, rng)
    into, part = overlap(lesion.center, share.shape, changed.shape)
    share, grain = share[part], grain[part]
    there = changed[into]
    if lesion.kind == "lung":
        noise = NODULE_NOISE_HU * rng.standard_normal(share.shape, dtype=np.float32)
        change = lesion.contrast_hu + TEXTURE_HU * grain + noise - there
    else:
        change = lesion.contrast_hu + TEXTURE_HU * grain
    changed[into] = there + share * change
    labels[into][share >= 0.5] = lesion.label


def _dealer(values: tuple[float, ...], rng: np.random.Generator):
    """The values in random order, again and again, each equally often."""
    while True:
        yield from rng.permutation(values).tolist()
