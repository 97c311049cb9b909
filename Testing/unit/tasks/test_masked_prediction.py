"""The anomaly map judges a voxel without having seen it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from MedDiffFMLib.core.errors import ModelError
from MedDiffFMLib.imaging.biharmonic import biharmonic_interpolation
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.models.checkpoint import load_model
from MedDiffFMLib.preprocessing.working_image import working_image
from MedDiffFMLib.tasks.anomaly import cube_lattice
from MedDiffFMLib.tasks.anomaly.cube_lattice import biharmonic_lattice, lattice_lines
from MedDiffFMLib.tasks.anomaly.masked_prediction import MaskedPrediction, predict_masked
from MedDiffFMLib.tasks.anomaly.z_score import CLASSES, z_score
from MedDiffFMLib.training.pretrain.calibrate import CalibrationConfig, calibrate

EDGE = (6, 4, 8)


@pytest.fixture(scope="module")
def model(tiny_model_file):
    return load_model(str(tiny_model_file), device="cpu", precision="float32")


def firsts() -> list[tuple[int, ...]]:
    """Where the first cube of each of the eight lattices of a set begins."""
    return [tuple(c * e for c, e in zip(corner, EDGE, strict=True)) for corner in np.ndindex(2, 2, 2)]


def lattice_depth(shape: tuple[int, int, int], edge: tuple[int, int, int], first: tuple[int, ...]) -> np.ndarray:
    """Depth of each voxel in its cube."""
    k, j, i = lattice_lines(shape, edge, first)
    return k[:, None, None] * j[:, None] * i


def test_eight_lattices_hide_every_voxel_once() -> None:
    hidden = sum((lattice_depth((13, 17, 22), EDGE, first) > 0).astype(int) for first in firsts())
    assert (hidden == 1).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 11), st.integers(0, 7), st.integers(0, 15), st.integers(0, 99))
def test_content_of_the_cubes_changes_nothing(k: int, j: int, i: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.standard_normal((20, 16, 26)).astype(np.float32)
    hole = lattice_depth(image.shape, EDGE, (k, j, i)) > 0
    other = np.where(hole, 100 * rng.standard_normal(image.shape), image).astype(np.float32)
    filled = biharmonic_lattice(image, EDGE, (k, j, i), (3.0, 3.0, 3.0))
    # Reflection beyond the borders may show a cube there its own mirror image; inner cubes must not be seen at all.
    inner = np.zeros_like(hole)
    inner[6:-6, 4:-4, 8:-8] = True
    assert np.array_equal(filled[~hole], image[~hole])
    assert np.allclose(filled[inner & hole], biharmonic_lattice(other, EDGE, (k, j, i), (3.0, 3.0, 3.0))[inner & hole])


def test_all_cubes_at_once_are_bent_as_one_by_one() -> None:
    rng = np.random.default_rng(4)
    image = rng.uniform(-1, 1, (30, 20, 34)).astype(np.float32)
    first, spacing = (8, 5, 9), (2.0, 3.0, 2.5)
    hole = np.zeros(image.shape, dtype=bool)
    hole[8:14, 5:9, 9:17] = True
    alone = biharmonic_interpolation(image, hole, np.zeros_like(image), spacing[::-1], iterations=2000)
    together = biharmonic_lattice(image, EDGE, first, spacing)
    inside = hole & (np.abs(alone) < 0.7)  # biharmonic_interpolation stays within the rim's range
    assert inside.sum() > 50 and np.abs(alone - together)[inside].max() < 0.01


@pytest.mark.slow
def test_a_lesion_in_a_cube_does_not_change_what_is_expected_there(model, small_ct: Volume) -> None:
    image = working_image(small_ct, 3.0)
    before = predict_masked(image, model.engine, 12.0, smoothing=0.0, sets=1)
    k, j, i = 8, 16, 8  # a cube of one of the eight lattices, in the body
    hidden = image.hounsfield.copy()
    hidden[k + 1 : k + 3, j + 1 : j + 3, i + 1 : i + 3] += 400
    changed = type(image)(image.volume, image.grid, hidden, image.condition)
    after = predict_masked(changed, model.engine, 12.0, smoothing=0.0, sets=1)
    cube = (slice(k, k + 4), slice(j, j + 4), slice(i, i + 4))
    assert np.abs(after.expected[cube] - before.expected[cube]).max() < 1.0
    rise = (after.residual - before.residual)[k + 1 : k + 3, j + 1 : j + 3, i + 1 : i + 3]
    assert rise.mean() == pytest.approx(
        np.clip(hidden, -1000, 1000)[k + 1, j + 1, i + 1] - image.hounsfield[k + 1, j + 1, i + 1], abs=5
    )


@pytest.mark.slow
def test_regions_have_figures_of_their_own_where_there_are_enough_cases(model, small_ct: Volume) -> None:
    config = CalibrationConfig(spacing=4.0, edges=(16.0,))
    cases = [(small_ct, None, "chest")] * 3 + [(small_ct, None, "pelvis")]
    figures = calibrate(model.engine, cases, config)
    assert set(figures["levels"]["16"]) == {"all", "chest"} and figures["cases"] == {"all": 4, "chest": 3}
    chest, every = (sum(figures["levels"]["16"][group]["voxels"]) for group in ("chest", "all"))
    assert every == pytest.approx(4 / 3 * chest, rel=0.01)


def test_the_region_decides_which_figures_count() -> None:
    flat = np.full((6, 6, 6), 40.0, np.float32)
    found = MaskedPrediction(24.0, flat, np.full_like(flat, 30.0))
    levels = {
        "24": {
            "all": {"centre": [0.0] * CLASSES, "spread": [10.0] * CLASSES},
            "chest": {"centre": [10.0] * CLASSES, "spread": [20.0] * CLASSES},
        }
    }
    spacing = (3.0, 3.0, 3.0)
    for region, z, spread in (("chest", 1.0, 20.0), ("pelvis", 3.0, 10.0), (None, 3.0, 10.0)):
        score, usual = z_score(found, {"levels": levels}, region, spacing)
        assert score == pytest.approx(np.full_like(flat, z)) and usual == pytest.approx(np.full_like(flat, spread))
    with pytest.raises(ModelError, match="not calibrated"):
        z_score(MaskedPrediction(36.0, flat, flat), {"levels": levels}, None, spacing)


@pytest.mark.slow
def test_the_same_seed_expects_the_same(model, small_ct: Volume) -> None:
    image = working_image(small_ct, 4.0)
    first, again, other = (
        predict_masked(image, model.engine, 16.0, smoothing=3.0, sets=1, seed=s).expected for s in (1, 1, 2)
    )
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.slow
def test_cubes_are_filled_alike_with_any_number_of_threads():
    """The command line's ``--threads``: with two, oneMKL failed on a batch of equations."""
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            cube_lattice._bending_response.cache_clear()
            found.append(cube_lattice._bending_response((12, 12, 12), (3.0, 3.0, 3.0))[0])
    finally:
        torch.set_num_threads(before)
        cube_lattice._bending_response.cache_clear()
    torch.testing.assert_close(*found)
