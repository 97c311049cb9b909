"""Small networks that tell what is out of place in a CT from tissue as it is, by local features.

One was trained on what was put in (smooth-edged, of other, denser or thinner tissue or from elsewhere), another on some
outlined lesions, too (``training/pretrain/anomaly_detector``). Each finds what the other takes for normal, so that the
larger of their z-scores counts. They look at each voxel by itself, without a lattice of windows or cubes, so that
neither the scan's order of axes nor the place of a grid decides what is found.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .local_features import NAMES, feature_table

FORMAT = "meddifffm-anomaly-2"
MODEL = "anomaly-detector"
HIDDEN = 64
SMOOTHING_MM = 3.0
RIM_MM = 3.0
ROWS = 10_000
"""Voxels judged at a time."""
TAILS = (0.5, 0.158655, 0.022750, 0.00134990, 3.16712e-5)
"""Shares of normal voxels above a z of 0, 1, 2, 3 and 4 in a normal distribution."""


@dataclass(frozen=True)
class Member:
    """One network and what its answers mean.

    Attributes:
        network: features less their mean over their spread -> log odds of "out of place".
        quantiles: smoothed log odds that the shares ``TAILS`` of normal voxels exceed.
    """

    network: torch.nn.Module
    quantiles: tuple[float, ...] = ()


@dataclass(frozen=True)
class Detector:
    """One or more networks, which judge the same features, and what the larger of their z-scores means.

    Attributes:
        members: the networks, at least one.
        center, scale: mean and spread of the features, float32.
        quantiles: larger z-scores that the shares ``TAILS`` of normal voxels exceed; none for a single member, whose
            z-score is the answer.
        sha256: of its file.
    """

    members: tuple[Member, ...]
    center: torch.Tensor
    scale: torch.Tensor
    quantiles: tuple[float, ...] = ()
    sha256: str = ""

    def odds(self, table: np.ndarray) -> np.ndarray:
        """Log odds, float32 (members, n), of rows of features."""
        with torch.inference_mode():
            rows = (torch.from_numpy(table[n : n + ROWS]).float() for n in range(0, len(table), ROWS))
            answers = [self._of_each((part - self.center) / self.scale) for part in rows]
            return torch.cat([*answers, torch.zeros(len(self.members), 0)], dim=1).numpy()

    def _of_each(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.stack([member.network(rows)[:, 0] for member in self.members])

    def z_scores(self, odds: np.ndarray) -> np.ndarray:
        """Smoothed log odds (members, ...) -> z-score of each member, of that shape."""
        return np.stack([rarity_z(one, member.quantiles) for one, member in zip(odds, self.members, strict=True)])

    def z_score(self, odds: np.ndarray) -> np.ndarray:
        """Smoothed log odds (members, ...) -> z-score (...): the larger one, by how rare that is among normal voxels.

        The larger of two is large more often than either, hence the second count.
        """
        larger = self.z_scores(odds).max(0)
        return rarity_z(larger, self.quantiles) if self.quantiles else larger


def rarity_z(values: np.ndarray, quantiles: Sequence[float]) -> np.ndarray:
    """z-score: as rare among normal voxels as that z is in a normal distribution, from 0 up.

    Beyond 4, where voxels are too few to count, it goes on as between 3 and 4.

    Args:
        quantiles: values that the shares ``TAILS`` of normal voxels exceed.
    """
    knots = np.asarray(quantiles)
    z = np.interp(values, knots, np.arange(len(knots)))
    return z + np.maximum(values - knots[-1], 0) / (knots[-1] - knots[-2])


def search_area(body: np.ndarray, spacing_kji: tuple[float, float, float]) -> np.ndarray:
    """Body without its outermost 3 mm, where partial volume with air makes every model wrong."""
    from ...conditioning.region import shrunk

    return shrunk(body, RIM_MM, spacing_kji)


def build_network() -> torch.nn.Module:
    """Two hidden layers."""
    return torch.nn.Sequential(
        torch.nn.Linear(len(NAMES), HIDDEN), torch.nn.SiLU(),
        torch.nn.Linear(HIDDEN, HIDDEN), torch.nn.SiLU(),
        torch.nn.Linear(HIDDEN, 1),
    )  # fmt: skip


def smoothed_odds(
    detector: Detector,
    hounsfield: np.ndarray,
    body: np.ndarray,
    search: np.ndarray,
    spacing_kji: tuple[float, float, float],
    done: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """(members, k, j, i) float32 log odds, smoothed within the search area; 0 elsewhere.

    Args:
        body: see :func:`.local_features.feature_table`.
        search: bool, where to look, inside the body.
        done: called after each of the features.
    """
    if not search.any():
        return np.zeros((len(detector.members), *hounsfield.shape), np.float32)
    table = search_features(hounsfield, body, search, spacing_kji, done)
    return np.stack([smooth_odds(odds, search, spacing_kji) for odds in detector.odds(table)])


def search_features(
    hounsfield: np.ndarray,
    body: np.ndarray,
    search: np.ndarray,
    spacing_kji: tuple[float, float, float],
    done: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """(n, features) float16 of the search area, in array order; computed in the box of the body alone."""
    from ...conditioning.region import body_box

    first, last = (corner.astype(int) for corner in body_box(body))
    box = tuple(slice(int(a), int(b) + 1) for a, b in zip(first, last, strict=True))
    return feature_table(hounsfield[box], body[box], spacing_kji, search[box], done)


def smooth_odds(odds: np.ndarray, search: np.ndarray, spacing_kji: tuple[float, float, float]) -> np.ndarray:
    """(k, j, i) float32: log odds (n,) of the search area's voxels, smoothed within it; 0 elsewhere."""
    from scipy.ndimage import gaussian_filter

    from ...conditioning.region import body_box

    first, last = (corner.astype(int) for corner in body_box(search))
    reach = [round(4 * SMOOTHING_MM / s) + 1 for s in spacing_kji]
    box = tuple(slice(max(0, a - n), b + n + 1) for a, b, n in zip(first, last, reach, strict=True))
    inside = search[box]
    filled = np.zeros(inside.shape, np.float32)
    filled[inside] = odds
    widths = [SMOOTHING_MM / s for s in spacing_kji]
    weight = gaussian_filter(inside.astype(np.float32), widths)
    result = np.zeros(search.shape, np.float32)
    result[box] = np.where(inside, gaussian_filter(filled, widths) / np.maximum(weight, 1e-6), 0)
    return result


def save_detector(path: Path, detector: Detector, facts: dict[str, Any]) -> str:
    """Write a trained detector in half precision, atomically; returns the file's SHA-256.

    Raises:
        OutputError: the file cannot be written.
    """
    from ...models.checkpoint import write_weights

    state = {"center": detector.center, "scale": detector.scale}
    for n, member in enumerate(detector.members):
        state |= {f"{n}.{key}": value for key, value in member.network.state_dict().items()}
    config = {
        "features": list(NAMES),
        "members": [[round(q, 4) for q in member.quantiles] for member in detector.members],
        "quantiles": [round(q, 4) for q in detector.quantiles],
    }
    return write_weights(path, state, {"format": FORMAT, "config": json.dumps(config), "training": json.dumps(facts)})


def load_detector(path: Path, sha256: str | None = None) -> Detector:
    """Read a detector, on the CPU.

    Args:
        sha256: what the file's bytes must have, None for any.

    Raises:
        ModelError: missing, damaged, a pickle, or something else.
    """
    from ...core.errors import ModelError
    from ...models.checkpoint import check_format, read_weights

    weights = read_weights(path, sha256)
    remedy = "Install MedDiff-FM again."
    check_format(path, weights.metadata, FORMAT, "anomaly detector of this version", remedy)
    try:
        config = json.loads(weights.metadata["config"])
        state = dict(weights.state)
        center, scale = state.pop("center"), state.pop("scale")
        members = tuple(_member(state, n, quantiles) for n, quantiles in enumerate(config["members"]))
        fused = _rising(config["quantiles"]) if len(members) > 1 or config["quantiles"] else ()
        fits = tuple(config["features"]) == NAMES and center.shape == scale.shape == (len(NAMES),)
        if not fits or not members or state:
            raise ValueError("other features or members")
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise ModelError(f"The weights in {path.name} do not fit their description ({first}).", remedy) from error
    return Detector(members, center, scale, fused, weights.sha256)


def _member(state: dict[str, torch.Tensor], number: int, quantiles: Sequence[float]) -> Member:
    """The member of that number, whose weights are taken out of the file's."""
    network = build_network()
    network.load_state_dict({key: state.pop(f"{number}.{key}") for key in network.state_dict()})
    return Member(network.eval().requires_grad_(False), _rising(quantiles))


@functools.cache
def shipped_detector() -> Detector:
    """The detector of the catalogue, read once a process."""
    from ...models.catalogue import resolve

    _, path, expected = resolve(MODEL)
    return load_detector(path, expected)


def _rising(values: Sequence[float]) -> tuple[float, ...]:
    """The quantiles, which must be as many as ``TAILS`` and rise."""
    quantiles = tuple(float(q) for q in values)
    if len(quantiles) != len(TAILS) or any(a >= b for a, b in itertools.pairwise(quantiles)):
        raise ValueError("quantiles that do not rise")
    return quantiles
