"""The same CT, stored with its axes in any of 48 orders, gives the same result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest

from MedDiffFMLib.imaging.axis_order import AxisOrder
from MedDiffFMLib.imaging.volume import Volume, check_ct, in_patient_axes
from MedDiffFMLib.models.checkpoint import FoundationModel, load_model
from MedDiffFMLib.preprocessing.body_coordinates import locate
from MedDiffFMLib.preprocessing.body_localization import localize_body
from MedDiffFMLib.tasks.anomaly.spec import Anomaly
from MedDiffFMLib.tasks.base import Case, Run, Task, TaskResult
from MedDiffFMLib.tasks.deblur.spec import Deblur
from MedDiffFMLib.tasks.denoise.spec import Denoise
from MedDiffFMLib.tasks.generate_lesion.spec import GenerateLesion
from MedDiffFMLib.tasks.inpaint.spec import Inpaint
from MedDiffFMLib.tasks.radiograph.spec import Radiograph
from MedDiffFMLib.tasks.super_resolve.spec import SuperResolve
from MedDiffFMLib.tasks.synthesize.spec import Synthesize
from MedDiffFMLib.training.pretrain.calibrate import CalibrationConfig, calibrate
from Testing.unit.tasks.test_generate_lesion import control as control

ORDERS = [AxisOrder(axes, flips) for axes, flips in product(permutations(range(3)), product((False, True), repeat=3))]  # type: ignore[arg-type]
FEW = (ORDERS[7], ORDERS[12], ORDERS[45])
SHAPE = (21, 30, 27)


def stored(volume: Volume, order: AxisOrder) -> Volume:
    """The same voxels in the same places, with axes that :class:`AxisOrder` would bring back."""
    shape = tuple(volume.voxels.shape[n] for n in np.argsort(order.axes))
    return Volume(
        np.ascontiguousarray(order.turn_back(volume.voxels)),
        volume.ijk_to_ras @ np.linalg.inv(order.matrix(shape)),
        volume.modality,
    )


@pytest.fixture(scope="module")
def scan(small_ct: Volume) -> Volume:
    """A part of the CT with slices of another thickness, sizes that no step divides, slightly oblique."""
    angle = np.deg2rad(4)
    tilt = np.eye(4)
    tilt[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    k, j, i = SHAPE
    matrix = tilt @ small_ct.ijk_to_ras @ np.diag([0.9, 0.9, 1.6, 1.0])
    return Volume(np.ascontiguousarray(small_ct.voxels[10 : 10 + k, 8 : 8 + j, 4 : 4 + i]), matrix)


@pytest.fixture(scope="module")
def model(tiny_model_file: Path) -> FoundationModel:
    return load_model(str(tiny_model_file), device="cpu", precision="float32")


@pytest.fixture(scope="module")
def calibrated(model: FoundationModel, small_ct: Volume) -> FoundationModel:
    config = CalibrationConfig(spacing=6.0, edges=(24.0,))
    return replace(model, calibration=calibrate(model.engine, [(small_ct, None, None)], config))


def agrees(task: Task, case: Case, run: Run, orders: Sequence[AxisOrder]) -> None:
    """Fails unless every order gives what the first gives, each voxel in its place, up to rounding."""
    assert case.volume is not None
    expected = task.run(case, run)
    for order in orders:
        volume = stored(case.volume, order)
        mask, anatomy = (None if a is None else order.turn_back(a) for a in (case.mask, case.anatomy))
        result = task.run(Case(volume, mask, anatomy), run)
        assert result.facts.get("region") == expected.facts.get("region")
        for name in expected.volumes:
            _same_voxels(name, expected, case.volume, result, volume)
        assert result.tables == expected.tables


def _same_voxels(name: str, expected: TaskResult, first: Volume, found: TaskResult, second: Volume) -> None:
    whole, other = (
        Volume(result.volumes[name], result.ijk_to_ras.get(name, volume.ijk_to_ras))
        for result, volume in ((expected, first), (found, second))
    )
    if name not in expected.ijk_to_ras:
        assert other.voxels.shape == second.voxels.shape, "a result lies on its input's grid as that is stored"
    if whole.voxels.shape[0] > 1:  # a plane is not turned
        other = in_patient_axes(other)
    assert np.allclose(other.ijk_to_ras, whole.ijk_to_ras, atol=1e-6)
    step = 1 if whole.voxels.dtype.kind in "iu" else 1e-2
    assert np.abs(other.voxels.astype(float) - whole.voxels).max() <= step, name


@pytest.mark.slow
def test_checks_and_places_see_the_same_scan(scan: Volume) -> None:
    said, position, box = check_ct(scan), locate(scan), localize_body(scan)
    for order in ORDERS:
        other = stored(scan, order)
        assert AxisOrder.of(other.ijk_to_ras) == order
        assert len(check_ct(other)) == len(said)
        found, around = locate(other), localize_body(other)
        assert np.allclose(found.offset, position.offset, atol=1e-6)
        assert np.allclose(found.slope, position.slope, atol=1e-9)
        assert np.allclose(around.low, box.low, atol=1e-6) and np.allclose(around.high, box.high, atol=1e-6)
        assert around.guessed == box.guessed


def test_recipes_see_one_array(scan: Volume) -> None:
    """Bit for bit, so that what the tests below show of some orders holds for all."""
    mask = scan.voxels > 0
    for order in ORDERS:
        seen = Case(stored(scan, order), order.turn_back(mask)).in_patient_axes()
        assert np.array_equal(seen.scan.voxels, scan.voxels) and np.array_equal(seen.mask, mask)
        assert np.allclose(seen.scan.ijk_to_ras, scan.ijk_to_ras, rtol=0, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["detector", "cubes"])
def test_anomaly(method: str, calibrated: FoundationModel, scan: Volume) -> None:
    agrees(Anomaly(threshold=1.0, method=method), Case(scan), Run(calibrated), FEW)


@pytest.mark.slow
@pytest.mark.parametrize(
    "task",
    [Denoise(noise=20), Deblur(noise=20.0), SuperResolve(control="none"), SuperResolve(mode="isotropic", steps=2),
     Radiograph(pixels=32, views="ap, lat"), Inpaint(steps=2, samples=1)],
    ids=lambda task: task.name,
)  # fmt: skip
def test_other_tasks(task: Task, model: FoundationModel, scan: Volume) -> None:
    mask = np.zeros(scan.voxels.shape, bool)
    mask[8:13, 12:18, 5:12] = True
    agrees(task, Case(scan, mask if task.name == "inpaint" else None), Run(model, seed=3), FEW)


@pytest.mark.slow
def test_generate_lesion(model: FoundationModel, control: Path, scan: Volume) -> None:
    mask = np.zeros(scan.voxels.shape, bool)
    mask[8:13, 12:18, 5:12] = True
    agrees(GenerateLesion(mean=60.0, steps=2, control=str(control)), Case(scan, mask), Run(model), FEW)


@pytest.mark.slow
def test_synthesize_on_an_organ_map(model: FoundationModel, scan: Volume) -> None:
    organs = np.where(scan.voxels > -300, 118, 0).astype(np.uint8)
    organs[5:15, 10:20, 4:10] = 5
    labels = Volume(organs, scan.ijk_to_ras, "mask")
    agrees(
        Synthesize(whole_steps=2, middle_steps=1, native_steps=1), Case(labels), Run(model, seed=1, region="chest"), FEW
    )
