"""Training of the anomaly detector: to tell misplaced tissue and outlined lesions from a CT as it is, on a CPU.

Misplaced tissue alone teaches what stands out in a lung and little of masses in a limb; lesions that somebody outlined
teach those, and make nodules look less rare (docs/results/anomaly-detector.md). So there are two networks: one that
learns from misplaced tissue alone, one from both. They are shown random parts of scans, each as if the scan ended
there, for sarcomas are outlined in scans that are cut some centimeters around them, so that nothing else would show
what a tumor looks like at the end of a scan. How rare an answer is on normal tissue is counted on cases that the
counting network was not trained on, since what it has learned as normal is quieter than what it will meet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ...conditioning.region import body_mask, grown
from ...core.errors import InputError
from ...imaging.volume import Box, Volume
from ...preprocessing.working_image import working_image
from ...tasks.anomaly.detector import TAILS, Detector, Member, build_network, search_area, smoothed_odds
from ...tasks.anomaly.local_features import NAMES, feature_table
from .misplaced_tissue import misplace_tissue

AROUND_LESION_MM = 9.0
"""Voxels nearer to a known lesion are neither normal nor misplaced."""
OF_A_LUMP, OF_A_LESION = 250, 1000
"""Voxels taken of each at most."""
MISPLACED, UNTOUCHED, NORMAL = 3000, 4500, 4500
"""Voxels taken of a part at most: of its lumps, of the rest of the altered scan, and of the scan as it is."""
LEAST_VOXELS = 3
"""Smaller lesions are not shown."""
LESION_SHARE = 0.5
"""Of the weight of what is out of place lies on outlined lesions, where there are any, each counted alike."""
VOXELS_PER_LUMP = 16_000
PARTS = 3
"""Of each scan that are shown, each with lumps of its own, and as it is."""
LEAST_PART, LEAST_EDGE = 0.35, 20
"""Of the scan's extent, and voxels, that a part has at least along each axis."""
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
        show_lesions: whether outlined lesions are shown, to a second network; else they are left out.
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
    detector, losses = fit_detector(samples, config)
    report(f"trained, loss {', '.join(f'{loss:.3f}' for loss in losses)}")
    odds: dict[int, np.ndarray] = {}
    for fold in sorted(set(folds)):
        other = detector_without(samples, folds, fold, config) or detector
        for number in (n for n, own in enumerate(folds) if own == fold):
            volume, lesions, _ = cases[number]
            scan = prepare_scan(volume, lesions, config.spacing)
            found = smoothed_odds(other, scan.hounsfield, scan.body, scan.search, scan.spacing_kji)
            odds[number] = normal_odds(found, scan.normal, number)
        report(f"normal tissue counted, part {fold + 1} of {FOLDS}")
    return calibrated(detector, [odds[number] for number in range(len(cases))]), facts_of(samples, config, losses)


def facts_of(samples: Sequence[Samples], config: DetectorConfig, losses: Sequence[float]) -> dict[str, Any]:
    """Figures for a detector's file."""
    return {
        "cases": len(samples),
        "misplaced_voxels": sum(len(one.misplaced) for one in samples),
        "normal_voxels": sum(len(one.normal) for one in samples),
        "parts_of_lesions": sum(len(one.lesions) for one in samples),
        "lesion_voxels": sum(len(lesion) for one in samples for lesion in one.lesions),
        "losses": [round(loss, 4) for loss in losses],
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
    """Detector that has not seen the cases of a fold; None where nothing is out of place in any other case.

    It has as many members as one that has seen all of them.
    """
    others = [one for one, own in zip(samples, folds, strict=True) if own != fold]
    if not any(len(one.misplaced) for one in others):
        return None
    return fit_detector(others, config, any(one.lesions for one in samples))[0]


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
    """Features of misplaced voxels, of others, from parts of the scan as it is and with lumps in it, and of lesions.

    Args:
        number: of the case, which its random numbers depend on.
    """
    drawn = [draw_part(scan, config, np.random.default_rng([config.seed, number, part])) for part in range(PARTS)]
    return Samples(
        np.concatenate([one.misplaced for one in drawn]),
        np.concatenate([one.normal for one in drawn]),
        tuple(lesion for one in drawn for lesion in one.lesions),
    )


def draw_part(scan: PreparedScan, config: DetectorConfig, rng: np.random.Generator) -> Samples:
    """Samples of one part with lumps in it, and of another as it is, which holds some of a lesion if the scan does.

    Each is looked at as if the scan ended where it does.
    """
    lumps = max(4, int(np.count_nonzero(scan.body)) // VOXELS_PER_LUMP)
    altered, numbers = misplace_tissue(scan.hounsfield, scan.normal, config.spacing, lumps, rng)
    outlined = scan.lesions * scan.search
    with_lumps, plain = _part(outlined.shape, rng), _part(outlined.shape, rng)
    while outlined.any() and not outlined[plain].any():
        plain = _part(outlined.shape, rng)
    put_there = _of_each((numbers * scan.search)[with_lumps], OF_A_LUMP, 1, rng)
    chosen = _drawn(put_there > 0, MISPLACED, rng)
    others = _drawn((scan.normal & (numbers == 0))[with_lumps], UNTOUCHED, rng)
    table = feature_table(altered[with_lumps], scan.body[with_lumps], scan.spacing_kji, chosen | others)
    misplaced = chosen[chosen | others]
    normal = _drawn(scan.normal[plain], NORMAL, rng)
    lesions = _of_each(outlined[plain] * config.show_lesions, OF_A_LESION, LEAST_VOXELS, rng)
    own = feature_table(scan.hounsfield[plain], scan.body[plain], scan.spacing_kji, normal | (lesions > 0))
    owner = lesions[normal | (lesions > 0)]
    return Samples(
        table[misplaced],
        np.concatenate([table[~misplaced], own[owner == 0]]),
        tuple(own[owner == n] for n in np.unique(owner[owner > 0])),
    )


def _part(shape: tuple[int, ...], rng: np.random.Generator) -> Box:
    """A random part of a grid."""
    sizes = [max(min(n, LEAST_EDGE), round(n * rng.uniform(LEAST_PART, 1))) for n in shape]
    firsts = [int(rng.integers(n - size + 1)) for n, size in zip(shape, sizes, strict=True)]
    k, j, i = (slice(first, first + size) for first, size in zip(firsts, sizes, strict=True))
    return k, j, i


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


def fit_detector(
    samples: Sequence[Samples], config: DetectorConfig, of_lesions: bool | None = None
) -> tuple[Detector, list[float]]:
    """The networks, not calibrated, and the cross-entropy of their last batches.

    The first learns from lumps alone, the second from outlined lesions, too.

    Args:
        of_lesions: whether there is a second one; if there are lesions when not given.

    Raises:
        InputError: nothing out of place in any case.
    """
    normal = torch.from_numpy(np.concatenate([one.normal for one in samples])).float()
    center, scale = normal.mean(0), normal.std(0) + 1e-3
    taught = [[replace(one, lesions=()) for one in samples]]
    if of_lesions or (of_lesions is None and any(one.lesions for one in samples)):
        taught.append(list(samples))
    fitted = [_fit_network(one, center, scale, config) for one in taught]
    return Detector(tuple(Member(network) for network, _ in fitted), center, scale), [loss for _, loss in fitted]


def _fit_network(
    samples: Sequence[Samples], center: torch.Tensor, scale: torch.Tensor, config: DetectorConfig
) -> tuple[torch.nn.Module, float]:
    """One network, and its last batch's cross-entropy."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    misplaced = np.concatenate([np.zeros((0, len(NAMES)), np.float16), *(one.misplaced for one in samples)])
    if not len(misplaced):
        raise InputError("There is no room for misplaced tissue in any case.", "Give CTs that show a body.")
    lesions = [lesion for one in samples for lesion in one.lesions]
    normal = np.concatenate([one.normal for one in samples])
    rows = (torch.from_numpy(np.concatenate([misplaced, *lesions, normal])).float() - center) / scale
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
    return network.eval().requires_grad_(False), float(loss.detach())


def normal_odds(odds: np.ndarray, normal: np.ndarray, number: int) -> np.ndarray:
    """(members, n): smoothed log odds of some normal voxels, with replacement so that every case counts alike."""
    return np.random.default_rng(number).choice(odds[:, normal], COUNTED if normal.any() else 0, axis=1)


def calibrated(detector: Detector, odds: Sequence[np.ndarray]) -> Detector:
    """The detector with quantiles of its members and, where there are more than one, of their larger z-score.

    Args:
        odds: (members, n) of normal voxels of each case, by networks that have not seen it.
    """
    together = np.concatenate(odds, axis=1)
    members = tuple(replace(m, quantiles=rarity(one)) for m, one in zip(detector.members, together, strict=True))
    counted = replace(detector, members=members, quantiles=())
    return replace(counted, quantiles=rarity(counted.z_score(together))) if len(members) > 1 else counted


def rarity(values: np.ndarray) -> tuple[float, ...]:
    """Values that the shares ``TAILS`` of them exceed."""
    return tuple(float(q) for q in np.quantile(values, [1 - tail for tail in TAILS]))
