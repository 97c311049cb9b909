"""Second look of a head at its own map: what is found around a place decides about the place.

A head that sees single points knows what a place looks like and roughly where in the body it lies, not what lies
beside it. A small network reads, at each place where something may be, what the head says of the place and of its
surroundings at several scales, and how far the structures seem to be away, and says it anew (auto-context, Tu and Bai
2010, 10.1109/TPAMI.2009.186). It learns from maps of patients that the heads which drew them had not learned from, for
of its own patients a head is too sure. The result is the mean of both looks, which err differently.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as functional
from torch import nn

from ..core.progress import ProgressMeter
from .loss import share_entropy
from .point_head import share_logits

SIZES = (3, 7, 15)
"""Edges, in voxels, of the boxes by which a map is averaged twice over: deviations of 1.2, 2.8 and 6.1 voxels."""
NEAR_LIMIT, AROUND = 0.01, 3
"""Probability, averaged by the first box, and voxels around a structure, within which most places are learned from."""
CENTER, ALONG = 1.0, 2.0
"""Deviations, in voxels, by which a map is averaged before its centers are told, and centers from slice to slice."""
UNIT_VOXELS, UNIT_HU, LIMIT = 10.0, 200.0, 8.0
"""Units of distances and of HU, and the largest value of a feature."""
IMAGE_SIZES = (1, 3, 7)
OF_CLASS = 1 + len(SIZES) + 3 + 2
"""Features of a class: its map, its averages, and the distances to its center in the scan and in the slice."""
HIDDEN, DROPOUT = 48, 0.2
STEPS, BATCH, RATE, DECAY, WARM = 600, 4096, 3e-3, 0.05, 20
NEAR_POINTS, FAR_POINTS = 20_000, 5_000
"""Places of a case that are learned from, near where something may be and elsewhere."""
LEAST_CASES = 2
"""Of a class, for it to be learned: from one alone it is learned where it lay there."""
SLAB_VOXELS = 500_000
"""Voxels, about, that are looked at together, which bounds the memory."""


class ContextHead(nn.Module):
    """Features of places (N, 3 + 9 C) -> logits (N, C).

    Args:
        classes: C.
    """

    mean: torch.Tensor
    deviation: torch.Tensor
    learned: torch.Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        width = len(IMAGE_SIZES) + OF_CLASS * classes
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        self.register_buffer("learned", torch.ones(classes))
        self.layers = nn.Sequential(
            nn.Linear(width, HIDDEN), nn.GELU(), nn.Dropout(DROPOUT),
            nn.Linear(HIDDEN, HIDDEN), nn.GELU(), nn.Dropout(DROPOUT),
            nn.Linear(HIDDEN, classes),
        )  # fmt: skip

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.layers((features - self.mean) / self.deviation)

    @torch.inference_mode()
    def refined(
        self, voxels: np.ndarray, probabilities: torch.Tensor, meter: ProgressMeter | None = None
    ) -> torch.Tensor:
        """Mean of a head's probabilities (C, D, H, W) and of what is said anew.

        Everywhere, for a structure may be where the head says nothing of it; classes that were not learned stay as they
        are.

        Args:
            voxels: (D, H, W) HU.
            meter: where a cancel is noticed.
        """
        result, share = torch.empty_like(probabilities), self.learned.cpu()[:, None] / 2
        for planes, features in surroundings(voxels, probabilities):
            if meter is not None:
                meter.check()
            again = self(features.to(self.mean.device)).sigmoid().cpu().T
            before = probabilities[:, planes]
            result[:, planes] = torch.lerp(before.flatten(1), again, share).reshape(before.shape)
        return result


def surroundings(voxels: np.ndarray, probabilities: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Features of all voxels, some planes at a time: (planes, (N, 3 + 9 C)), first to last.

    Args:
        voxels: (D, H, W) HU.
        probabilities: (C, D, H, W).
    """
    maps = probabilities.numpy()
    centers = [_centers(one) for one in maps]
    depth, step = len(voxels), max(1, SLAB_VOXELS // int(np.prod(voxels.shape[1:])))
    reach = max(SIZES) - 1
    for first in range(0, depth, step):
        planes = slice(first, min(first + step, depth))
        near = slice(max(first - reach, 0), planes.stop + reach)
        inner = slice(first - near.start, planes.stop - near.start)
        image = np.asarray(voxels[near], dtype=np.float32) / UNIT_HU
        columns = [_averaged(image, size)[inner] for size in IMAGE_SIZES]
        for one, center in zip(maps, centers, strict=True):
            columns.append(_logit(one[planes]))
            columns += [_logit(_averaged(one[near], size)[inner]) for size in SIZES]
            columns += _distances(center, planes, one.shape)
        rows = np.stack([column.ravel() for column in columns], 1)
        yield planes, torch.from_numpy(np.clip(rows, -LIMIT, LIMIT).astype(np.float32, copy=False))


def _averaged(values: np.ndarray, size: int) -> np.ndarray:
    from scipy.ndimage import uniform_filter

    return values if size == 1 else uniform_filter(uniform_filter(values, size), size)


def _logit(probability: np.ndarray) -> np.ndarray:
    return np.log((probability + np.float32(1e-3)) / (np.float32(1 + 1e-3) - probability))


class _Centers(NamedTuple):
    """Where a class seems to lie, in voxels: (k, j, i) in the scan, and j and i (D,) slice by slice."""

    whole: list[float]
    lines: tuple[np.ndarray, np.ndarray]


def _centers(probability: np.ndarray) -> _Centers:
    from scipy.ndimage import gaussian_filter, gaussian_filter1d

    calm = gaussian_filter(probability, CENTER, truncate=3.0)
    weight = np.square(calm, out=calm) + np.float32(1e-12)  # squared, so that what is likely counts most
    k, j, i = (np.arange(n, dtype=np.float64) for n in weight.shape)
    rows, columns = weight.sum(2, dtype=np.float64), weight.sum(1, dtype=np.float64)  # (D, H) and (D, W)
    mass = rows.sum(1)
    moments = (rows @ j, columns @ i)
    whole = [float(mass @ k), *(float(moment.sum()) for moment in moments)]
    by_slice = gaussian_filter1d(mass, ALONG) + 1e-12
    first, second = (gaussian_filter1d(moment, ALONG) / by_slice for moment in moments)
    return _Centers([value / float(mass.sum()) for value in whole], (first, second))


def _distances(centers: _Centers, planes: slice, shape: tuple[int, ...]) -> list[np.ndarray]:
    """Distances of the voxels of some planes to the center of a class, (k, j, i), and to that in the slice, (j, i)."""
    size = (planes.stop - planes.start, *shape[1:])
    k, j, i = np.ogrid[planes, : shape[1], : shape[2]]
    found = [where - center for where, center in zip((k, j, i), centers.whole, strict=True)]
    found += [where - line[planes, None, None] for where, line in zip((j, i), centers.lines, strict=True)]
    return [np.broadcast_to((one / UNIT_VOXELS).astype(np.float32), size) for one in found]


@dataclass(frozen=True)
class ContextSample:
    """Places of a case that a context head learns from.

    Attributes:
        features: (N, F).
        target: (N, C), 1 inside.
        known: (C,) whether the case has each class outlined, and the head that drew its map had learned it.
        weight: (N, 1), how many places of the case each stands for.
    """

    features: torch.Tensor
    target: torch.Tensor
    known: torch.Tensor
    weight: torch.Tensor


def context_sample(
    voxels: np.ndarray, probabilities: torch.Tensor, truth: torch.Tensor, known: Sequence[bool], seed: int
) -> ContextSample:
    """Some of the places of a case.

    Args:
        probabilities: (C, D, H, W) of a head that did not learn from the case.
        truth: masks of the same shape.
        known: of each class, see :class:`ContextSample`.
    """
    from scipy.ndimage import binary_dilation

    near = binary_dilation(truth.numpy().max(0) > 0.5, iterations=AROUND)
    for one in probabilities.numpy():
        near |= _averaged(one, SIZES[0]) > NEAR_LIMIT
    rng, chosen, weights = np.random.default_rng(seed), [], []
    for group, most in ((np.flatnonzero(near), NEAR_POINTS), (np.flatnonzero(~near), FAR_POINTS)):
        chosen.append(rng.permutation(group)[:most])
        weights.append(np.full(len(chosen[-1]), len(group) / max(len(chosen[-1]), 1), np.float32))
    order = np.argsort(np.concatenate(chosen))
    place, weight = np.concatenate(chosen)[order], np.concatenate(weights)[order]
    area = int(np.prod(near.shape[1:]))
    rows = []
    for planes, features in surroundings(voxels, probabilities):
        low, high = np.searchsorted(place, (planes.start * area, planes.stop * area))
        rows.append(features[place[low:high] - planes.start * area])
    target = truth.flatten(1)[:, torch.from_numpy(place)].T.float()
    return ContextSample(torch.cat(rows), target, torch.tensor(known).float(), torch.from_numpy(weight)[:, None])


def train_context(samples: Sequence[ContextSample], shares: torch.Tensor, seed: int = 0) -> ContextHead:
    """A head that says anew what is at places of cases; some ten seconds of a core.

    Args:
        shares: (C,) of the voxels of whole scans that are inside each class.
    """
    features = torch.cat([s.features for s in samples])
    target = torch.cat([s.target for s in samples])
    known = torch.cat([s.known.expand(len(s.features), -1) for s in samples])
    weight = torch.cat([s.weight for s in samples])
    counted = known * weight / weight.mean() / share_entropy(shares)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = ContextHead(len(shares))
        head.mean.copy_(features.mean(0))
        head.deviation.copy_(features.std(0).clamp(min=1e-3))
        head.learned.copy_((torch.stack([s.known for s in samples]).sum(0) >= LEAST_CASES).float())
        last = head.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.normal_(last.weight, 0, 0.01)
        last.bias.data.copy_(share_logits(shares))
        optimizer = torch.optim.AdamW(head.parameters(), RATE, weight_decay=DECAY)
        for step in range(STEPS):
            optimizer.param_groups[0]["lr"] = RATE * min((step + 1) / WARM, 1.0, 0.05 + 2 * (1 - step / STEPS))
            row = torch.randint(len(features), (min(BATCH, len(features)),))
            entropy = functional.binary_cross_entropy_with_logits(head(features[row]), target[row], reduction="none")
            loss = (entropy * counted[row]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return head.eval().requires_grad_(False)
