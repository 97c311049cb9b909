"""Why a region is listed: what of its appearance the detector answers to, and how far it is from expected tissue.

The detector's answer is shared out among kinds of features by integrated gradients (Sundararajan et al. 2017, arXiv
1703.01365) on the way from the tissue around the region to the region itself; the shares add up to the difference of
the log odds. Of two networks the one with the larger z-score in the region is asked. They say what the network looked
at, not what a region is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ...imaging.volume import Box
from .detector import Detector, Member
from .local_features import NAMES, SCALES_MM, TRUNCATE, feature_table

KINDS = {
    "density": ("hu", "mean"),
    "texture": ("spread",),
    "edge": ("slope",),
    "shape": ("low", "middle", "high"),
    "gas": ("gas",),
    "bone": ("bone",),
    "fat": ("fat",),
    "depth": ("body",),
}
"""Kind of appearance -> how the names of its features begin."""
WORDS = {
    "density": ("less dense than around", "denser than around"),
    "texture": ("more even than around", "more uneven than around"),
    "shape": ("stands out by its shape",) * 2,
    "edge": ("blurred", "sharp-edged"),
    "gas": ("farther from gas", "near gas"),
    "bone": ("farther from bone", "near bone"),
    "fat": ("less fat about it", "more fat about it"),
    "depth": ("nearer to the skin", "deeper"),
}
"""Words for less and for more of it."""
NOTABLE_HU = 50.0
"""A smaller difference to the expected tissue is not named; the panel's difference layer hides it, too."""
LEAST_SHARE = 0.25
"""Of what raises the log odds, for a kind to be named."""
AROUND_MM = (6.0, 15.0)
"""The tissue around a region begins and ends so far from it."""
MOST_VOXELS = 400
STEPS = 16


def reasons(
    detector: Detector | None,
    hounsfield: np.ndarray,
    change: np.ndarray,
    body: np.ndarray,
    numbered: np.ndarray,
    spacing_kji: tuple[float, float, float],
) -> dict[int, str]:
    """Number of each region -> reasons in words, at most two.

    Args:
        detector: that judged; None where expected tissue did, so that only the density is named.
        hounsfield: (k, j, i) HU on the working grid.
        change: HU by which filling the regions changes that.
        body: bool of that shape.
        numbered: int of that shape, 0 outside the regions.
    """
    from scipy.ndimage import find_objects

    found = {}
    for number, box in enumerate(find_objects(numbered), start=1):
        if box is None:
            continue
        away = -float(change[box][numbered[box] == number].mean())
        named = []
        if abs(away) >= NOTABLE_HU:
            named = [f"{'denser' if away > 0 else 'less dense'} than expected ({away:+.0f} HU)"]
        if detector is not None:
            near = _grown(box, TRUNCATE * SCALES_MM[-1], numbered.shape, spacing_kji)
            looks = _appearance(detector, hounsfield[near], body[near], numbered[near], number, spacing_kji)
            named += [words for kind, words in looks.items() if not (named and kind == "density")]
        found[number] = "; ".join(named[:2])
    return found


def _appearance(
    detector: Detector,
    hounsfield: np.ndarray,
    body: np.ndarray,
    numbered: np.ndarray,
    number: int,
    spacing_kji: tuple[float, float, float],
) -> dict[str, str]:
    """Kinds of appearance that make out the region, the weightiest first, in words."""
    inside, around = _places(body, numbered, number, spacing_kji)
    if not around.any():
        return {}
    table = feature_table(hounsfield, body, spacing_kji, inside | around).astype(np.float32)
    own = inside[inside | around]
    here, there = (torch.from_numpy(table[rows].mean(0)) for rows in (own, ~own))
    shares = integrated_gradients(detector, loudest(detector, table[own]), there, here)
    rises = (here - there) / detector.scale
    kinds = {
        kind: [n for n, name in enumerate(NAMES) if name.rstrip("0123456789") in beginnings]
        for kind, beginnings in KINDS.items()
    }
    share = {kind: float(shares[columns].sum()) for kind, columns in kinds.items()}
    raising = sum(max(one, 0.0) for one in share.values())
    named = sorted((kind for kind in kinds if share[kind] >= max(LEAST_SHARE * raising, 1e-6)), key=lambda k: -share[k])
    more = {kind: float((shares[kinds[kind]].clamp(min=0) * rises[kinds[kind]]).sum()) > 0 for kind in named}
    return {kind: WORDS[kind][more[kind]] for kind in named}


def _places(
    body: np.ndarray, numbered: np.ndarray, number: int, spacing_kji: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Some voxels of the region, and of the body around it that are in no region."""
    from scipy.ndimage import distance_transform_edt

    region = numbered == number
    away = distance_transform_edt(~region, sampling=spacing_kji)
    around = (away >= AROUND_MM[0]) & (away <= AROUND_MM[1]) & body & (numbered == 0)
    return _thinned(region), _thinned(around)


def _thinned(mask: np.ndarray) -> np.ndarray:
    """At most so many of its voxels, evenly spread in array order."""
    index = np.flatnonzero(mask)
    few = np.zeros(mask.shape, bool)
    few.reshape(-1)[index[:: max(1, -(-len(index) // MOST_VOXELS))]] = True
    return few


def loudest(detector: Detector, table: np.ndarray) -> Member:
    """The member that gives the mean log odds of these rows of features the largest z-score."""
    z = detector.z_scores(detector.odds(table).mean(1))
    return detector.members[int(z.argmax())]


def integrated_gradients(detector: Detector, member: Member, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """(features,): shares of the difference in a member's log odds between two rows of features."""
    way = (torch.arange(STEPS) + 0.5) / STEPS
    rows = (start + way[:, None] * (end - start)).requires_grad_(True)
    odds = member.network((rows - detector.center) / detector.scale)[:, 0].sum()
    (gradient,) = torch.autograd.grad(odds, rows)
    return gradient.mean(0) * (end - start)


def _grown(box: Sequence[slice], margin: float, shape: Sequence[int], spacing_kji: Sequence[float]) -> Box:
    first, second, third = (
        slice(max(0, edge.start - int(margin / mm) - 1), min(size, edge.stop + int(margin / mm) + 1))
        for edge, size, mm in zip(box, shape, spacing_kji, strict=True)
    )
    return first, second, third
