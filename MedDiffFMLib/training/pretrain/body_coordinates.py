"""Training of the body-coordinate network, without labels, on prepared cases.

Along the body two losses need no label: of two slices the one nearer to the head has the larger coordinate, and their
coordinates differ by their distance. What they leave open is one offset for each case. It is a parameter that is
trained with the network, so that cases that look alike come to lie at the same height; the name of the region, or an
organ map where there is one, says where it begins. Across the body the coordinate is the position in the body box.
Crops, tilts, sizes and mirror images, whose coordinates are mirrored too, make many scans of few.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from torch import nn

from ...conditioning.region import body_box
from ...core.errors import InputError
from ...core.progress import CancelToken
from ...datasets.prepared_cases import Case, open_cases
from ...imaging.resampling import resample_box
from ...networks.body_regressor import BodyRegressor
from ...preprocessing.body_coordinates import FINE_MM, SPACING_MM, tissue_shares

ORGAN_HEIGHT_M = {1: 0.30, 2: 0.25, 3: 0.24, 5: 0.31, 21: 0.03, 51: 0.44, 77: 0.08, 78: 0.08, 90: 0.75, 91: 0.80}
"""TotalSegmentator label -> height of its center: spleen, kidneys, liver, bladder, heart, hips, brain, skull."""
REGION_HEIGHT_M = {"pelvis": 0.08, "abdomen": 0.26, "chest": 0.46, "head-neck": 0.78, "whole-body": 0.35}
OFFSET_FREEDOM_M = 0.06
"""Farthest move of a case's offset from where its region's name puts it; free from the start, all would meet."""
SETTLED_SHARE = 0.4
"""Share of the training after which offsets begin to move."""
MIRROR_SHARE = 0.1
"""Share of windows that are upside down, and as many front to back."""
SMALL_MM = 200.0
"""An image narrower than this is a crop: its box says nothing about the body."""


@dataclass(frozen=True)
class BodyScan:
    """A case in cells of 16 mm.

    Attributes:
        shares, body: see :func:`preprocessing.body_coordinates.tissue_shares`.
        across: (2, 2): first and last cell (j, i) of the body box; None for a crop.
        lowest: (3,) mm, middle of cell 0, order (k, j, i).
        start: height of slice 0 in metres that region or organs suggest, None where nothing does.
        region: name of the region that the case was prepared with.
    """

    name: str
    shares: np.ndarray
    body: np.ndarray
    across: np.ndarray | None
    lowest: np.ndarray
    start: float | None
    region: str = ""


@dataclass(frozen=True)
class BodyConfig:
    """Settings of the training.

    Attributes:
        minutes: of processor time, after which the training ends.
        size: largest window (k, j, i) in cells.
        zoom: largest factor on the patient's size, both ways.
        tilt: standard deviation of the rotation about each axis, degrees.
    """

    minutes: float = 12.0
    learning_rate: float = 2e-3
    size: tuple[int, int, int] = (28, 24, 32)
    zoom: float = 1.15
    tilt: float = 4.0
    seed: int = 0


def read_scans(cache: Path, split: str = "training") -> list[BodyScan]:
    """The prepared cases of a split.

    Raises:
        InputError: no cache, or no case in it.
    """
    scans = [scan_of(case) for case in open_cases(cache, split)]
    if not scans:
        raise InputError(f"'{cache}' has no {split} case.", "Prepare some with `meddifffm prepare`.")
    return scans


def scan_of(case: Case) -> BodyScan:
    """A prepared case in cells of 16 mm, with what is known about its place."""
    level = case.levels[-1]
    step = FINE_MM / level.spacing
    count = np.maximum(2, np.rint(np.array(level.voxels.shape) / step)).astype(int)
    size = (int(count[0]), int(count[1]), int(count[2]))
    shares, body = tissue_shares(resample_box(level.voxels, (step - 1) / 2, step, size))
    first, last = body_box(body > 0.5)
    crop = min(count[1:] * FINE_MM) < SMALL_MM
    across = None if crop else np.stack([first[1:], last[1:]])
    lowest = level.origin - level.spacing / 2 + SPACING_MM / 2
    return BodyScan(case.name, shares, body, across, lowest, _start(case, len(body), crop), case.region)


def _start(case: Case, slices: int, crop: bool) -> float | None:
    """Height of slice 0 by organs, else by the region's name, which is not trusted in crops but for the narrow head."""
    level = case.levels[-1]
    anatomy = level.anatomy
    heights = []
    if anatomy is not None:
        for label, height in ORGAN_HEIGHT_M.items():
            labeled_slices = np.flatnonzero((np.asarray(anatomy) == label).any((1, 2)))
            if len(labeled_slices):
                heights.append(height - float(labeled_slices.mean() * level.spacing[0]) / 1000)
    if heights:
        return float(np.median(heights))
    if crop and case.region != "head-neck":
        return None
    middle = REGION_HEIGHT_M.get(case.region)
    return None if middle is None else middle - slices * SPACING_MM / 2000


def train_body(
    scans: list[BodyScan],
    config: BodyConfig,
    report: Callable[[str], None] = lambda line: None,
    cancel: CancelToken | None = None,
) -> tuple[BodyRegressor, dict[str, Any]]:
    """Train for the given minutes; the network and facts about its training."""
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    network = BodyRegressor().to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    first = torch.tensor([0.3 if scan.start is None else scan.start for scan in scans])
    freedom = torch.tensor([1.0 if scan.start is None else OFFSET_FREEDOM_M for scan in scans])
    moved = nn.Parameter(torch.zeros(len(scans)))
    optimizer = torch.optim.AdamW(
        [{"params": network.parameters()}, {"params": [moved], "lr": 10 * config.learning_rate, "weight_decay": 0.0}],
        lr=config.learning_rate,
        weight_decay=0.01,
    )
    rates = [group["lr"] for group in optimizer.param_groups]
    chances = _chances(scans)
    begin, step, smooth = time.process_time(), 0, 0.0
    while (done := (time.process_time() - begin) / (60 * config.minutes)) < 1:
        if cancel is not None:
            cancel.check()
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * min(1.0, (step + 1) / 50) * min(1.0, 0.02 + 2 * (1 - done))
        number = int(rng.choice(len(scans), p=chances))
        shares, target, weight = draw(scans[number], config, rng)
        shift = moved[number] if done > SETTLED_SHARE or scans[number].start is None else 0 * moved[number]
        height = first[number] + freedom[number] * torch.tanh(shift)
        predicted = network(shares[None])[0]
        loss = coordinate_loss(predicted, target, weight, height)
        optimizer.zero_grad()
        loss.backward()
        if torch.isfinite(nn.utils.clip_grad_norm_(network.parameters(), 1.0)):
            optimizer.step()
        error = ((predicted[0] - target[0] - height).abs() * weight[0]).sum() / weight[0].sum().clamp(min=1)
        step, smooth = step + 1, 0.98 * smooth + 0.02 * float(error.detach())
        if step % 50 == 0:
            report(f"step {step}  {100 * done:.0f} %  {1000 * smooth / (1 - 0.98**step):.0f} mm from head to feet")
    offsets = (first + freedom * torch.tanh(moved.detach())).tolist()
    facts = {
        "steps": step,
        "minutes": round((time.process_time() - begin) / 60, 1),
        "cases": len(scans),
        "start_m": {scan.name: round(value, 3) for scan, value in zip(scans, offsets, strict=True)},
    }
    return network.eval(), facts


def _chances(scans: list[BodyScan]) -> np.ndarray:
    """Chances of the scans: every region alike, or most would be chests and heights be drawn towards them."""
    regions = ["" if scan.start is None else scan.region for scan in scans]
    counts = Counter(regions)
    return np.array([1 / (counts[region] * len(counts)) for region in regions])


def draw(
    scan: BodyScan, config: BodyConfig, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A part of a scan, tilted, resized, noisy, perhaps mirrored.

    Returns:
        Shares (5, D, H, W); coordinates (3, D, H, W), head-feet counted from slice 0 of the scan in metres; weights of
        the coordinates (3, D, H, W): 0 outside of the body, and across it in a crop.
    """
    shape = np.array(scan.body.shape)
    zoom = float(np.exp(rng.uniform(-1, 1) * np.log(config.zoom)))
    share = np.where(rng.random(3) < (0.7, 0.4, 0.4), rng.uniform((0.25, 0.5, 0.5), 1), 1.0)
    count = np.clip(np.minimum(np.rint(shape * zoom * share), config.size), 4, None).astype(int)
    room = np.maximum(shape - count / zoom, 0)
    middle = rng.uniform(0, 1, 3) * room + np.minimum(count / zoom, shape) / 2 - 0.5
    matrix = _rotation(rng.normal(0, np.radians(config.tilt), 3)) / zoom
    if rng.random() < MIRROR_SHARE:
        matrix = matrix @ np.diag([-1.0, 1.0, 1.0])
    if rng.random() < MIRROR_SHARE:
        matrix = matrix @ np.diag([1.0, -1.0, 1.0])
    offset = middle - matrix @ ((count - 1) / 2)
    images = [_resampled(image, matrix, offset, count) for image in (*scan.shares, scan.body)]
    shares, inside = np.stack(images[:-1]), images[-1]
    points = np.einsum("ab,bkji->akji", matrix, np.indices(tuple(count))) + offset[:, None, None, None]
    target = np.empty((3, *count), np.float32)
    target[0] = points[0] * SPACING_MM / 1000
    weight = np.repeat(inside[None], 3, axis=0)
    if scan.across is None:
        target[1:], weight[1:] = 0, 0
    else:
        low, high = scan.across
        for axis in (0, 1):
            target[axis + 1] = 2 * (points[axis + 1] - low[axis]) / max(high[axis] - low[axis], 1) - 1
    shares = np.clip(shares * rng.uniform(0.9, 1.1, (len(shares), 1, 1, 1)) + rng.normal(0, 0.02, shares.shape), 0, 1)
    return tuple(torch.from_numpy(array.astype(np.float32)) for array in (shares, target, weight))  # type: ignore[return-value]


def coordinate_loss(
    predicted: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, height: torch.Tensor
) -> torch.Tensor:
    """Distance, order and box losses.

    Args:
        predicted, target, weight: (3, D, H, W), see :func:`draw`.
        height: of slice 0 of the whole scan.
    """
    truth = torch.cat([target[:1] + height, target[1:]])
    scale = truth.new_tensor([0.05, 0.2, 0.2])[:, None, None, None]
    error = functional.huber_loss(predicted / scale, truth / scale, reduction="none")
    share = weight * weight.new_tensor([2.0, 0.5, 0.5])[:, None, None, None]
    total = (error * share).sum() / share.sum().clamp(min=1)
    return total + order_loss(predicted[0], target[0], weight[0])


def order_loss(predicted: torch.Tensor, place: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Disorder of slices half a window apart; (D, H, W) each."""
    half = max(len(predicted) // 2, 1)
    count = weight.sum((1, 2)).clamp(min=1)
    mean, where = (predicted * weight).sum((1, 2)) / count, (place * weight).sum((1, 2)) / count
    used = (weight.sum((1, 2)) > 0).float()
    apart, real = mean[half:] - mean[:-half], where[half:] - where[:-half]
    return (functional.relu(-apart * real.sign()) / 0.05 * used[half:] * used[:-half]).mean()


def _rotation(angles: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler("xyz", angles).as_matrix()


def _resampled(array: np.ndarray, matrix: np.ndarray, offset: np.ndarray, count: np.ndarray) -> np.ndarray:
    from scipy.ndimage import affine_transform

    return affine_transform(array, matrix, offset, tuple(count), order=1, mode="constant")
