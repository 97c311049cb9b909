"""Labeled input on the working grid, made from a prepared case and its mask and stored beside the case."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ...conditioning.condition import Condition
from ...core.atomic_files import atomic_path
from ...datasets.labels import SegmentLabel
from ...datasets.prepared_cases import Case, StoredLevel
from ...imaging.resampling import resample_box
from ...preprocessing.body_coordinates import UNKNOWN, BodyField, fit_position, shipped_regressor, shipped_sha256
from ...segmentation.inputs import LabeledInput, SegmentationInput
from ..pretrain.body_coordinates import scan_of


def make_example(case: Case, mask: np.ndarray, labels: Sequence[SegmentLabel], spacing: float) -> LabeledInput:
    """An example; what was stored for the same mask and labels before is used again.

    Args:
        mask: what ``np.asarray`` makes (k, j, i) label numbers on the grid of ``case.levels[0]`` of.
        labels: the classes, in the order of the network's outputs.
        spacing: edge of the working voxels in mm.
    """
    level = case.levels[0]
    values = [label.value for label in labels]
    numbers = np.asarray(mask)
    parts = [hashlib.sha256(np.ascontiguousarray(numbers).tobytes()).hexdigest(), values, spacing]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    folder = _case_folder(level) / f"segmentation-{digest}"
    step = spacing / level.spacing
    count = np.maximum(1, np.rint(np.array(numbers.shape) / step)).astype(int)
    size = (int(count[0]), int(count[1]), int(count[2]))
    start = (step - 1) / 2
    if not (folder / "target.npy").exists():
        hounsfield = np.rint(resample_box(level.voxels, start, step, size)).astype(np.int16)
        _save(folder / "voxels.npy", hounsfield)
        _save(folder / "target.npy", resample_labels(numbers, values, start, step, size))
    voxels, target = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("voxels", "target"))
    first = level.origin + start * level.spacing
    k, j, i = (torch.from_numpy(case.normalized(first[a] + spacing * np.arange(size[a]), a)) for a in range(3))
    condition = Condition((spacing, spacing, spacing), (k, j, i), case.region_of(np.zeros(3)))
    known = tuple(bool((numbers == value).any()) for value in values)
    return LabeledInput(
        case.name, SegmentationInput(voxels, condition, _body(case, folder, start, spacing), folder), target, known
    )


def resample_labels(
    numbers: np.ndarray, values: Sequence[int], start: np.ndarray, step: np.ndarray, size: tuple[int, int, int]
) -> np.ndarray:
    """Label numbers on another grid: uint8, 0 or 1 + index of the class that fills most of a voxel, at least half."""
    best, target = np.full(size, 0.5, np.float32), np.zeros(size, np.uint8)
    for index, value in enumerate(values):
        share = resample_box((numbers == value).astype(np.float32), start, step, size)
        target[share >= best] = index + 1
        best = np.maximum(best, share)
    return target


def _body(case: Case, folder: Path, start: np.ndarray, spacing: float) -> BodyField:
    """Body coordinates of the example's voxels; worked out once."""
    path = folder / f"body-{shipped_sha256()[:8]}.json"
    if not path.exists():
        scan = scan_of(case)
        place = fit_position(scan.shares, scan.body, scan.lowest, shipped_regressor())
        with atomic_path(path, overwrite=True) as temporary:
            temporary.write_text(json.dumps([place.offset.tolist(), place.slope.tolist(), place.understood]))
    offset, slope, understood = json.loads(path.read_text(encoding="utf-8"))
    if not understood:
        return UNKNOWN
    level = case.levels[0]
    first = level.origin + start * level.spacing
    o = [float(offset[axis] + slope[axis] * first[axis]) for axis in range(3)]
    return BodyField((o[0], o[1], o[2]), (slope[0] * spacing, slope[1] * spacing, slope[2] * spacing))


def _case_folder(level: object) -> Path:
    assert isinstance(level, StoredLevel)
    return level.voxels_file.parent


def _save(path: Path, array: np.ndarray) -> None:
    with atomic_path(path, overwrite=True) as temporary, open(temporary, "wb") as stream:
        np.save(stream, array)
