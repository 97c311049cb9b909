"""Simulated low dose, spheres and lesions against what physics and geometry say they must be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from MedDiffFMLib.evaluation.quality import degradations, low_dose_noise, regions
from MedDiffFMLib.evaluation.quality.cases import Case, LoadedCase
from MedDiffFMLib.evaluation.quality.synthetic_holes import healthy_spheres
from MedDiffFMLib.evaluation.quality.synthetic_lesions import insert_lesions, lesion_shape
from MedDiffFMLib.imaging.volume import Volume

SPACING = (2.0, 2.0, 3.0)


def cylinder(radius_mm: float = 100.0, pixels: int = 128, slices: int = 16, stretch: float = 1.0) -> np.ndarray:
    """Water in air, HU, (k, j, i); ``stretch`` lengthens it along i."""
    y, x = (np.mgrid[:pixels, :pixels] - (pixels - 1) / 2) * SPACING[0]
    image = np.where(np.hypot(x / stretch, y) < radius_mm, 0.0, -1000.0).astype(np.float32)
    return np.repeat(image[None], slices, axis=0)


def torso(slices: int = 24) -> np.ndarray:
    """An ellipse of fat and organ with two lungs, a spine and a table below it."""
    y, x = (np.mgrid[:110, :160] - np.array([50, 79.5])[:, None, None]) * SPACING[0]
    image = np.full(y.shape, -1000.0, np.float32)
    image[np.hypot(x / 140, y / 90) < 1] = -100
    image[np.hypot(x / 130, y / 80) < 1] = 50
    for side in (-1, 1):
        image[np.hypot((x - side * 65) / 35, (y + 15) / 45) < 1] = -850
    image[np.hypot(x, y - 50) < 15] = 500
    image[100:102, 30:130] = -100
    volume = np.repeat(image[None], slices, axis=0)
    return volume + np.random.default_rng(0).normal(0, 8, volume.shape).astype(np.float32)


@pytest.fixture(scope="module")
def loaded() -> LoadedCase:
    volume = Volume(torso(), np.diag([-2.0, -2.0, 3.0, 1.0]))
    lesions = np.zeros(volume.voxels.shape, np.uint8)
    lesions[10:14, 60:66, 70:90] = 1
    body = regions.body_mask(volume.voxels, volume.spacing)
    return LoadedCase(Case("torso", Path("torso.nrrd")), volume, lesions, body)


@pytest.mark.parametrize("view", [0, 22, 45, 60, 89])
def test_projection_of_a_water_cylinder_is_its_chord(view):
    beam = low_dose_noise.ParallelBeam((128, 128), SPACING[:2], 180)
    attenuation = low_dose_noise._columns(low_dose_noise._attenuation(cylinder(slices=1)))
    measured = beam.project(beam.interpolation(view), attenuation)[:, 0]
    position = (np.arange(beam.detectors) - (beam.detectors - 1) / 2) * beam.pitch
    chord = 2 * np.sqrt(np.maximum(100.0**2 - position**2, 0)) * low_dose_noise.WATER_PER_MM
    assert np.abs(measured - chord)[np.abs(position) < 90].max() < 0.025


def test_projection_agrees_with_scikit_image_on_an_asymmetric_object():
    from scipy.ndimage import gaussian_filter
    from skimage.transform import radon

    image = np.full((97, 97), -1000.0, np.float32)
    image[20:40, 30:75] = 300
    image[55:62, 40:48] = 1500
    image = gaussian_filter(image, 1.5)
    beam = low_dose_noise.ParallelBeam(image.shape, (1.0, 1.0), 4)
    attenuation = low_dose_noise._columns(low_dose_noise._attenuation(image[None]))
    for view in range(4):
        degrees = 180 * (view + 0.5) / 4
        ours = beam.project(beam.interpolation(view), attenuation)[:, 0]
        # scikit-image counts its angle the other way round, because its rows grow upward.
        theirs = radon(attenuation.reshape(image.shape), [-degrees], circle=False)[:, 0]
        theirs = gaussian_filter(theirs, 1.0)
        middle, other = (beam.detectors - 1) / 2, theirs.size // 2
        at = np.arange(-45, 46)
        np.testing.assert_allclose(
            np.interp(at, np.arange(beam.detectors) - middle, ours), theirs[other + at], atol=0.03 * theirs.max()
        )


@pytest.mark.slow
def test_noise_in_the_center_of_a_cylinder_is_what_theory_says():
    from scipy.integrate import quad

    water = cylinder(slices=60)
    incident, dose = 2e5, 0.25
    noise = low_dose_noise.low_dose_noise(water, SPACING, incident, dose, seed=3)
    beam = low_dose_noise.ParallelBeam((128, 128), SPACING[:2], 1)
    views = low_dose_noise._views_needed(beam)
    behind = incident * np.exp(-200 * low_dose_noise.WATER_PER_MM)
    ray = (1 / dose - 1) / behind + (1 / dose**2 - 1) * (low_dose_noise.ELECTRONIC_QUANTA / behind) ** 2
    # Ramp times Hann window, squared, and linear interpolation; frequency in cycles a detector.
    power, _ = quad(lambda f: 2 * f**2 * np.cos(np.pi * f) ** 4 * (2 + np.cos(2 * np.pi * f)) / 3, 0, 0.5)
    expected = 1000 / low_dose_noise.WATER_PER_MM * np.pi / beam.pitch * np.sqrt(power * ray / views)
    measured = noise[:, 59:69, 59:69].std()
    assert measured == pytest.approx(expected, rel=0.05)
    assert abs(noise.mean()) < 0.02 * expected


def test_added_variance_follows_the_dose():
    thick = np.array([0.0, 3.0, 6.0])
    # With photons in plenty the electronics drop out and halving the dose adds as much as there was.
    assert low_dose_noise.added_variance(thick, 1e12, 0.5) == pytest.approx(np.exp(thick) / 1e12, rel=1e-3)
    assert low_dose_noise.added_variance(thick, 1e12, 0.25) == pytest.approx(3 * np.exp(thick) / 1e12, rel=1e-3)
    # Two steps of dose reduction add what one step of both adds.
    first = low_dose_noise.added_variance(thick, 1e5, 0.5)
    second = low_dose_noise.added_variance(thick, 0.5e5, 0.5)
    assert first + second == pytest.approx(low_dose_noise.added_variance(thick, 1e5, 0.25), rel=1e-6)


def test_tube_current_control_reaches_its_noise():
    body = torso(slices=12)
    mask = regions.body_mask(body, SPACING)
    incident = low_dose_noise.incident_photons(body, SPACING, mask, noise_hu=20.0)
    noise = low_dose_noise.low_dose_noise(body, SPACING, incident, dose=0.5, seed=0)
    assert noise[mask].std() == pytest.approx(20.0, rel=0.05)


def test_noise_power_spectrum_is_that_of_reconstructed_ct():
    noise = low_dose_noise.low_dose_noise(cylinder(slices=24), SPACING, 1e5, 0.25, seed=1)[:, 32:96, 32:96]
    power = (np.abs(np.fft.fft2(noise)) ** 2).mean(axis=0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64)))
    rings = (frequency / 0.025).astype(int).ravel()
    radial = np.bincount(rings, power.ravel()) / np.bincount(rings)
    peak = 0.025 * (np.argmax(radial) + 0.5)
    assert 0.1 < peak < 0.2
    assert radial[0] < 0.35 * radial.max()
    assert radial[16] < 0.1 * radial.max()


@pytest.mark.slow
def test_noise_grows_inward_and_streaks_along_the_thick_direction():
    noise = low_dose_noise.low_dose_noise(cylinder(60, slices=30, stretch=2.0), SPACING, 3e4, 0.25, seed=2)
    center = noise[:, 54:74, 54:74]
    assert center.std() > 1.2 * noise[:, 34:40, 54:74].std()
    along, across = ((center[:, 3:, :] * center[:, :-3, :]).mean(), (center[:, :, 3:] * center[:, :, :-3]).mean())
    assert across > along + 0.1 * center.var()


@pytest.mark.slow
def test_noise_is_the_seeds_own():
    water = cylinder(slices=2)
    first, again, other = (low_dose_noise.low_dose_noise(water, SPACING, 1e5, 0.25, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.1


def test_body_has_lungs_but_no_table(loaded):
    body = loaded.body[12]
    assert body[40, 47] and body[50, 80]
    assert not body[100:102].any()
    assert body.sum() * 4 == pytest.approx(np.pi * 140 * 90, rel=0.03)
    assert regions.lung(loaded.volume.voxels, SPACING, loaded.body)[12].sum() * 4 == pytest.approx(
        2 * np.pi * 35 * 45, rel=0.1
    )


def test_spheres_lie_in_tissue_apart_and_have_their_volume(loaded):
    avoid = degradations.near_lesions(loaded)
    found = healthy_spheres(loaded.volume.voxels, SPACING, loaded.body, avoid, seed=5)
    assert sorted(found) == [10.0, 20.0, 30.0]
    union = np.zeros(avoid.shape, int)
    for diameter, labels in found.items():
        assert labels.max() == 2
        for number in (1, 2):
            volume = (labels == number).sum() * np.prod(SPACING)
            assert volume == pytest.approx(np.pi / 6 * diameter**3, rel=0.12)
        union += labels > 0
    assert union.max() == 1
    assert not (avoid & (union > 0)).any()
    assert loaded.volume.voxels[union > 0].min() > regions.AIR_HU
    again = healthy_spheres(loaded.volume.voxels, SPACING, loaded.body, avoid, seed=5)
    assert all(np.array_equal(found[d], again[d]) for d in found)


@pytest.mark.parametrize("diameter", [8.0, 15.0, 25.0])
def test_lesions_have_the_volume_of_their_diameter(diameter):
    rng = np.random.default_rng(0)
    shapes = [lesion_shape(diameter, (0.8, 0.8, 0.8), rng)[0] for _ in range(12)]
    volumes = [(share >= 0.5).sum() * 0.8**3 for share in shapes]
    assert volumes == pytest.approx([np.pi / 6 * diameter**3] * 12, rel=0.05)
    assert any(not np.array_equal(shapes[0], shape) for shape in shapes[1:])


def test_inserted_lesions_have_their_contrast_and_change_nothing_else(loaded):
    from scipy.ndimage import binary_dilation

    before, avoid = loaded.volume.voxels, degradations.near_lesions(loaded)
    changed, labels, lesions = insert_lesions(before, SPACING, loaded.body, avoid, seed=1)
    kinds = [(one.kind, one.diameter_mm) for one in lesions]
    assert kinds.count(("soft", 25.0)) == 2 and kinds.count(("lung", 8.0)) == 1
    assert {one.contrast_hu for one in lesions if one.kind == "soft"} == {-80.0, -40.0, 40.0, 80.0}
    for one in lesions:
        inside = labels == one.label
        if one.kind == "soft":
            assert (changed - before)[inside].mean() == pytest.approx(0.85 * one.contrast_hu, abs=0.2 * 80)
        else:
            assert changed[inside].mean() > -350
    near = binary_dilation(labels > 0, iterations=6)
    assert np.array_equal(changed[~near], before[~near])
    assert np.array_equal(changed[avoid], before[avoid])


def test_stored_degradations_are_read_again_until_something_changes(loaded, tmp_path, monkeypatch):
    plan = degradations.Plan()
    first = degradations.stored(degradations.spheres, loaded, plan, tmp_path)
    monkeypatch.setattr(degradations, "healthy_spheres", lambda *args, **options: {})
    again = degradations.stored(degradations.spheres, loaded, plan, tmp_path)
    assert all(np.array_equal(first[name], again[name]) for name in first) and list(first) == list(again)
    assert degradations.stored(degradations.spheres, loaded, degradations.Plan(seed=1), tmp_path) == {}


@pytest.mark.slow
def test_a_scan_noisier_than_planned_gets_noisier(loaded):
    plan = degradations.Plan()
    rough = low_dose_noise.low_dose_noise(loaded.volume.voxels, SPACING, 1e4, 0.25, seed=9)
    rough *= 45.0 / rough[loaded.body].std()
    noisy_volume = loaded.volume.with_voxels((loaded.volume.voxels + rough).astype(np.float32))
    noisy = LoadedCase(loaded.case, noisy_volume, loaded.lesions, loaded.body)
    made = [(one, degradations.quarter_dose(one, plan)["noisy"]) for one in (loaded, noisy)]
    added = [(worse - one.volume.voxels)[one.body].std() for one, worse in made]
    assert added[0] == pytest.approx(30.0, rel=0.15)
    # Its own 45 HU are what the full dose shows; a quarter of it adds the square root of three times as much.
    # Lung is at HU -850, so nothing is cut off.
    assert added[1] == pytest.approx(np.sqrt(3) * min(45.0, 2.5 * 30 / np.sqrt(3)), rel=0.2)
