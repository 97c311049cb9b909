"""Division of a whole body into the prior's regions, as in MedDiff-FM (arXiv 2410.15432, 1.4).

The cuts lie at two landmarks along the patient: the lungs and the hip bones, from TotalSegmentator's labels where they
are given, else from what the slices hold. What lies below the pelvis belongs to no region.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LUNG_LABELS = (10, 11, 12, 13, 14)
HIP_LABELS = (77, 78)
LUNG_HU, BONE_HU = -600.0, 200.0
CHEST_SHARE = 0.12
"""Lung is more than this share of the body's area in slices of the chest; the bases beside the liver are less."""
FLANK_SHARE = 0.004
"""Between ribs and hip bones less than this share of the body's area is bone beside the spine."""
SPINE_SHARE = 0.15
"""Bone within this share of the body's width from its middle is the spine."""
FLANK_MM, GAP_MM, SHORTEST_MM = 15.0, 20.0, 80.0
ABDOMEN_MM, PELVIS_MM = 250.0, 230.0
"""Usual heights in adults, for where a landmark is not found."""


class BodyPart(NamedTuple):
    """Slices ``first`` to ``last``, both included, that show one region."""

    region: str
    first: int
    last: int


def body_parts(
    hounsfield: np.ndarray, spacing: np.ndarray, body: np.ndarray, labels: np.ndarray | None = None
) -> list[BodyPart]:
    """Head and neck, chest, abdomen and pelvis of a long CT, from top to bottom.

    Args:
        hounsfield: (k, j, i), k rising to superior, i to the left.
        spacing: (3,) mm, order (k, j, i).
        body: bool of that shape.
        labels: TotalSegmentator's numbers; the image decides where they show no lungs or no hips.

    Returns:
        The parts that are at least 80 mm high; none where no lungs are found, since nothing tells the rest apart then.
    """
    k = float(spacing[0])
    inside = np.flatnonzero(body.any((1, 2)))
    chest = _lungs(hounsfield, k, body, labels)
    if chest is None:
        return []
    hips = _hips(hounsfield, spacing, body, labels, below=chest[0])
    bottom, top = int(inside[0]), int(inside[-1])
    floor = hips[1] + 1 if hips else max(bottom, chest[0] - round(ABDOMEN_MM / k))
    parts = [
        BodyPart("head-neck", chest[1] + 1, top),
        BodyPart("chest", *chest),
        BodyPart("abdomen", floor, chest[0] - 1),
    ]
    if hips is not None:
        parts.append(BodyPart("pelvis", *hips))
    return [part for part in parts if (part.last - part.first + 1) * k >= SHORTEST_MM]


def _lungs(hounsfield: np.ndarray, k: float, body: np.ndarray, labels: np.ndarray | None) -> tuple[int, int] | None:
    """First and last slice of the chest."""
    known = labels is not None and bool(np.isin(labels, LUNG_LABELS).any())
    share = np.zeros(len(body))
    for n, inside in enumerate(body):
        lung = np.isin(labels[n], LUNG_LABELS) if known and labels is not None else hounsfield[n] < LUNG_HU
        share[n] = (lung & inside).sum() / max(int(inside.sum()), 1)
    runs = _runs(share > CHEST_SHARE, k, SHORTEST_MM)
    return max(runs, key=lambda run: run[1] - run[0]) if runs else None


def _hips(
    hounsfield: np.ndarray, spacing: np.ndarray, body: np.ndarray, labels: np.ndarray | None, below: int
) -> tuple[int, int] | None:
    """First and last slice of the pelvis, below slice ``below``."""
    if labels is not None:
        shown = np.flatnonzero(np.isin(labels, HIP_LABELS).any((1, 2)))
        if shown.size:
            return int(shown[0]), int(shown[-1])
    k, _, i = (float(edge) for edge in spacing)
    columns = np.arange(body.shape[2])
    spine = SPINE_SHARE * body.any((0, 1)).sum()
    flank = np.zeros(len(body), dtype=bool)
    for n in np.flatnonzero(body.any((1, 2))):
        middle = np.average(columns, weights=body[n].sum(0))
        beside = body[n] & (hounsfield[n] > BONE_HU) & (np.abs(columns - middle) > spine)
        flank[n] = beside.sum() < FLANK_SHARE * body[n].sum()
    runs = _runs(flank[:below], k, FLANK_MM)
    crest = runs[-1][0] - 1 if runs else -1
    bottom = int(np.flatnonzero(body.any((1, 2)))[0])
    return (max(bottom, crest - round(PELVIS_MM / k)), crest) if crest > bottom else None


def _runs(flags: np.ndarray, k: float, shortest: float) -> list[tuple[int, int]]:
    """First and last index of each run of True, gaps up to 20 mm closed, that is at least ``shortest`` mm long."""
    from scipy import ndimage

    if not flags.any():
        return []
    size = max(1, round(GAP_MM / k))
    padded = np.pad(flags, size)
    labeled, _ = ndimage.label(ndimage.binary_closing(padded, np.ones(size + 1))[size:-size])
    runs = [(int(part[0].start), int(part[0].stop) - 1) for part in ndimage.find_objects(labeled)]
    return [run for run in runs if (run[1] - run[0] + 1) * k >= shortest]
