"""Training of the anomaly detector: to tell misplaced tissue and outlined lesions from a CT as it is, on a CPU.

Misplaced tissue alone teaches what stands out in a lung and little of masses in a limb; lesions that somebody outlined
teach those (docs/results/anomaly-detector.md). How rare an answer is on normal tissue is counted on cases that the
counting network was not trained on, since what it has learned as normal is quieter than what it will meet.
"""

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
from ...tasks.anomaly.local_features import NAMES, feature_table
from .misplaced_tissue import misplace_tissue

AROUND_LESION_MM = 9.0
"""Voxels nearer to a known lesion are neither normal nor misplaced."""
OF_A_LUMP, OF_A_LESION = 250, 1000
"""Voxels taken of each at most."""
MISPLACED, UNTOUCHED, NORMAL = 3000, 4500, 4500
"""Voxels taken of a case at most: of its lumps, of the rest of the altered scan, and of the scan as it is."""
LEAST_VOXELS = 3
"""Smaller lesions are not shown."""
LESION_SHARE = 0.5
"""Of the weight of what is out of place lies on outlined lesions, where there are any, each counted alike."""
VOXELS_PER_LUMP = 16_000
COUNTED = 100_000
"""Voxels of a case of which the log odds on normal tissue are counted."""
FOLDS = 5
BATCH = 2048

Cases = Sequence[tuple[Volume, np.ndarray | None, str | None]]


@dataclass(frozen=True)
class DetectorConfig:
    """Settings of the training.

    Attributes:
        spacing: working voxel in mm.
        epochs: passes over the voxels taken.
        rate: highest learning rate of AdamW, one cycle.
        show_lesions: whether outlined lesions are shown; else they are left out.
    """

    spacing: float = 3.0
    epochs: float = 4.0
    rate: float = 3e-3
    seed: int = 0
    show_lesions: bool = True


@dataclass(frozen=True)
class PreparedScan:
    """A case on the working grid.

    Attributes:
        hounsfield: (k, j, i) HU; body, search: bool, what counts, and the body less its rim.
        normal: bool, where normal voxels are taken from: ``search`` less the surroundings of known lesions.
        lesions: number of the lesion in each voxel that is more than half of one, 0 in none.
    """

    hounsfield: np.ndarray
    body: np.ndarray
    search: np.ndarray
    normal: np.ndarray
    lesions: np.ndarray
    spacing_kji: tuple[float, float, float]


@dataclass(frozen=True)
class Samples:
    """Features, float16 (n, features), of voxels of one case: out of place, as they are, and of each lesion."""

    misplaced: np.ndarray
    normal: np.ndarray
    lesions: tuple[np.ndarray, ...]


def train_detector(
    cases: Cases,
    config: DetectorConfig | None = None,
    report: Callable[[str], None] = lambda line: None,
    patients: Sequence[str] | None = None,
) -> tuple[Detector, dict[str, Any]]:
    """The trained detector, and figures for its file.

    Args:
        cases: CT; a mask of lesions, which are shown as such (``show_lesions``) and never as normal; region, not used.
        patients: whose they are; each of another one when not given.

    Raises:
        InputError: no body in any case.
    """
    config = config or DetectorConfig()
    folds = deal_folds(patients or [str(number) for number in range(len(cases))])
    samples = []
    for number, (volume, lesions, _) in enumerate(cases):
        samples.append(draw_samples(prepare_scan(volume, lesions, config.spacing), config, number))
        report(f"features of {number + 1} of {len(cases)} cases")
    detector, loss = fit_detector(samples, config)
    report(f"trained, loss {loss:.3f}")
    odds: dict[int, np.ndarray] = {}
    for fold in sorted(set(folds)):
        other = detector_without(samples, folds, fold, config) or detector
        for number in (n for n, own in enumerate(folds) if own == fold):
            volume, lesions, _ = cases[number]
            scan = prepare_scan(volume, lesions, config.spacing)
            found = smoothed_odds(other, scan.hounsfield, scan.body, scan.search, scan.spacing_kji)
            odds[number] = normal_odds(found, scan.normal, number)
        report(f"normal tissue counted, part {fold + 1} of {FOLDS}")
    knots = rarity([odds[number] for number in range(len(cases))])
    facts = facts_of(samples, config, loss)
    return Detector(detector.network, detector.center, detector.scale, knots), facts


def facts_of(samples: Sequence[Samples], config: DetectorConfig, loss: float) -> dict[str, Any]:
    """Figures for a detector's file."""
    return {
        "cases": len(samples),
        "misplaced_voxels": sum(len(one.misplaced) for one in samples),
        "normal_voxels": sum(len(one.normal) for one in samples),
        "lesions": sum(len(one.lesions) for one in samples),
        "lesion_voxels": sum(len(lesion) for one in samples for lesion in one.lesions),
        "loss": round(loss, 4),
        "spacing_mm": config.spacing,
        "seed": config.seed,
    }


def deal_folds(patients: Sequence[str], folds: int = FOLDS) -> list[int]:
    """Fold of each case: patients are dealt out in turn, in the order in which they come."""
    order = {patient: n for n, patient in enumerate(dict.fromkeys(patients))}
    return [order[patient] % folds for patient in patients]


def detector_without(
    samples: Sequence[Samples], folds: Sequence[int], fold: int, config: DetectorConfig
) -> Detector | None:
    """Detector that has not seen the cases of a fold; None where nothing is out of place in any other case."""
    others = [one for one, own in zip(samples, folds, strict=True) if own != fold]
    return fit_detector(others, config)[0] if any(len(one.misplaced) for one in others) else None


def prepare_scan(volume: Volume, lesions: np.ndarray | None, spacing: float) -> PreparedScan:
    """A case on voxels of ``spacing`` mm."""
    from scipy.ndimage import label

    image = working_image(volume, spacing)
    body = body_mask(image.hounsfield)
    search = search_area(body, image.spacing_kji)
    normal, numbers = search, np.zeros(image.shape, np.int32)
    if lesions is not None:
        share = image.mask_on_grid(lesions)
        normal = search & ~grown(share > 0, AROUND_LESION_MM, image.spacing_kji)
        numbers = label(share > 0.5, np.ones((3, 3, 3)))[0]
    return PreparedScan(image.hounsfield, body, search, normal, numbers, image.spacing_kji)


def draw_samples(scan: PreparedScan, config: DetectorConfig, number: int) -> Samples:
    """Features of misplaced voxels, of others, from the scan as it is and with lumps in it, and of lesions.

    Args:
        number: of the case, which its random numbers depend on.
    """
    rng = np.random.default_rng([config.seed, number])
    lumps = max(4, int(np.count_nonzero(scan.body)) // VOXELS_PER_LUMP)
    altered, numbers = misplace_tissue(scan.hounsfield, scan.normal, config.spacing, lumps, rng)
    put_there = _of_each(numbers * scan.search, OF_A_LUMP, 1, rng)
    chosen = _drawn(put_there > 0, MISPLACED, rng)
    others = _drawn(scan.normal & (numbers == 0), UNTOUCHED, rng)
    table = feature_table(altered, scan.body, scan.spacing_kji, chosen | others)
    misplaced = chosen[chosen | others]
    normal = _drawn(scan.normal, NORMAL, rng)
    outlined = _of_each(scan.lesions * scan.search * config.show_lesions, OF_A_LESION, LEAST_VOXELS, rng)
    plain = feature_table(scan.hounsfield, scan.body, scan.spacing_kji, normal | (outlined > 0))
    owner = outlined[normal | (outlined > 0)]
    return Samples(
        table[misplaced],
        np.concatenate([table[~misplaced], plain[owner == 0]]),
        tuple(plain[owner == n] for n in np.unique(owner[owner > 0])),
    )


def _of_each(numbers: np.ndarray, most: int, least: int, rng: np.random.Generator) -> np.ndarray:
    """The numbers in at most so many voxels of each piece that has so many at least, 0 elsewhere."""
    index = rng.permutation(np.flatnonzero(numbers))
    index = index[np.argsort(numbers.reshape(-1)[index], kind="stable")]
    _, first, count = np.unique(numbers.reshape(-1)[index], return_index=True, return_counts=True)
    place = np.arange(len(index)) - np.repeat(first, count)
    index = index[(place < most) & (np.repeat(count, count) >= least)]
    kept = np.zeros(numbers.shape, numbers.dtype)
    kept.reshape(-1)[index] = numbers.reshape(-1)[index]
    return kept


def _drawn(among: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """At most so many of the voxels, as a mask."""
    few = np.zeros(among.shape, bool)
    few.reshape(-1)[rng.permutation(np.flatnonzero(among))[:most]] = True
    return few


def fit_detector(samples: Sequence[Samples], config: DetectorConfig) -> tuple[Detector, float]:
    """The network, and its last batch's cross-entropy.

    Raises:
        InputError: nothing out of place in any case.
    """
    from torch.nn.functional import binary_cross_entropy_with_logits

    misplaced = np.concatenate([np.zeros((0, len(NAMES)), np.float16), *(one.misplaced for one in samples)])
    if not len(misplaced):
        raise InputError("There is no room for misplaced tissue in any case.", "Give CTs that show a body.")
    lesions = [lesion for one in samples for lesion in one.lesions]
    normal = np.concatenate([one.normal for one in samples])
    rows = torch.from_numpy(np.concatenate([misplaced, *lesions, normal])).float()
    center, scale = rows[-len(normal) :].mean(0), rows[-len(normal) :].std(0) + 1e-3
    rows = (rows - center) / scale
    truth, weight = torch.ones(len(rows)), torch.ones(len(rows))
    truth[-len(normal) :] = 0
    if lesions:
        share = LESION_SHARE * len(misplaced) / len(lesions)
        out_of_place = [np.full(len(misplaced), 1 - LESION_SHARE), *(np.full(len(n), share / len(n)) for n in lesions)]
        weight[: -len(normal)] = torch.from_numpy(np.concatenate(out_of_place)).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = build_network()
    generator = torch.Generator().manual_seed(config.seed)
    steps = max(1, int(config.epochs * len(rows) / BATCH))
    optimizer = torch.optim.AdamW(network.parameters(), config.rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.rate, total_steps=steps + 1)
    for _ in range(steps):
        index = torch.randint(len(rows), (BATCH,), generator=generator)
        loss = binary_cross_entropy_with_logits(network(rows[index])[:, 0], truth[index], weight[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return Detector(network.eval().requires_grad_(False), center, scale), float(loss.detach())


def normal_odds(odds: np.ndarray, normal: np.ndarray, number: int) -> np.ndarray:
    """Smoothed log odds of some normal voxels of a case, with replacement so that every case counts alike."""
    return np.random.default_rng(number).choice(odds[normal], COUNTED if normal.any() else 0)


def rarity(odds: Sequence[np.ndarray]) -> tuple[float, ...]:
    """Smoothed log odds that the shares ``TAILS`` of normal voxels exceed."""
    return tuple(float(q) for q in np.quantile(np.concatenate(odds), [1 - tail for tail in TAILS]))
