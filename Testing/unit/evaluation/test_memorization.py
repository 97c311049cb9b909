"""A copy of a reference is found wherever it lies, a stranger is not; random features are the same everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from MedDiffFMLib.evaluation.quality import memorization, random_features
from MedDiffFMLib.evaluation.quality.cases import Case
from MedDiffFMLib.imaging.io import write_volume
from MedDiffFMLib.imaging.volume import Volume


def body(seed: int, shape: tuple[int, int, int] = (30, 34, 36)) -> np.ndarray:
    field = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.5)
    return np.clip(field / field.std() * 80 + 50, -190, 290).astype(np.float32)


def test_a_copy_is_found_at_any_place_and_under_noise_and_a_stranger_is_not():
    references = memorization.References([body(0), body(1)])
    place = body(1)[7:23, 3:19, 20:36]
    noise = np.random.default_rng(0).normal(0, 20, place.shape)
    stranger = body(2)[:16, :16, :16]
    same, copy, other = references.nearest(np.stack([place, place + noise, stranger]))
    assert same > 0.95 and copy > 0.85 and other < 0.4


def test_the_correlation_is_pearsons_at_the_best_place():
    volume, window = body(3, (18, 17, 19)), body(4)[:16, :16, :16]
    found = memorization.References([volume]).nearest(window[None])[0]
    volume, window = memorization.detail(volume[None])[0], memorization.detail(window[None])[0]
    places = [volume[k : k + 16, j : j + 16, i : i + 16] for k in range(3) for j in range(2) for i in range(4)]
    assert found == pytest.approx(max(np.corrcoef(p.ravel(), window.ravel())[0, 1] for p in places), abs=1e-4)


def test_flat_windows_resemble_nothing_and_small_references_are_left_out():
    assert memorization.References([body(0)]).nearest(np.full((1, 16, 16, 16), 40.0)).tolist() == [-1]
    assert memorization.References([body(0, (10, 40, 40))]).nearest(body(0)[None, :16, :16, :16]).tolist() == [-1]


def test_chest_walls_alone_make_no_copy():
    """Two bodies of the same outline and other tissue: the plain correlation is near 1."""
    walls = np.where(np.arange(36) < 18, -800.0, 0.0)
    first, second = (np.where(walls < 0, walls, body(n) + walls) for n in (5, 6))
    window = second[4:20, 5:21, 10:26]
    assert np.corrcoef(window.ravel(), first[4:20, 5:21, 10:26].ravel())[0, 1] > 0.95
    assert memorization.References([first]).nearest(window[None])[0] < 0.75


def test_controls_are_seen_as_copies():
    references = memorization.References([body(n) for n in range(3)])
    controls = references.controls(16)
    assert controls.shape == (3, 16, 16, 16)
    assert references.nearest(controls).min() > 0.6


def test_references_are_read_once(tmp_path):
    voxels = np.rint(body(0)).astype(np.int16)
    write_volume(Volume(voxels, np.diag([-6.0, -6.0, 6.0, 1.0])), tmp_path / "a.nrrd")
    cases, lines = [Case("a", tmp_path / "a.nrrd")], []
    for _ in range(2):
        found = memorization.read_references(cases, tmp_path / "cache", lines.append)
    assert len(lines) == 1
    assert found.nearest(body(0)[None, 2:18, 2:18, 2:18])[0] > 0.95


def test_coarse_windows_are_means():
    windows = np.arange(2 * 8**3, dtype=np.float32).reshape(2, 8, 8, 8)
    found = memorization.coarse(windows, 3.0)
    assert found.shape == (2, 4, 4, 4)
    assert found[1, 0, 0, 0] == pytest.approx(windows[1, :2, :2, :2].mean())


def test_random_features_are_fixed_and_follow_the_content():
    windows = np.stack([body(n, (32, 32, 32)) for n in range(3)])
    found = random_features.random_features(windows)
    assert found.shape == (3, 112) and np.array_equal(found, random_features.random_features(windows))
    kernels = random_features._kernels()
    assert kernels[0].ravel()[:3] == pytest.approx([0.034218, -0.035954, 0.174308], abs=1e-5)
    # The first channel by hand: a convolution with stride 2 and a border of zeros, then the mean of what is positive.
    from scipy.ndimage import correlate

    layer = correlate(windows[0] / 1000, kernels[0][0, 0], mode="constant")[::2, ::2, ::2]
    assert found[0, 0] == pytest.approx(np.maximum(layer, 0).mean(), rel=1e-4)
    assert not np.allclose(found[0], found[1], rtol=1e-3)
