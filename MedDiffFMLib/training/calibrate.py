"""Residual statistics on normal tissue, by tissue and noise level, for the z-score of the anomaly map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..conditioning.region import body_mask
from ..tasks.residual import CLASSES, EDGE_LIMITS_HU_PER_MM, TISSUE_EDGES_HU, reconstruct, tissue_of
from ..tasks.working import working_image
from ..volume import Volume


@dataclass(frozen=True)
class CalibrationConfig:
    """How the anomaly map is computed; stored with the figures, since they hold for nothing else.

    Attributes:
        spacing: working voxel in mm.
        levels: noise levels in units of 1000 HU.
        steps: network evaluations a reconstruction.
        seeds: reconstructions a level while calibrating.
        smoothing: standard deviation in mm, see :func:`reconstruct`.
    """

    spacing: float = 3.0
    levels: tuple[float, ...] = (2.0, 4.0)
    steps: int = 1
    seeds: int = 3
    smoothing: float = 3.0


def calibrate(
    engine: Any,
    cases: Sequence[tuple[Volume, np.ndarray | None]],
    config: CalibrationConfig | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Median and spread of the residual in each tissue class at each level.

    Args:
        engine: the model's engine.
        cases: CT and, where known, a mask of abnormal voxels that must not count as normal.

    Returns:
        JSON-ready dict that ``save_model`` stores beside the weights. The spread is half the distance between the
        16th and 84th percentile, widened to the 97.5th one's half where the tails are heavier than a normal
        distribution's, so that a z of 2 is rare in every tissue.
    """
    config = config or CalibrationConfig()
    samples: dict[float, list[list[np.ndarray]]] = {s: [[] for _ in range(CLASSES)] for s in config.levels}
    for number, (volume, abnormal) in enumerate(cases):
        image = working_image(volume, config.spacing)
        normal = body_mask(image.hounsfield)
        if abnormal is not None:
            normal &= image.mask_on_grid(abnormal) == 0
        for sigma in config.levels:
            found = reconstruct(
                image, engine, sigma, seeds=config.seeds, steps=config.steps, smoothing=config.smoothing, seed=number
            )
            tissue = tissue_of(found.healthy, image.spacing_kji)
            for index, collected in enumerate(samples[sigma]):
                collected.append(found.residual[normal & (tissue == index)])
        report(f"calibrated on {number + 1} of {len(cases)} cases")
    levels = {f"{sigma:g}": _summary(collected) for sigma, collected in samples.items()}
    return {
        "spacing": config.spacing,
        "steps": config.steps,
        "smoothing": config.smoothing,
        "levels": levels,
        "tissue_edges_hu": list(TISSUE_EDGES_HU),
        "edge_limits_hu_per_mm": list(EDGE_LIMITS_HU_PER_MM),
        "cases": len(cases),
    }


def _summary(collected: list[list[np.ndarray]]) -> dict[str, list[float]]:
    centre, spread, voxels = [], [], []
    for parts in collected:
        values = np.concatenate(parts)
        voxels.append(int(values.size))
        if values.size < 200:
            # A class that normal cases do not show at this level: take the widest spread, never a wild z.
            centre.append(0.0)
            spread.append(-1.0)
            continue
        low2, low, middle, high, high2 = np.percentile(values, [2.5, 16, 50, 84, 97.5])
        centre.append(round(float(middle), 2))
        spread.append(round(max(float(high - low) / 2, float(high2 - low2) / 4, 1.0), 2))
    widest = max([s for s in spread if s > 0], default=1000.0)
    return {"centre": centre, "spread": [widest if s < 0 else s for s in spread], "voxels": voxels}  # type: ignore[dict-item]
