"""Connected regions of an anomaly map as rows of a table."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..volume import Volume

MAXIMUM_ROWS = 100
COLUMNS = ("number", "volume_mm3", "peak_z", "mean_z", "r_mm", "a_mm", "s_mm", "mean_hu")


def list_findings(score: np.ndarray, volume: Volume, threshold: float, minimum_volume: float) -> list[dict[str, Any]]:
    """The table of :func:`find_regions` alone."""
    return find_regions(score, volume, threshold, minimum_volume)[0]


def find_regions(
    score: np.ndarray, volume: Volume, threshold: float, minimum_volume: float
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Regions above ``threshold``, 26-connected, highest peak first.

    Args:
        score: (k, j, i) z-score on the volume's grid.
        minimum_volume: in mm3; smaller regions are left out.

    Returns:
        One dict a region: ``number``, ``volume_mm3``, ``peak_z``, ``mean_z``, ``r_mm``, ``a_mm``, ``s_mm`` (centroid
        in RAS), ``mean_hu``; at most 100 rows. And (k, j, i) uint8 with the number of the region in each voxel, 0 in
        none.
    """
    from scipy import ndimage

    above = score > threshold
    numbered = np.zeros(score.shape, dtype=np.uint8)
    if not above.any():
        return [], numbered
    # Only the part that holds regions is searched: a panel waits for this while a slider moves.
    part = tuple(
        slice(int(hits[0]), int(hits[-1]) + 1)
        for hits in (np.flatnonzero(above.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3))
    )
    labels, count = ndimage.label(above[part], structure=np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:] * volume.voxel_volume
    peaks = np.zeros(count)
    found = labels > 0
    np.maximum.at(peaks, labels[found] - 1, score[part][found])
    kept = [n for n in np.argsort(-peaks) if sizes[n] >= minimum_volume][:MAXIMUM_ROWS]
    boxes = ndimage.find_objects(labels)
    rows = []
    for row, n in enumerate(kept, start=1):
        inside = labels[boxes[n]] == n + 1
        box = tuple(slice(b.start + p.start, b.stop + p.start) for b, p in zip(boxes[n], part, strict=True))
        numbered[box][inside] = row
        k, j, i = (axis + edge.start for axis, edge in zip(np.nonzero(inside), box, strict=True))
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
    return rows, numbered
