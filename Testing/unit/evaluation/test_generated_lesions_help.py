"""Generated lesions of the few-case study take after real ones, and what is told of the arms is what they scored."""

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from MedDiffFMLib.datasets.datalist import Entry
from MedDiffFMLib.imaging.io import write_volume
from MedDiffFMLib.imaging.volume import Volume
from Testing.experiments import generated_lesions_help as study
from Testing.experiments import lesion_maker

SPACING = (1.5, 1.5, 3.0)
"""(i, j, k), mm."""


def thigh(contrast, roughness, noise=12.0):
    """Muscle of 50 HU with a ball in it that differs from it by so much, and the ball; fat far from it."""
    rng, shape = np.random.default_rng(3), (24, 48, 48)
    k, j, i = (n * edge for n, edge in zip(np.indices(shape), SPACING[::-1], strict=True))
    ball = (k - 36) ** 2 + (j - 36) ** 2 + (i - 36) ** 2 <= 18**2
    voxels = np.where(j > 66, -100.0, 50.0) + np.where(ball, contrast, 0)
    voxels += rng.normal(0, noise, shape) * np.where(ball, roughness, 1)
    return Volume(np.round(voxels).astype(np.int16), np.diag([*SPACING, 1.0])), ball


def test_the_look_of_a_lesion_is_measured_against_its_muscle(tmp_path):
    volume, ball = thigh(-15.0, 0.5)
    write_volume(volume, tmp_path / "ct.nrrd")
    write_volume(Volume(ball.astype(np.uint8), volume.ijk_to_ras, "mask"), tmp_path / "mask.nrrd")
    look = lesion_maker.look_of(
        Entry("a", "training", tmp_path / "ct.nrrd", "a", None, {"label": tmp_path / "mask.nrrd"})
    )
    assert look.diameter == pytest.approx(36, rel=0.03)
    assert look.contrast == pytest.approx(-15, abs=1) and look.roughness == pytest.approx(0.5, abs=0.05)
    wishes = lesion_maker.density_like(volume, ball, look)
    assert wishes["mean"] == pytest.approx(35, abs=1) and wishes["spread"] == pytest.approx(6, abs=0.6)


def test_a_lesion_in_fat_has_no_muscle_to_be_measured_against():
    volume, ball = thigh(0.0, 1.0)
    fat = Volume(np.full_like(volume.voxels, -100), volume.ijk_to_ras)
    assert lesion_maker.muscle_around(fat, ball) is None
    with pytest.raises(lesion_maker.InputError, match="no muscle"):
        lesion_maker.density_like(fat, ball, lesion_maker.Look(30, -10, 1))


def test_a_regrown_lesion_holds_the_old_one_and_stays_near_it_and_in_its_room():
    _, ball = thigh(0.0, 1.0)
    edges, room = np.array(SPACING[::-1]), np.ones_like(ball)
    room[:, :, 30:] = False
    grown, other = (lesion_maker.regrown(ball, room, edges, np.random.default_rng(n)) for n in (1, 2))
    assert grown[ball].all() and not (grown & ~ball & ~room).any() and (grown != other).any()
    assert 1.05 < grown.sum() / ball.sum() < 2
    assert distance_transform_edt(~ball, sampling=edges)[grown].max() <= lesion_maker.GROWTH * 36 * 1.03


def test_the_table_pairs_patients_and_numbers_of_real_cases():
    row = {"network": "head", "split": "validation", "steps": 9, "added": 0, "place": ""}
    rows = []
    for real, alone, gain in ((1, 0.2, 0.3), (3, 0.5, -0.1)):
        for case, seed in ((c, s) for c in "abc" for s in range(2)):
            one = row | {"real": real, "case": case, "seed": seed}
            rows.append(one | {"arm": study.REAL, "dice": alone + 0.1 * seed})
            rows.append(one | {"arm": study.ADDED, "added": 4, "place": "own", "dice": alone + 0.1 * seed + gain})
    lines = study.table(rows, "validation").splitlines()[2:]
    assert len(lines) == 4 and study.table(rows, "test").count("\n") == 2
    assert "+0.300 [+0.300, +0.300] | +0.300, +0.300" in lines[1] and "0.550 [" in lines[1]
    assert "-0.100 [-0.100, -0.100]" in lines[3] and "(4, own)" in lines[3]
