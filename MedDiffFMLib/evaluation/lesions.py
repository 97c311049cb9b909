"""Synthetic lesions: what an anomaly map has to find, with size, contrast and outline known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .regions import depth, lung, soft_tissue
from .spheres import pick_centers

EDGE_MM = 0.8
"""Scale of the sigmoid at the rim; 10 % to 90 % takes 4.4 times this, about what a CT's blur leaves of a sharp rim."""
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


def lesion_shape(diameter_mm: float, spacing: tuple[float, float, float],
                 rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """A lumpy, turned ellipsoid and its texture on a small cube of voxels around the middle voxel.

    Returns:
        share of lesion in each voxel (0 to 1, soft rim, partial volume) and texture of unit deviation; both (k, j, i).
    """
    from scipy.ndimage import gaussian_filter, map_coordinates
    from scipy.spatial.transform import Rotation

    radius = diameter_mm / 2
    half = [int(np.ceil((1.6 * radius + 3 * EDGE_MM) / s)) for s in spacing[::-1]]
    fine = [max(1, int(np.ceil(s))) for s in spacing[::-1]]
    axes = [((np.arange((2 * h + 1) * f) + 0.5) / f - h - 0.5) * s
            for h, f, s in zip(half, fine, spacing[::-1], strict=True)]  # fmt: skip
    points = np.stack(np.meshgrid(*axes, indexing="ij"))
    semi_axes = rng.uniform(0.75, 1.3, 3)
    semi_axes *= radius / np.cbrt(semi_axes.prod())
    turned = np.tensordot(Rotation.random(None, rng).as_matrix(), points, axes=1) / semi_axes[:, None, None, None]
    # Lumps about two thirds of a radius wide move the rim in and out by an eighth of the radius.
    field = gaussian_filter(rng.standard_normal((24, 24, 24)), 2.0, mode="wrap")
    lumps = map_coordinates(field / field.std(), points / (radius / 3) + 12, order=1, mode="grid-wrap")
    distance = np.sqrt((turned**2).sum(axis=0)) * (1 + 0.125 * np.clip(lumps, -2, 2))
    voxels = np.pi / 6 * diameter_mm**3 * np.prod(fine) / np.prod(spacing)
    distance /= np.partition(distance.ravel(), int(voxels))[int(voxels)]
    share = 1 / (1 + np.exp(np.clip((distance - 1) * radius / EDGE_MM, -50, 50)))
    width = [1.5 * f / s for s, f in zip(spacing[::-1], fine, strict=True)]
    grain = gaussian_filter(rng.standard_normal(share.shape), width)
    share, grain = (_block_mean(array, fine) for array in (share, grain / grain.std()))
    share[share < 0.01] = 0  # a sigmoid never ends; a lesion does
    return share.astype(np.float32), grain.astype(np.float32)


def insert_lesions(volume_hu: np.ndarray, spacing: tuple[float, float, float], body: np.ndarray,
                   avoid: np.ndarray | None = None, diameters_mm: tuple[float, ...] = (25.0, 15.0, 8.0),
                   contrasts_hu: tuple[float, ...] = (-80.0, -40.0, 40.0, 80.0), per_size: int = 2,
                   seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[Lesion]]:  # fmt: skip
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


def _insert(changed: np.ndarray, labels: np.ndarray, lesion: Lesion, spacing: tuple[float, float, float],
            rng: np.random.Generator) -> None:  # fmt: skip
    """Blend one lesion into ``changed`` and mark it in ``labels``, both in place."""
    share, grain = lesion_shape(lesion.diameter_mm, spacing, rng)
    into, part = [], []
    for c, n, size in zip(lesion.center, share.shape, changed.shape, strict=True):
        low, high = max(c - n // 2, 0), min(c + n // 2 + 1, size)
        into.append(slice(low, high))
        part.append(slice(low - (c - n // 2), high - (c - n // 2)))
    share, grain = share[tuple(part)], grain[tuple(part)]
    there = changed[tuple(into)]
    if lesion.kind == "lung":
        noise = NODULE_NOISE_HU * rng.standard_normal(share.shape, dtype=np.float32)
        change = lesion.contrast_hu + TEXTURE_HU * grain + noise - there
    else:
        change = lesion.contrast_hu + TEXTURE_HU * grain
    changed[tuple(into)] = there + share * change
    labels[tuple(into)][share >= 0.5] = lesion.label


def _dealer(values: tuple[float, ...], rng: np.random.Generator):
    """The values in random order, again and again, each equally often."""
    while True:
        yield from rng.permutation(values).tolist()


def _block_mean(array: np.ndarray, block: list[int]) -> np.ndarray:
    """Mean over blocks of ``block`` voxels."""
    k, j, i = (n // b for n, b in zip(array.shape, block, strict=True))
    return array.reshape(k, block[0], j, block[1], i, block[2]).mean(axis=(1, 3, 5))
