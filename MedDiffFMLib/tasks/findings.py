"""Connected regions of an anomaly map as rows of a table."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..volume import Volume

MAXIMUM_ROWS = 100
COLUMNS = ("number", "volume_mm3", "peak_z", "mean_z", "r_mm", "a_mm", "s_mm", "mean_hu")


def list_findings(score: np.ndarray, volume: Volume, threshold: float, minimum_volume: float) -> list[dict[str, Any]]:
    """Regions above ``threshold``, 26-connected, highest peak first.

    Args:
        score: (k, j, i) z-score on the volume's grid.
        minimum_volume: in mm3; smaller regions are left out.

    Returns:
        One dict a region: ``number``, ``volume_mm3``, ``peak_z``, ``mean_z``, ``r_mm``, ``a_mm``, ``s_mm`` (centroid
        in RAS), ``mean_hu``; at most 100 rows.
    """
    from scipy import ndimage

    labels, count = ndimage.label(score > threshold, structure=np.ones((3, 3, 3)))
    if count == 0:
        return []
    numbers = np.arange(1, count + 1)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:] * volume.voxel_volume
    peaks = ndimage.maximum(score, labels, numbers)
    kept = [n for n in np.argsort(-peaks) if sizes[n] >= minimum_volume][:MAXIMUM_ROWS]
    boxes = ndimage.find_objects(labels)
    rows = []
    for row, n in enumerate(kept, start=1):
        box = boxes[n]
        inside = labels[box] == n + 1
        k, j, i = (axis + part.start for axis, part in zip(np.nonzero(inside), box, strict=True))
        r, a, s = (volume.ijk_to_ras @ [i.mean(), j.mean(), k.mean(), 1.0])[:3]
        rows.append(
            {
                "number": row,
                "volume_mm3": round(float(sizes[n]), 1),
                "peak_z": round(float(peaks[n]), 2),
                "mean_z": round(float(score[box][inside].mean()), 2),
                "r_mm": round(float(r), 1),
                "a_mm": round(float(a), 1),
                "s_mm": round(float(s), 1),
                "mean_hu": round(float(volume.voxels[box][inside].mean()), 1),
            }
        )
    return rows
