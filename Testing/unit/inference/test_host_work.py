"""What runs beside the network gives what the plain formula gives, and holds few bytes a voxel."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, sparse
from scipy.sparse.linalg import spsolve

from MedDiffFMLib.conditioning.condition import Condition
from MedDiffFMLib.conditioning.region import body_mask, grown, shrunk
from MedDiffFMLib.imaging.biharmonic import biharmonic_response
from MedDiffFMLib.imaging.grid import from_grid, to_grid, working_grid
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.models.checkpoint import load_model
from MedDiffFMLib.preprocessing import noise_estimate
from MedDiffFMLib.preprocessing.working_image import changed, working_image
from MedDiffFMLib.tasks.anomaly import z_score as residual
from MedDiffFMLib.tasks.anomaly.cube_lattice import MARGIN, biharmonic_lattice
from MedDiffFMLib.tasks.denoise.coarse_to_fine import denoise_coarse_to_fine

SPACING = (2.0, 3.0, 2.5)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.5, 8.0), st.tuples(*[st.floats(0.7, 5.0)] * 3), st.floats(0.02, 0.98), st.integers(0, 99))
def test_masks_grow_and_shrink_as_the_distance_says(
    millimeters: float, spacing: tuple[float, float, float], share: float, seed: int
) -> None:
    mask = np.random.default_rng(seed).random((9, 12, 11)) < share
    if mask.all() or not mask.any():
        return
    away, deep = (ndimage.distance_transform_edt(part, sampling=spacing) for part in (~mask, mask))
    assert np.array_equal(grown(mask, millimeters, spacing), away <= millimeters)
    assert np.array_equal(shrunk(mask, millimeters, spacing), deep > millimeters)


def test_the_body_is_as_filled_slice_by_slice(small_ct: Volume) -> None:
    dense = ndimage.binary_opening(small_ct.voxels > -500, np.ones((1, 3, 3)))
    labels, _ = ndimage.label(dense)
    body = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    assert np.array_equal(body_mask(small_ct.voxels), [ndimage.binary_fill_holes(plane) for plane in body])


def full_laplacian(shape: tuple[int, ...], edges: tuple[float, ...]) -> sparse.csr_array:
    """Of every voxel, reflecting at the borders, in units of the smallest edge."""
    total = sparse.csr_array((int(np.prod(shape)),) * 2)
    for axis, (n, edge) in enumerate(zip(shape, edges, strict=True)):
        line = sparse.diags_array([1.0, -2.0, 1.0], offsets=[-1, 0, 1], shape=(n, n)).tolil()
        line[0, 0] = line[-1, -1] = -1.0
        sides = (sparse.eye_array(int(np.prod(part))) for part in (shape[:axis], shape[axis + 1 :]))
        total += sparse.kron(sparse.kron(next(sides), line), next(sides)) * (min(edges) / edge) ** 2
    return sparse.csr_array(total)


def test_the_bending_system_is_that_of_the_whole_box() -> None:
    hole = np.random.default_rng(0).random((6, 7, 8)) < 0.1
    hole[0, 0, :3] = True
    matrix, right = biharmonic_response(hole, (2.5, 3.0, 2.0))
    laplacian = full_laplacian(hole.shape, (2.0, 3.0, 2.5))
    inside, outside = laplacian[:, hole.ravel()], laplacian[:, ~hole.ravel()]
    assert np.array_equal(matrix.toarray(), (inside.T @ inside).toarray())
    assert np.array_equal(right.toarray(), -(inside.T @ outside).toarray())


def test_the_parts_of_a_cube_bend_as_the_cube() -> None:
    """Split into even and odd parts along each axis, or solved as a whole: the same surface."""
    edge, first = (4, 8, 6), (6, 9, 7)
    image = np.random.default_rng(3).uniform(-1, 1, (20, 30, 24)).astype(np.float32)
    block = tuple(slice(f - MARGIN, f + e + MARGIN) for f, e in zip(first, edge, strict=True))
    inside = np.zeros([e + 2 * MARGIN for e in edge], bool)
    inside[MARGIN:-MARGIN, MARGIN:-MARGIN, MARGIN:-MARGIN] = True
    matrix, right = biharmonic_response(inside, SPACING[::-1])
    expected = spsolve(matrix, right @ image[block][~inside].astype(float))
    assert np.abs(biharmonic_lattice(image, edge, first, SPACING)[block][inside] - expected).max() < 2e-6


@pytest.mark.parametrize("turn", [np.eye(4), np.diag([1.0, -1.0, -1.0, 1.0])])
@pytest.mark.parametrize("spacing", [3.0, 0.9, None])
def test_some_planes_are_those_of_the_whole(small_ct: Volume, turn: np.ndarray, spacing: float | None) -> None:
    volume = Volume(small_ct.voxels, turn @ small_ct.ijk_to_ras @ np.diag([0.7, 0.6, 0.9, 1.0]))
    grid = working_grid(volume, spacing)
    values = to_grid(volume, grid)
    values[:, :7] = values[:, :, -9:] = values[3:6] = 0  # zeros are passed over; they and what they touch must be right
    whole = from_grid(values, grid, volume)
    shifted = from_grid(values + 1, grid, volume)  # without any zeros
    assert np.allclose(whole, shifted - 1, atol=1e-3) and (whole == 0).any()
    parts = [from_grid(values, grid, volume, planes=slice(k, min(k + 7, 40))) for k in range(0, 40, 7)]
    assert np.array_equal(np.concatenate(parts), whole)


def test_a_change_slab_by_slab_is_the_change_of_the_whole(small_ct: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("MedDiffFMLib.preprocessing.working_image.SLAB_VOXELS", 10_000)
    image = working_image(small_ct, 4.0)
    change = np.random.default_rng(0).normal(0, 30, image.shape).astype(np.float32)
    change[:4] = 0
    expected = np.rint(small_ct.voxels + image.on_input(change)).astype(np.int16)
    expected = np.where(np.abs(small_ct.voxels) <= 1000, expected, small_ct.voxels)
    assert np.array_equal(changed(small_ct, image.slabs_on_input(change)), expected)


def test_tissue_does_not_depend_on_the_planes_looked_at_together(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = 400 * ndimage.gaussian_filter(np.random.default_rng(1).standard_normal((13, 20, 22)), 2)
    slopes = np.gradient(ndimage.gaussian_filter(expected, [residual.EDGE_WIDTH_MM / s for s in SPACING]), *SPACING)
    steep = np.digitize(np.sqrt(sum(s**2 for s in slopes)), residual.EDGE_LIMITS_HU_PER_MM)
    whole = 3 * np.digitize(expected, residual.TISSUE_EDGES_HU) + steep
    for planes in (1, 5, 100):
        monkeypatch.setattr(residual, "SLAB", planes)
        assert np.array_equal(residual.tissue_of(expected, SPACING), whole)


def test_noise_is_estimated_from_all_soft_tissue(small_ct: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the box around soft tissue is filtered; slices without any give nothing."""
    values = np.concatenate([np.full((3, 48, 44), -1000, np.int16), small_ct.voxels]).astype(np.float32)
    size = (1, noise_estimate.WINDOW, noise_estimate.WINDOW)
    mean = ndimage.uniform_filter(values, size)
    soft = ndimage.minimum_filter((values > -300) & (values < 300), size) & (np.abs(mean) < 150)
    variance = ndimage.uniform_filter(values * values, size) - mean * mean
    assert np.array_equal(noise_estimate._look(values, len(values)).local, np.sqrt(np.maximum(variance, 0)[soft]))
    nothing = noise_estimate._look(values[:3], 3)
    assert all(part.size == 0 for part in (nothing.local, nothing.axial, nothing.mixed, *nothing.tiles))
    whole = noise_estimate.estimate_noise(values)
    monkeypatch.setattr(noise_estimate, "RUN", 3)
    assert noise_estimate.estimate_noise(values) == pytest.approx(whole, rel=1e-6)
    monkeypatch.setattr(noise_estimate, "MOST", values.size // 2)
    assert noise_estimate.estimate_noise(values) == pytest.approx(whole, rel=0.1)


def test_passes_leave_their_input_alone(tiny_model_file: Path) -> None:
    engine = load_model(str(tiny_model_file), device="cpu", precision="float32").engine
    noisy = 0.1 * torch.randn(1, 1, 11, 21, 17)
    before = noisy.clone()
    denoise_coarse_to_fine(engine, noisy, 0.05, Condition((2.0, 1.0, 1.0)))
    assert torch.equal(noisy, before)


CHILD = """
import ctypes, json, sys, time
import numpy as np, torch
from types import SimpleNamespace
from MedDiffFMLib.inference import sliding_window
from MedDiffFMLib.inference.engine import Engine
from MedDiffFMLib.preprocessing import working_image
from MedDiffFMLib.preprocessing import noise_estimate
from MedDiffFMLib.tasks.base import Case, Run
from MedDiffFMLib.tasks.denoise import blocks, supervised
from MedDiffFMLib.tasks.registry import TASKS
from MedDiffFMLib.tasks.anomaly import findings
from MedDiffFMLib.tasks.anomaly.z_score import CLASSES
from MedDiffFMLib.imaging.volume import Volume

def memory(name):
    return int(open("/proc/self/status").read().split(name + ":")[1].split()[0]) * 1024

class Free(torch.nn.Module):
    # The first guess where there is one, else nine tenths of the input.
    network = SimpleNamespace(config=SimpleNamespace(divisor=4))
    def forward(self, x, sigma, condition):
        return 0.9 * x if condition.expected is None else condition.expected

def ct(slices, edge):
    voxels = np.random.default_rng(0).normal(40, 20, (slices, edge, edge)).astype(np.int16)
    voxels[:, :, :4] = -1000
    voxels[20:25, 60:70, 60:70] = 400
    return Volume(voxels, np.diag([-1.5, -1.5, 2.5, 1.0]))

torch.set_num_threads(1)
# What is bounded whatever the volume is small here, so that a small volume tells what grows with it.
sliding_window.KEPT_CONDITIONS, noise_estimate.MOST, working_image.SLAB_VOXELS = 0, 200_000, 200_000
blocks.BAND, blocks.MOST_BLOCKS = 2, 256
findings.SLAB_VOXELS, findings.LISTED_VOXELS = 200_000, 50_000
supervised.LONGEST, supervised.AT_ONCE = 64, 50_000
figures = {"all": {"centre": [0.0] * CLASSES, "spread": [30.0] * CLASSES}}
calibration = {"spacing": 3.0, "sets": 1, "smoothing": 3.0, "levels": {"36": figures, "24": figures}}
model = SimpleNamespace(engine=Engine(Free(), "cpu", "float32", window=32), calibration=calibration, name="free")
found = {}
for name, sizes in (("anomaly", ((32, 128), (96, 128))), ("denoise", ((32, 144), (96, 144)))):
    task, run = TASKS[name](), Run(model)
    task.run(Case(ct(28, 96)), run)  # what is imported or kept is there from now on
    for size in sizes:
        volume = ct(*size)
        ctypes.CDLL(None).malloc_trim(0)  # or what an earlier run left serves this one, and does not count
        open("/proc/self/clear_refs", "w").write("5")
        before, start = memory("VmRSS"), time.process_time()
        result = task.run(Case(volume), run)
        took = time.process_time() - start
        found.setdefault(name, []).append([(memory("VmHWM") - before) / volume.voxels.size, took])
        del result
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells a process's peak memory")
def test_few_bytes_and_even_time_a_voxel() -> None:
    """Of whole tasks around a network that costs nothing; results and windows are counted, the input is not.

    Of noise most is above the anomaly map's threshold, where a voxel is numbered, so that its list takes what it can.
    The small denoiser is not free, but its windows are bounded; of its result two bytes a voxel are kept. Time: three
    times the voxels may take four and a half times as long, where what grows as their square takes nine. Bytes vary by
    four between runs, with what the allocator keeps.
    """
    environment = {"PYTHONPATH": str(Path(__file__).parents[3]), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    environment |= {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}  # freed is given back
    done = subprocess.run([sys.executable, "-c", CHILD], env=environment, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    for task, limit in (("anomaly", 29), ("denoise", 26)):
        (_, small_time), (large_bytes, large_time) = found[task]
        assert large_bytes < limit, (task, found)
        assert large_time < 4.5 * small_time, (task, found)
