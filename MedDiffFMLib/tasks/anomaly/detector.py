"""Small network that tells what is out of place in a CT from tissue as it is, by local features.

It was trained on what was put in (smooth-edged, of other, denser or thinner tissue or from elsewhere), and on some
outlined lesions (``training/pretrain/anomaly_detector``). It looks at each voxel by itself, without a lattice of
windows or cubes, so that neither the scan's order of axes nor the place of a grid decides what is found.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .local_features import NAMES, feature_table

FORMAT = "meddifffm-anomaly-1"
MODEL = "anomaly-detector"
HIDDEN = 64
SMOOTHING_MM = 3.0
RIM_MM = 3.0
ROWS = 10_000
"""Voxels judged at a time."""
TAILS = (0.5, 0.158655, 0.022750, 0.00134990, 3.16712e-5)
"""Shares of normal voxels above a z of 0, 1, 2, 3 and 4 in a normal distribution."""


@dataclass(frozen=True)
class Detector:
    """The network and what its answers mean.

    Attributes:
        network: features less their mean over their spread -> log odds of "out of place".
        center, scale: mean and spread of the features, float32.
        quantiles: smoothed log odds that the shares ``TAILS`` of normal voxels exceed.
        sha256: of its file.
    """

    network: torch.nn.Module
    center: torch.Tensor
    scale: torch.Tensor
    quantiles: tuple[float, ...] = ()
    sha256: str = ""

    def odds(self, table: np.ndarray) -> np.ndarray:
        """Log odds, float32 (n,), of rows of features."""
        with torch.inference_mode():
            rows = (torch.from_numpy(table[n : n + ROWS]).float() for n in range(0, len(table), ROWS))
            answers = [self.network((part - self.center) / self.scale)[:, 0] for part in rows]
            return torch.cat([*answers, torch.zeros(0)]).numpy()

    def z_score(self, odds: np.ndarray) -> np.ndarray:
        """Smoothed log odds -> z-score: as rare among normal voxels as that z is in a normal distribution, from 0 up.

        Beyond 4, where voxels are too few to count, it goes on as between 3 and 4.
        """
        knots = np.asarray(self.quantiles)
        z = np.interp(odds, knots, np.arange(len(knots)))
        return z + np.maximum(odds - knots[-1], 0) / (knots[-1] - knots[-2])


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
    """(k, j, i) float32 log odds, smoothed within the search area; 0 elsewhere.

    Args:
        body: see :func:`.local_features.feature_table`.
        search: bool, where to look, inside the body.
        done: called after each of the features.
    """
    if not search.any():
        return np.zeros(hounsfield.shape, np.float32)
    table = search_features(hounsfield, body, search, spacing_kji, done)
    return smooth_odds(detector.odds(table), search, spacing_kji)


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

    state = {**detector.network.state_dict(), "center": detector.center, "scale": detector.scale}
    config = {"features": list(NAMES), "quantiles": [round(q, 4) for q in detector.quantiles]}
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
        network = build_network()
        network.load_state_dict(state)
        quantiles = tuple(float(q) for q in config["quantiles"])
        fits = tuple(config["features"]) == NAMES and center.shape == scale.shape == (len(NAMES),)
        if not (fits and len(quantiles) == len(TAILS) and _rising(quantiles)):
            raise ValueError("other features")
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise ModelError(f"The weights in {path.name} do not fit their description ({first}).", remedy) from error
    return Detector(network.eval().requires_grad_(False), center, scale, quantiles, weights.sha256)


@functools.cache
def shipped_detector() -> Detector:
    """The detector of the catalogue, read once a process."""
    from ...models.catalogue import resolve

    _, path, expected = resolve(MODEL)
    return load_detector(path, expected)


def _rising(values: Sequence[float]) -> bool:
    return all(a < b for a, b in zip(values, values[1:], strict=False))
