"""Training of the anomaly detector: to tell misplaced tissue from a CT as it is, in minutes on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...conditioning.region import body_mask, grown
from ...core.errors import InputError
from ...imaging.volume import Volume
from ...preprocessing.working_image import working_image
from ...tasks.anomaly.detector import TAILS, Detector, build_network, search_area, smoothed_odds
from ...tasks.anomaly.local_features import feature_table
from .misplaced_tissue import misplace_tissue

AROUND_LESION_MM = 9.0
"""Voxels nearer to a known lesion are neither normal nor misplaced."""
OF_A_LUMP, UNTOUCHED, NORMAL = 250, 16_000, 8_000
"""Voxels taken of each lump, of the rest of an altered scan, and of the scan as it is."""
VOXELS_PER_LUMP = 16_000
COUNTED = 100_000
"""Voxels of a scan of which the log odds on normal tissue are counted."""
BATCH = 2048

Cases = Sequence[tuple[Volume, np.ndarray | None, str | None]]


@dataclass(frozen=True)
class DetectorConfig:
    """Settings of the training.

    Attributes:
        spacing: working voxel in mm.
        epochs: passes over the voxels taken.
        rate: highest learning rate of AdamW, one cycle.
    """

    spacing: float = 3.0
    epochs: float = 5.0
    rate: float = 3e-3
    seed: int = 0


@dataclass(frozen=True)
class _Scan:
    """A case on the working grid: HU, body, where normal voxels are taken from (body less rim and known lesions)."""

    hounsfield: np.ndarray
    body: np.ndarray
    search: np.ndarray
    normal: np.ndarray
    spacing_kji: tuple[float, float, float]


def train_detector(
    cases: Cases, config: DetectorConfig | None = None, report: Callable[[str], None] = lambda line: None
) -> tuple[Detector, dict[str, Any]]:
    """The trained detector, and figures for its file.

    Args:
        cases: CT; a mask of lesions, which are neither shown nor counted as normal; region, not used.

    Raises:
        InputError: no body in any case.
    """
    config = config or DetectorConfig()
    rng = np.random.default_rng(config.seed)
    misplaced, normal = [], []
    for number, (volume, lesions, _) in enumerate(cases):
        put_there, as_it_is = _samples(_scan(volume, lesions, config.spacing), config.spacing, rng)
        misplaced.append(put_there)
        normal.append(as_it_is)
        report(f"features of {number + 1} of {len(cases)} cases")
    detector, loss = _fit(np.concatenate(misplaced), np.concatenate(normal), config)
    report(f"trained, loss {loss:.3f}")
    quantiles = _quantiles(detector, cases, config, rng, report)
    facts = {
        "cases": len(cases),
        "misplaced_voxels": sum(map(len, misplaced)),
        "normal_voxels": sum(map(len, normal)),
        "loss": round(loss, 4),
        "spacing_mm": config.spacing,
        "seed": config.seed,
    }
    return Detector(detector.network, detector.center, detector.scale, quantiles), facts


def _scan(volume: Volume, lesions: np.ndarray | None, spacing: float) -> _Scan:
    image = working_image(volume, spacing)
    body = body_mask(image.hounsfield)
    search = search_area(body, image.spacing_kji)
    normal = search
    if lesions is not None:
        normal = search & ~grown(image.mask_on_grid(lesions) > 0, AROUND_LESION_MM, image.spacing_kji)
    return _Scan(image.hounsfield, body, search, normal, image.spacing_kji)


def _samples(scan: _Scan, spacing: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Features of misplaced voxels, and of others, from the scan as it is and with lumps in it."""
    lumps = max(4, int(np.count_nonzero(scan.body)) // VOXELS_PER_LUMP)
    altered, numbers = misplace_tissue(scan.hounsfield, scan.normal, spacing, lumps, rng)
    chosen = np.zeros(numbers.shape, bool)
    for number in range(1, int(numbers.max()) + 1):
        _draw(chosen, (numbers == number) & scan.search, OF_A_LUMP, rng)
    others, as_it_is = np.zeros(numbers.shape, bool), np.zeros(numbers.shape, bool)
    _draw(others, scan.normal & (numbers == 0), UNTOUCHED, rng)
    _draw(as_it_is, scan.normal, NORMAL, rng)
    table = feature_table(altered, scan.body, scan.spacing_kji, chosen | others)
    put_there = chosen[chosen | others]
    plain = feature_table(scan.hounsfield, scan.body, scan.spacing_kji, as_it_is)
    return table[put_there], np.concatenate([table[~put_there], plain])


def _draw(chosen: np.ndarray, among: np.ndarray, most: int, rng: np.random.Generator) -> None:
    """Mark at most so many voxels."""
    index = np.flatnonzero(among)
    chosen.reshape(-1)[rng.permutation(index)[:most]] = True


def _fit(misplaced: np.ndarray, normal: np.ndarray, config: DetectorConfig) -> tuple[Detector, float]:
    """The network, and its last batch's cross-entropy."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    if not len(misplaced):
        raise InputError("There is no room for misplaced tissue in any case.", "Give CTs that show a body.")
    rows = torch.from_numpy(np.concatenate([misplaced, normal])).float()
    center, scale = rows[len(misplaced) :].mean(0), rows[len(misplaced) :].std(0) + 1e-3
    rows = (rows - center) / scale
    truth = torch.cat([torch.ones(len(misplaced)), torch.zeros(len(normal))])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = build_network()
    generator = torch.Generator().manual_seed(config.seed)
    steps = max(1, int(config.epochs * len(rows) / BATCH))
    optimizer = torch.optim.AdamW(network.parameters(), config.rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.rate, total_steps=steps + 1)
    for _ in range(steps):
        index = torch.randint(len(rows), (BATCH,), generator=generator)
        loss = binary_cross_entropy_with_logits(network(rows[index])[:, 0], truth[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return Detector(network.eval().requires_grad_(False), center, scale), float(loss.detach())


def _quantiles(
    detector: Detector,
    cases: Cases,
    config: DetectorConfig,
    rng: np.random.Generator,
    report: Callable[[str], None],
) -> tuple[float, ...]:
    """Smoothed log odds that the shares ``TAILS`` of normal voxels exceed, every case counted alike."""
    counted = []
    for number, (volume, lesions, _) in enumerate(cases):
        scan = _scan(volume, lesions, config.spacing)
        odds = smoothed_odds(detector, scan.hounsfield, scan.body, scan.search, scan.spacing_kji)[scan.normal]
        counted.append(rng.choice(odds, COUNTED) if len(odds) else odds)
        report(f"normal tissue of {number + 1} of {len(cases)} cases counted")
    return tuple(float(q) for q in np.quantile(np.concatenate(counted), [1 - tail for tail in TAILS]))
