"""Facts measured in bodies whose every measure is known, however the voxels are stored; nothing made up elsewhere."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

import MedDiffFMLib as mdf
from MedDiffFMLib.multimodal.facts.fact import Fact
from MedDiffFMLib.multimodal.facts.kinds import COARSE, CROPPED, CUT, NO_LUNG, TOO_LITTLE, WHOLE
from MedDiffFMLib.multimodal.facts.measure import Measured, measure

SPACING = (3.0, 2.5, 2.5)
SHAPE = (100, 96, 144)
NODULE_MM, NODULE_HU = 14.0, 40
LUNG_AXES = {"right": (110.0, 60.0, 52.0), "left": (110.0, 60.0, 44.0)}
"""Half axes along S, A and R in mm."""


def centers() -> tuple[np.ndarray, ...]:
    """Mm to superior, posterior and left of the middle."""
    k, j, i = (step * (np.arange(n) - (n - 1) / 2) for step, n in zip(SPACING, SHAPE, strict=True))
    return k[:, None, None], j[None, :, None], i[None, None]


def ellipsoid(middle: tuple[float, ...], half: tuple[float, ...]) -> np.ndarray:
    return sum(((x - m) / h) ** 2 for x, m, h in zip(centers(), middle, half, strict=True)) < 1


@pytest.fixture(scope="module")
def chest() -> mdf.Volume:
    """Trunk of 300 x 200 mm with a rim of fat, two lungs, a spine, and a nodule high in the right lung."""
    hounsfield = np.full(SHAPE, -1000.0)
    hounsfield[np.broadcast_to(ellipsoid((0, 0, 0), (1e6, 100, 150)), SHAPE)] = -100
    hounsfield[np.broadcast_to(ellipsoid((0, 0, 0), (1e6, 85, 130)), SHAPE)] = 50
    hounsfield[np.broadcast_to(ellipsoid((0, 58, 0), (1e6, 18, 20)), SHAPE)] = 700
    hounsfield[np.broadcast_to(ellipsoid((0, 58, 0), (1e6, 13, 15)), SHAPE)] = 180
    for side, middle in (("right", -65.0), ("left", 65.0)):
        hounsfield[ellipsoid((0, 0, middle), LUNG_AXES[side])] = -860
    hounsfield[ellipsoid((60, -5, -65), (NODULE_MM / 2,) * 3)] = NODULE_HU
    noise = np.random.default_rng(3).normal(0, 8, SHAPE)
    k, j, i = SPACING
    matrix = np.diag([-i, -j, k, 1.0])
    matrix[:3, 3] = -matrix[:3, :3] @ ((np.array(SHAPE[::-1]) - 1) / 2)
    return mdf.Volume(np.rint(hounsfield + noise).astype(np.int16), matrix)


@pytest.fixture(scope="module")
def measured(chest: mdf.Volume) -> Measured:
    return measure(chest)


def by_kind(measured: Measured) -> dict[str, list[Fact]]:
    found: dict[str, list[Fact]] = {}
    for fact in measured.facts:
        found.setdefault(fact.statement.kind, []).append(fact)
    return found


def one(measured: Measured, kind: str) -> Fact:
    (fact,) = by_kind(measured)[kind]
    return fact


def test_sizes_and_volumes_are_those_of_the_phantom(measured: Measured) -> None:
    def value(kind: str, slot: str) -> float:
        return float(one(measured, kind).statement.values[slot])

    assert value("slice_spacing", "spacing") == 3.0 and value("pixel_size", "edge") == 2.5
    assert value("body_width", "width") == pytest.approx(300, abs=5)
    assert value("body_depth", "depth") == pytest.approx(200, abs=5)
    assert value("body_area", "area") == pytest.approx(np.pi * 15 * 10, rel=0.01)
    assert value("height", "height") == 300
    assert value("symmetry", "share") >= 98
    assert one(measured, "noise").statement.unknown == COARSE
    for side, half in LUNG_AXES.items():
        assert value(f"lung_{side}", "volume") == pytest.approx(4 / 3 * np.pi * np.prod(half) / 1000, rel=0.03)
    assert value("lung_density", "hu") == pytest.approx(-860, abs=10)
    assert one(measured, "lungs").statement.values["whole"] == WHOLE
    body, core = np.pi * 150 * 100, np.pi * 130 * 85
    assert value("fat", "share") == pytest.approx(100 * (body - core) / body, abs=2)
    assert value("bone", "volume") == pytest.approx(np.pi * 18 * 20 * 300 / 1000, rel=0.15)


def test_the_nodule_and_its_evidence(chest: mdf.Volume, measured: Measured) -> None:
    nodule = one(measured, "nodule")
    said, evidence = nodule.statement.values, nodule.evidence
    assert (said["side"], said["third"]) == ("right", "upper third")
    assert said["size"] == pytest.approx(NODULE_MM, abs=1.5)
    assert evidence is not None and evidence.point == pytest.approx((65, 5, 60), abs=1.5)
    value = next(row["value"] for row in measured.labels if row["name"] == evidence.mask)
    marked = measured.evidence == value
    assert marked.sum() * chest.voxel_volume == pytest.approx(np.pi / 6 * NODULE_MM**3, rel=0.35)
    assert chest.voxels[marked].mean() > -300


def test_every_sentence_has_evidence_in_the_scan(chest: mdf.Volume, measured: Measured) -> None:
    to_index = np.linalg.inv(chest.ijk_to_ras)
    names = {row["name"] for row in measured.labels}
    for fact in measured.facts:
        if fact.evidence is None:
            continue
        index = (to_index @ [*fact.evidence.point, 1.0])[:3]
        assert (index > -1).all() and (index < np.array(SHAPE[::-1])).all(), fact
        assert not fact.evidence.mask or fact.evidence.mask in {*names, "lungs"}, fact
    assert measured.evidence.shape == chest.voxels.shape and measured.evidence.dtype == np.uint8


@pytest.mark.slow
def test_facts_do_not_depend_on_how_voxels_are_stored(chest: mdf.Volume, measured: Measured) -> None:
    for order in list(permutations(range(3)))[1::2]:
        index = np.eye(4)
        index[:3, :3] = np.eye(3)[:, order]
        voxels = chest.voxels.transpose([2 - order[2 - axis] for axis in range(3)])[::-1]
        index[:3, 3] += index[:3, 2] * (len(voxels) - 1)
        index[:3, 2] *= -1
        other = measure(mdf.Volume(np.ascontiguousarray(voxels), chest.ijk_to_ras @ index))
        assert [fact.statement for fact in other.facts] == [fact.statement for fact in measured.facts], order


@pytest.mark.slow
def test_cut_lungs_and_cropped_bodies_are_not_measured_as_whole(chest: mdf.Volume) -> None:
    upper = measure(mdf.Volume(chest.voxels[50:], chest.ijk_to_ras))
    assert one(upper, "lungs").statement.values["whole"] == CUT
    assert one(upper, "low_attenuation").statement.unknown
    assert {fact.statement.values["third"] for fact in by_kind(upper).get("nodule", [])} <= {"shown part"}
    inside = measure(mdf.Volume(np.ascontiguousarray(chest.voxels[:, 16:-16, 32:-32]), chest.ijk_to_ras))
    assert one(inside, "body_width").statement.unknown == CROPPED
    assert "lung_right" not in by_kind(inside), "without the air around, right and left are not told"


def test_what_is_not_shown_is_said_not_to_be_assessed(chest: mdf.Volume) -> None:
    """Air around a small bottle of water."""
    voxels = np.full((40, 60, 60), -1000, np.int16)
    voxels[10:30, 27:33, 27:33] = 0
    bottle = measure(mdf.Volume(voxels, chest.ijk_to_ras))
    unknown = {fact.statement.kind: fact.statement.unknown for fact in bottle.facts if fact.statement.unknown}
    assert {"region", "reach", "contrast", "fat", "bone", "body_width", "lungs", "low_attenuation"} <= set(unknown)
    assert unknown["lungs"] == NO_LUNG and unknown["region"] == TOO_LITTLE
    written = {fact.statement.kind for fact in bottle.facts} - set(unknown)
    assert written <= {"slices", "slice_spacing", "pixel_size", "field_of_view"}


@pytest.mark.slow
def test_marked_places_and_organs(chest: mdf.Volume) -> None:
    mask = ellipsoid((60, -5, -65), (10, 10, 10)) | ellipsoid((0, -70, 60), (5, 5, 5))
    anatomy = np.zeros(SHAPE, np.uint8)
    anatomy[40:60, 70:80, 60:80] = 5  # liver
    anatomy[0:30, 50:60, 20:30] = 1  # spleen, which the lower end cuts
    found = by_kind(measure(chest, mask, anatomy))
    (in_lung,) = found["lung_finding"]
    assert in_lung.statement.values["size"] == pytest.approx(20, abs=0.5)
    assert (in_lung.statement.values["side"], in_lung.statement.values["third"]) == ("right", "upper third")
    (in_wall,) = found["finding"]
    assert (in_wall.statement.values["side"], in_wall.statement.values["depth"]) == ("left", "front")
    organs = {fact.statement.values["organ"]: fact.statement.values for fact in found["organ"]}
    assert organs["liver"]["volume"] == pytest.approx(20 * 10 * 20 * chest.voxel_volume / 1000, abs=0.06)
    assert (organs["liver"]["whole"], organs["spleen"]["whole"]) == (WHOLE, CUT)
