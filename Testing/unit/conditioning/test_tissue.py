"""Tissue classes from Hounsfield units: known classes of a phantom, a real CT, grids and axes that must not matter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from MedDiffFMLib.conditioning.condition import CONDITION_CHANNELS, TISSUE_AT, Condition
from MedDiffFMLib.conditioning.tissue import (
    AIRWAY,
    BONE,
    CONTRAST,
    FAT,
    LUNG,
    MUSCLE,
    OUTSIDE,
    TISSUE_CHANNELS,
    TISSUES,
    classify_tissue,
    encode_tissue,
)
from MedDiffFMLib.core.resources import resource_folder
from MedDiffFMLib.imaging.grid import to_grid, working_grid
from MedDiffFMLib.imaging.io import read_volume
from MedDiffFMLib.imaging.resampling import resample_box


def chest(spacing: tuple[float, float, float], noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """HU and classes of a chest of 120 mm on a table: two lungs with vessels, trachea, spine, ribs, aorta with contrast
    agent beside the spine, muscle in a layer of fat, and a cushion of foam under the back."""
    shape = [round(length / step) for length, step in zip((120, 260, 340), spacing, strict=True)]
    z, y, x = np.meshgrid(
        *((np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij", sparse=True
    )
    classes = np.full(shape, OUTSIDE, np.uint8)
    hounsfield = np.full(shape, -1000.0, np.float32)

    def put(where: np.ndarray, tissue: int, value: float) -> None:
        where = np.broadcast_to(where, shape)
        classes[where], hounsfield[where] = tissue, value

    put((np.abs(y - 112) < 12) & (np.abs(x) < 100), OUTSIDE, -930)
    put(np.abs(y - 126) < 2, OUTSIDE, 100)
    put((x / 150) ** 2 + (y / 105) ** 2 < 1, FAT, -100)
    put((x / 135) ** 2 + (y / 92) ** 2 < 1, MUSCLE, 50)
    for side in (-1, 1):
        put(((x - side * 70) / 45) ** 2 + (y / 62) ** 2 < 1, LUNG, -850)
        put((x - side * 70) ** 2 + (y + 10) ** 2 < 4**2, MUSCLE, 40)  # a vessel
        put((np.hypot((x - side * 128) / 5, y / 9) < 1) & (np.abs(z % 30 - 15) < 7), BONE, 500)
    put(np.hypot(x, y + 40) < 9, AIRWAY, -1000)
    put(np.hypot(x, y - 68) < 20, BONE, 180)
    put(np.abs(np.hypot(x, y - 68) - 19) < 3, BONE, 700)
    put(np.hypot(x - 18, y - 30) < 13, CONTRAST, 280)
    hounsfield += np.random.default_rng(seed).normal(0, noise, shape)
    return np.rint(hounsfield).astype(np.int16), classes


def dice(a: np.ndarray, b: np.ndarray, value: int) -> float:
    return 2 * ((a == value) & (b == value)).sum() / ((a == value).sum() + (b == value).sum())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spacing", "noise"), [((3.0, 2.0, 2.0), 10.0), ((5.0, 1.0, 1.0), 60.0), ((2.0, 1.5, 1.5), 40.0)]
)
def test_a_chest_is_told_apart_at_any_spacing_and_dose(spacing: tuple[float, float, float], noise: float) -> None:
    hounsfield, classes = chest(spacing, noise)
    found = classify_tissue(hounsfield, spacing)
    assert found.dtype == np.uint8 and set(np.unique(found)) <= set(range(1, len(TISSUES) + 1))
    least = {OUTSIDE: 0.98, LUNG: 0.95, AIRWAY: 0.75, FAT: 0.85, MUSCLE: 0.9, CONTRAST: 0.85, BONE: 0.75}
    score = {TISSUES[value - 1]: dice(found, classes, value) for value in least}
    assert all(score[TISSUES[value - 1]] > floor for value, floor in least.items()), score


@pytest.mark.slow
def test_turning_the_axes_turns_the_classes() -> None:
    spacing = (4.0, 2.5, 2.5)
    hounsfield, _ = chest(spacing, 20.0)
    found = classify_tissue(hounsfield, spacing)
    for axes in ((0,), (1,), (2,), (0, 1, 2)):
        turned = np.flip(classify_tissue(np.ascontiguousarray(np.flip(hounsfield, axes)), spacing), axes)
        assert (turned == found).mean() > 0.9999, axes


@pytest.mark.slow
def test_the_sample_ct_holds_what_a_chest_holds_also_at_3_mm() -> None:
    volume = read_volume(resource_folder() / "SampleData" / "thorax_lidc0001.nrrd")
    grid = working_grid(volume, None)
    voxels, spacing = np.rint(to_grid(volume, grid)).astype(np.int16), np.array(grid.spacing[::-1])
    found = classify_tissue(voxels, tuple(spacing))
    liters = {name: float((found == n + 1).sum()) * spacing.prod() / 1e6 for n, name in enumerate(TISSUES)}
    assert 2 < liters["lung"] < 8 and 0.02 < liters["airway"] < 0.5 and 0.3 < liters["bone"] < 3, liters
    assert liters["fat"] > 2 and liters["muscle and soft tissue"] > 4 and 0.1 < liters["contrast-filled"] < 2, liters
    for value, low, high in ((LUNG, -950, -600), (FAT, -140, -60), (MUSCLE, 0, 80), (CONTRAST, 120, 350)):
        assert low < np.median(voxels[found == value]) < high, TISSUES[value - 1]

    step, origin = np.full(3, 3.0), (3.0 - spacing) / 2
    count = tuple(int(n) for n in np.floor(np.array(voxels.shape) * spacing / step))
    coarse = np.rint(resample_box(voxels, origin / spacing, step / spacing, count)).astype(np.int16)  # type: ignore[arg-type]
    index = [np.rint((origin[a] + step[a] * np.arange(count[a])) / spacing[a]).astype(int) for a in range(3)]
    nearest, again = found[np.ix_(*index)], classify_tissue(coarse, (3.0, 3.0, 3.0))
    assert (nearest == again).mean() > 0.93
    for value, floor in ((LUNG, 0.96), (FAT, 0.85), (MUSCLE, 0.85), (CONTRAST, 0.7), (BONE, 0.7)):
        assert dice(nearest, again, value) > floor, TISSUES[value - 1]


def test_a_crop_inside_the_body_has_lung_up_to_its_sides() -> None:
    spacing = (3.0, 2.0, 2.0)
    hounsfield, classes = chest(spacing, 20.0)
    box = (slice(5, 35), slice(35, 100), slice(72, 138))  # trachea, aorta, part of the spine, most of a lung
    found = classify_tissue(np.ascontiguousarray(hounsfield[box]), spacing)
    assert (found == OUTSIDE).mean() < 0.001
    assert dice(found, classes[box], LUNG) > 0.95 and dice(found, classes[box], AIRWAY) > 0.7


def test_a_body_without_anything_in_it_has_no_bone_and_no_lung() -> None:
    water = np.full((20, 40, 40), -1000, np.int16)
    water[:, 8:32, 8:32] = 0
    found = classify_tissue(water, (3.0, 3.0, 3.0))
    assert set(np.unique(found)) == {OUTSIDE, FAT, MUSCLE} or set(np.unique(found)) == {OUTSIDE, MUSCLE}
    assert (found[:, 10:30, 10:30] == MUSCLE).all()
    assert (classify_tissue(np.full((4, 4, 4), -1000, np.int16), (1.0, 1.0, 1.0)) > 0).all()


def test_channels_are_shares_of_the_classes_and_zero_where_unknown() -> None:
    tissue = torch.zeros(4, 4, 4, dtype=torch.uint8)
    tissue[:, :, 1] = LUNG
    tissue[:, :, 2:] = BONE
    channels = encode_tissue(tissue)
    assert channels.shape == (TISSUE_CHANNELS, 2, 2, 2)
    assert channels[LUNG - 1, :, :, 0].eq(0.5).all() and channels[BONE - 1, :, :, 1].eq(1).all()
    assert channels.sum() == 4 * 0.5 + 4, "unknown voxels count for no class"

    condition = Condition((1.5, 1.5, 1.5), tissue=tissue)
    encoded = condition.encode((4, 4, 4)).channels
    assert encoded.shape[1] == CONDITION_CHANNELS == TISSUE_AT.stop
    assert torch.equal(encoded[0, TISSUE_AT], channels) and not encoded[0, : TISSUE_AT.start].any()
    assert not condition.without().encode((4, 4, 4)).channels.any()
    assert condition.without(tissue=False).tissue is tissue
    part = condition.window((slice(0, 2), slice(0, 2), slice(2, 4)))
    assert part.tissue is not None and (part.tissue == BONE).all()
