"""MR: the scale in units of fat, the field of view, and pairs that are brought together."""

from __future__ import annotations

import numpy as np
import pytest

from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.multimodal.field_of_view import field_of_view
from MedDiffFMLib.multimodal.mr_intensity import mr_scale
from MedDiffFMLib.multimodal.rigid_registration import align
from MedDiffFMLib.multimodal.simulate_mr import clean_signal, draw_contrast, simulate_mr


def thigh(shape: tuple[int, int, int] = (20, 64, 64)) -> np.ndarray:
    """Labels of a limb: 0 air, 1 fat, 2 muscle, 3 bone."""
    k, j, i = np.indices(shape)
    radius = np.hypot(j - 31 - 0.2 * k, (i - 30) * 1.2)
    labels = np.select([radius < 5 + 0.2 * k, radius < 18, radius < 25], [3, 2, 1], 0)
    labels[(np.hypot(j - 22, i - 38) < 3) & (radius < 18)] = 1
    return labels


def painted(labels: np.ndarray, values: tuple[float, ...], noise: float, seed: int) -> np.ndarray:
    """An image with a value for each label, and noise."""
    return np.array(values)[labels] + np.random.default_rng(seed).normal(0, noise, labels.shape)


@pytest.mark.parametrize("gain", [0.01, 1.0, 40.0])
def test_the_scale_is_fat_whatever_the_unit(gain: float) -> None:
    image = np.abs(painted(thigh(), (0, 900, 300, 60), 15, 0)) * gain
    scale = mr_scale(image)
    assert scale.from_peak
    assert scale.fat / gain == pytest.approx(900, rel=0.03)
    inside = image < 1.4 * scale.fat
    assert np.allclose(scale.to_values(scale.to_network(image))[inside], image[inside], rtol=1e-5, atol=1e-4 * gain)


def test_an_image_without_fat_is_scaled_by_a_percentile_and_says_so() -> None:
    one_hump = np.abs(painted((thigh() > 0).astype(int), (0, 500), 40, 0))
    scale = mr_scale(one_hump)
    assert not scale.from_peak
    assert 500 < scale.fat < 650


def test_zeros_at_the_border_were_not_scanned_but_dark_voxels_inside_were() -> None:
    image = np.abs(painted(thigh(), (5, 900, 300, 60), 2, 0)) + 1
    image[:, :, :9] = 0
    image[10, 30, 30] = 0
    seen = field_of_view(image)
    assert not seen[:, :, :9].any()
    assert seen[:, :, 9:].all()


def turned(shift: tuple[float, float, float], degrees: float) -> np.ndarray:
    """A motion about the origin in RAS, 4x4."""
    a = np.radians(degrees)
    matrix = np.eye(4)
    matrix[:3, :3] = [[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]
    matrix[:3, 3] = shift
    return matrix


@pytest.mark.slow
def test_a_pair_that_lies_apart_is_brought_together() -> None:
    pytest.importorskip("SimpleITK")
    labels = thigh((16, 64, 64))
    grid = np.diag([-2.0, -2.0, 3.0, 1.0])
    grid[:3, 3] = 63, 63, -24
    motion = turned((6.0, -4.0, 3.0), 5.0)
    mr = Volume(painted(labels, (10, 900, 300, 60), 20, 1).astype(np.float32), grid)
    ct = Volume(painted(labels, (-1000, -100, 50, 700), 20, 2).astype(np.float32), motion @ grid)
    found = align(mr, ct)

    corners = np.array([[i, j, k, 1.0] for i in (10, 50) for j in (10, 50) for k in (0, 15)]).T
    apart = (found.fixed_to_moving - motion) @ grid @ corners
    assert np.linalg.norm(apart[:3], axis=0).max() < 1.0
    assert found.after > found.before
    moved = found.moved(ct)
    assert np.linalg.norm(((moved.ijk_to_ras - grid) @ corners)[:3], axis=0).max() < 1.0


def test_images_that_do_not_overlap_are_refused() -> None:
    pytest.importorskip("SimpleITK")
    image = painted(thigh(), (10, 900, 300, 60), 20, 1).astype(np.float32)
    with pytest.raises(InputError, match="cannot be aligned"):
        align(Volume(image, np.eye(4)), Volume(image, turned((500.0, 0, 0), 0)))


def limb_ct(seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """HU with noise, and tissue classes, of the limb."""
    labels = thigh()
    classes = np.array([1, 4, 5, 7])[labels]
    return painted(labels, (-1000, -100, 50, 900), 25, seed), classes


def test_a_simulated_mr_has_the_ct_s_geometry_and_t1_s_order_of_tissues() -> None:
    hounsfield, tissue = limb_ct()
    for seed in range(6):
        generator = np.random.default_rng(seed)
        image = simulate_mr(hounsfield, tissue, (3.0, 2.0, 2.0), draw_contrast(generator), generator)
        inner = {value: np.median(image[tissue == value]) for value in (1, 4, 5, 7)}
        assert inner[4] > 1.6 * inner[5] > inner[5] > inner[7], "fat, muscle, compact bone"
        assert inner[1] < 0.3 * inner[5]


def test_the_noise_of_the_ct_is_not_in_the_mr() -> None:
    hounsfield, tissue = limb_ct()
    generator = np.random.default_rng(0)
    image = simulate_mr(hounsfield, tissue, (3.0, 2.0, 2.0), draw_contrast(generator), generator)
    clean = clean_signal(hounsfield, tissue, (3.0, 2.0, 2.0), draw_contrast(np.random.default_rng(0)))
    muscle = tissue == 5
    assert abs(np.corrcoef(hounsfield[muscle], image[muscle])[0, 1]) < 0.25
    assert clean[muscle].std() < 0.02
