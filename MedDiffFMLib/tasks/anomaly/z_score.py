"""Z-score: residual normalized by its spread on normal tissue.

Even on normal tissue an expectation is never met exactly: edges and vessels are hard to guess. So differences are
divided by what the same model leaves on normal tissue of the same kind, with hidden cubes of the same size and in the
same body region, which makes sizes, tissues and regions comparable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.errors import ModelError
from .masked_prediction import EDGE_WIDTH_MM

if TYPE_CHECKING:
    from .masked_prediction import MaskedPrediction

TISSUE_EDGES_HU = (-850.0, -600.0, -200.0, -20.0, 120.0, 300.0)
"""Limits between air, lung, partial volume, fat, soft tissue, contrast or soft bone, bone; of the expectation."""
EDGE_LIMITS_HU_PER_MM = (8.0, 25.0)
"""Limits between flat, sloping and steep places of the expectation: an edge is hard to guess to the millimeter."""
SLAB = 8
"""Planes that are looked at together."""
CLASSES = (len(TISSUE_EDGES_HU) + 1) * (len(EDGE_LIMITS_HU_PER_MM) + 1)
ALL_REGIONS = "all"
"""Figures over all calibration cases, for regions with too few cases of their own and for unknown regions."""


def tissue_of(expected: np.ndarray, spacing_kji: tuple[float, float, float]) -> np.ndarray:
    """Kind of tissue of each voxel of an expectation in HU: its HU class and its steepness, 0 to CLASSES - 1, uint8."""
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(expected, [EDGE_WIDTH_MM / s for s in spacing_kji])
    tissue = np.empty(expected.shape, np.uint8)
    for planes in _slabs(len(tissue)):
        flat = np.digitize(expected[planes], TISSUE_EDGES_HU)
        steep = np.digitize(_steepness(smooth, planes, spacing_kji), EDGE_LIMITS_HU_PER_MM)
        tissue[planes] = flat * (len(EDGE_LIMITS_HU_PER_MM) + 1) + steep
    return tissue


def _steepness(smooth: np.ndarray, planes: slice, spacing_kji: tuple[float, float, float]) -> np.ndarray:
    """HU per mm, in some planes."""
    first = max(planes.start - 1, 0)  # a slope takes its neighbors
    slopes = np.gradient(smooth[first : planes.stop + 1], *spacing_kji)
    inside = slice(planes.start - first, planes.stop - first)
    return np.sqrt(sum(slope[inside] ** 2 for slope in slopes))


def _slabs(count: int) -> Iterator[slice]:
    """Planes at a time: what is compared and looked up takes ten numbers a voxel, which a whole volume should not."""
    return (slice(first, min(first + SLAB, count)) for first in range(0, count, SLAB))


def z_score(
    found: MaskedPrediction, calibration: Mapping[str, Any], region: str | None, spacing_kji: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Difference over its spread on normal tissue of the same kind, signed, and that spread in HU; (D, H, W) each.

    Args:
        region: body region of the volume; where it was not calibrated by itself, the figures of all cases count.

    Raises:
        ModelError: the model was not calibrated with cubes of this size.
    """
    center, spread = _figures(calibration, f"{found.edge_mm:g}", region)
    tissue = tissue_of(found.expected, spacing_kji)
    usual, score = spread.astype(np.float32)[tissue], np.empty_like(found.residual)
    for planes in _slabs(len(score)):
        score[planes] = (found.residual[planes] - center[tissue[planes]]) / usual[planes]
    return score, usual


def usual_spread(
    hounsfield: np.ndarray, calibration: Mapping[str, Any], region: str | None, spacing_kji: tuple[float, float, float]
) -> np.ndarray:
    """Usual distance of tissue of each voxel's kind from what the model expects; HU, (k, j, i) float32.

    The mean over the calibrated sizes of cubes, by the kind of tissue that the image shows.
    """
    spreads = [_figures(calibration, key, region)[1] for key in calibration["levels"]]
    return np.mean(spreads, axis=0).astype(np.float32)[tissue_of(hounsfield, spacing_kji)]


def _figures(calibration: Mapping[str, Any], key: str, region: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Center and spread of the differences in each class of tissue, HU, for cubes of one size."""
    try:
        by_region = calibration["levels"][key]
        figures = by_region.get(region) or by_region[ALL_REGIONS]
        center, spread = np.array(figures["centre"]), np.array(figures["spread"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"The model is not calibrated for anomaly maps with cubes of {key} mm.",
            "Run `meddifffm calibrate` on it, or choose a calibrated model.",
        ) from error
    if center.shape != (CLASSES,) or spread.shape != (CLASSES,):
        raise ModelError("The model's calibration was made by another version.", "Run `meddifffm calibrate` on it.")
    return center, spread
