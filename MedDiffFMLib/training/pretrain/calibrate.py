"""Calibration: residual of the model on normal tissue by region, tissue and cube size, for the z-score."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...conditioning.region import body_mask
from ...imaging.volume import Volume
from ...preprocessing.working_image import working_image
from ...tasks.anomaly.masked_prediction import predict_masked
from ...tasks.anomaly.z_score import ALL_REGIONS, CLASSES, EDGE_LIMITS_HU_PER_MM, TISSUE_EDGES_HU, tissue_of

FEWEST_CASES = 3
"""A region with fewer cases has no figures of its own: they would be those of one or two patients."""
METHOD = "hidden cubes"


@dataclass(frozen=True)
class CalibrationConfig:
    """Settings by which the anomaly map is computed; stored with the figures, since they hold for nothing else.

    Attributes:
        spacing: working voxel in mm.
        edges: of the hidden cubes, mm.
        sets: see :func:`tasks.anomaly.masked_prediction.predict_masked`.
        smoothing: standard deviation in mm of the Gaussian over the difference.
    """

    spacing: float = 3.0
    edges: tuple[float, ...] = (36.0, 48.0)
    sets: int = 2
    smoothing: float = 5.0


def calibrate(
    engine: Any,
    cases: Sequence[tuple[Volume, np.ndarray | None, str | None]],
    config: CalibrationConfig | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Median and spread of the difference in each tissue class, for each cube size and region.

    Args:
        engine: the model's engine.
        cases: CT; a mask of abnormal voxels that must not count as normal, where known; region, None to guess it.

    Returns:
        JSON-ready dict that ``save_model`` stores beside the weights. The spread is half the distance between the
        16th and 84th percentile, widened to the 97.5th one's half where the tails are heavier than a normal
        distribution's, so that a z of 2 is rare in every tissue.
    """
    config = config or CalibrationConfig()
    samples: dict[tuple[float, str], list[list[np.ndarray]]] = defaultdict(lambda: [[] for _ in range(CLASSES)])
    counted: dict[str, int] = defaultdict(int)
    for number, (volume, abnormal, region) in enumerate(cases):
        image = working_image(volume, config.spacing, region=region)
        normal = body_mask(image.hounsfield)
        if abnormal is not None:
            normal &= image.mask_on_grid(abnormal) == 0
        groups = [ALL_REGIONS, *([image.region] if image.region else [])]
        for group in groups:
            counted[group] += 1
        for edge in config.edges:
            prediction = predict_masked(image, engine, edge, smoothing=config.smoothing, sets=config.sets, seed=number)
            tissue = tissue_of(prediction.expected, image.spacing_kji)
            for index in range(CLASSES):
                values = prediction.residual[normal & (tissue == index)]
                for group in groups:
                    samples[edge, group][index].append(values)
        report(f"calibrated on {number + 1} of {len(cases)} cases")
    kept = [group for group, n in counted.items() if group == ALL_REGIONS or n >= FEWEST_CASES]
    return {
        "method": METHOD,
        "spacing": config.spacing,
        "sets": config.sets,
        "smoothing": config.smoothing,
        "levels": {f"{edge:g}": {group: _summary(samples[edge, group]) for group in kept} for edge in config.edges},
        "tissue_edges_hu": list(TISSUE_EDGES_HU),
        "edge_limits_hu_per_mm": list(EDGE_LIMITS_HU_PER_MM),
        "cases": {group: counted[group] for group in kept},
    }


def _summary(collected: list[list[np.ndarray]]) -> dict[str, list[float]]:
    center, spread, voxels = [], [], []
    for parts in collected:
        values = np.concatenate(parts)
        voxels.append(int(values.size))
        if values.size < 200:
            # A class that normal cases do not show at this level: take the widest spread, never a wild z.
            center.append(0.0)
            spread.append(-1.0)
            continue
        low2, low, middle, high, high2 = np.percentile(values, [2.5, 16, 50, 84, 97.5])
        center.append(round(float(middle), 2))
        spread.append(round(max(float(high - low) / 2, float(high2 - low2) / 4, 1.0), 2))
    widest = max([s for s in spread if s > 0], default=1000.0)
    return {"centre": center, "spread": [widest if s < 0 else s for s in spread], "voxels": voxels}  # type: ignore[dict-item]
