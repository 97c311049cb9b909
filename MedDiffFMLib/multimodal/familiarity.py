"""Whether an image looks like what a flow was trained on, place by place.

A place is described by the usual value, the spread and the shares of dark, muscle-like and fat-like voxels around it.
It is as unfamiliar as the nearest of a few hundred places of the training images is different. That knows contrast and
texture, not anatomy: a leg and an arm are alike to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

STRIDE = 2
"""Voxels of the working grid between two places that are judged."""
NEAR_MM, FAR_MM = 5.0, 12.0
"""Standard deviations of the neighborhoods."""
BANDS = ((-1.0, -0.84), (-0.84, -0.52), (-0.52, -0.2), (-0.2, 0.2), (0.2, 0.55), (0.55, 1.01))
"""Network range: dark, muscle, between, marrow and mixtures, fat, brighter than fat."""
PLACES = 512
LIMIT_SHARE = 0.95
"""Of the places in images that were held out, so many are to count as familiar."""
NO_PEAK = 0.7
"""What the lack of a peak of fat counts, in units of the limit."""
LEAST_BODY = 0.5
"""Share of body around a place that is judged."""


@dataclass(frozen=True)
class Familiarity:
    """Places of the training images.

    Attributes:
        center, scale: (n,), of the descriptions.
        places: (m, n), descriptions less their center, over their scale.
        limit: distance beyond which a place is strange.
    """

    center: np.ndarray
    scale: np.ndarray
    places: np.ndarray
    limit: float

    def distance(self, image: np.ndarray, body: np.ndarray, spacing_mm: float) -> np.ndarray:
        """How strange each voxel is, float32 (k, j, i), in units of the limit; 0 outside of the body.

        Args:
            image: (k, j, i), network range.
            body: bool.
            spacing_mm: edge of the isotropic voxels.
        """
        from scipy.ndimage import zoom
        from scipy.spatial import cKDTree

        rows, used = describe_places(image, body, spacing_mm)
        coarse = np.zeros(used.shape, np.float32)
        if used.any():
            found, _ = cKDTree(self.places).query((rows - self.center) / self.scale)
            coarse[used] = found / self.limit
        fine = zoom(coarse, np.divide(image.shape, coarse.shape), order=1, grid_mode=True, mode="nearest")
        return np.where(body, fine[tuple(slice(n) for n in image.shape)], 0).astype(np.float32)


def strangeness(distance: np.ndarray, body: np.ndarray, fat_from_peak: bool) -> float:
    """How strange an image is as a whole; above 1 it should not be trusted.

    Args:
        distance: see :meth:`Familiarity.distance`.
        body: bool.
        fat_from_peak: whether its histogram has a peak of fat, as the images in training have.
    """
    usual = float(np.median(distance[body])) if body.any() else 0.0
    return usual + (0.0 if fat_from_peak else NO_PEAK)


def learn_familiarity(
    images: Sequence[tuple[np.ndarray, np.ndarray]],
    held_out: Sequence[tuple[np.ndarray, np.ndarray]],
    spacing_mm: float,
    seed: int = 0,
) -> Familiarity:
    """Places of the training images, and the limit from images of other patients.

    Args:
        images, held_out: image and body of each patient, see :meth:`Familiarity.distance`.
    """
    from scipy.cluster.vq import kmeans2
    from scipy.spatial import cKDTree

    rng = np.random.default_rng(seed)
    described = [describe_places(image, body, spacing_mm)[0] for image, body in images]
    rows = np.concatenate([part[rng.permutation(len(part))[:1500]] for part in described])
    center, scale = rows.mean(0), rows.std(0) + 1e-3
    rows = (rows - center) / scale
    places, _ = kmeans2(rows, min(PLACES, len(rows) // 4), iter=10, minit="points", rng=seed)
    tree = cKDTree(places)
    judged = [describe_places(image, body, spacing_mm)[0] for image, body in held_out]
    found = [tree.query((part - center) / scale)[0] for part in judged if len(part)]
    limit = float(np.mean([np.quantile(part, LIMIT_SHARE) for part in found])) if found else 1.0
    center, scale, places = (array.astype(np.float32) for array in (center, scale, places))
    return Familiarity(center, scale, places, limit)


def describe_places(image: np.ndarray, body: np.ndarray, spacing_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Descriptions (m, n) of the places in the body, and which of all places (k, j, i) these are."""
    from scipy.ndimage import gaussian_filter

    inside = body.astype(np.float32)
    part = (slice(None, None, STRIDE),) * 3
    columns = []
    for width in (NEAR_MM, FAR_MM):
        sigma = width / spacing_mm
        weight = np.maximum(gaussian_filter(inside, sigma), 1e-3)

        def around(values: np.ndarray, sigma: float = sigma, weight: np.ndarray = weight) -> np.ndarray:
            return (gaussian_filter(np.asarray(values * inside, np.float32), sigma) / weight)[part]

        mean = around(image)
        columns += [mean, np.sqrt(np.maximum(around(np.square(image)) - mean**2, 0))]
        columns += [around((image >= low) & (image < high)) for low, high in BANDS]
        covered = weight[part]
    used = body[part] & (covered >= LEAST_BODY)
    return np.stack([column[used] for column in columns], axis=1), used
