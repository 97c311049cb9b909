"""The three tasks keep their promises about geometry, masks, seeds and units, whatever the weights are."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from MedDiffFMLib.core.errors import Cancelled, InputError, ModelError
from MedDiffFMLib.core.progress import CancelToken
from MedDiffFMLib.imaging.io import read_volume
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.models.checkpoint import load_model
from MedDiffFMLib.preprocessing.noise_estimate import estimate_noise
from MedDiffFMLib.tasks.anomaly.findings import find_regions, list_findings
from MedDiffFMLib.tasks.anomaly.spec import Anomaly
from MedDiffFMLib.tasks.base import Case, Run
from MedDiffFMLib.tasks.denoise.spec import Denoise
from MedDiffFMLib.tasks.inpaint.spec import Inpaint
from MedDiffFMLib.training.pretrain.calibrate import CalibrationConfig, calibrate

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def model(tiny_model_file):
    return load_model(str(tiny_model_file), device="cpu", precision="float32")


@pytest.fixture(scope="module")
def calibrated(model, small_ct):
    config = CalibrationConfig(spacing=4.0, edges=(16.0, 24.0))
    model.calibration = calibrate(model.engine, [(small_ct, None, None)], config)
    return model


FAST = Inpaint(steps=2, samples=1, spacing=3.0, margin=2.0)


def oblique(volume):
    """The same voxels under a geometry rotated by 20 degrees about an odd axis, flipped and shifted."""
    angle, axis = np.deg2rad(20), np.array([1.0, 2.0, 3.0]) / 14**0.5
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    rotation = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    matrix = np.eye(4)
    matrix[:3, :3] = rotation @ np.diag([-3.0, 3.0, 2.0])
    matrix[:3, 3] = (11, -70, 300)
    return Volume(volume.voxels, matrix)


@pytest.mark.slow
def test_denoise_splits_the_input_into_image_and_noise(model, small_ct):
    result = Denoise(noise=20).run(Case(small_ct), Run(model))
    clean, noise = result.volumes["denoised"], result.volumes["noise"]
    assert clean.dtype == small_ct.voxels.dtype and clean.shape == small_ct.voxels.shape
    assert np.abs(clean + noise - small_ct.voxels).max() <= 0.5 + 1e-3


@pytest.mark.slow
def test_denoise_gives_metal_and_air_beyond_the_window_their_own_values(model, small_ct):
    voxels = small_ct.voxels.copy()
    voxels[20, 36:39, 21:24] = 3000
    result = Denoise(noise=5).run(Case(small_ct.with_voxels(voxels)), Run(model))
    assert result.volumes["denoised"][20, 37, 22] > 2500


def test_vessels_and_bowel_of_a_quiet_scan_are_no_noise():
    """The sample's liver deviates by 8 to 10 HU; at 18 HU its vessels would go with the noise."""
    sample = read_volume(ROOT / "Resources" / "SampleData" / "thorax_lidc0001.nrrd")
    assert 9 < estimate_noise(sample.voxels.astype(np.float32), sample.spacing[0]) < 13


def test_the_filters_alone_need_no_network(model, small_ct):
    noise = np.random.default_rng(1).normal(0, 40, small_ct.voxels.shape)
    noisy = small_ct.with_voxels((small_ct.voxels + noise).astype(np.int16))
    before = model.engine.calls
    result = Denoise(blocks=1.0).run(Case(noisy), Run(model))
    assert model.engine.calls == before and result.facts["network_evaluations"] == 0
    soft = ndimage.binary_erosion(np.abs(small_ct.voxels) < 150, iterations=4)
    assert np.std((result.volumes["denoised"] - small_ct.voxels.astype(float))[soft]) < 0.75 * noise[soft].std()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"quick": True, "steps": 3}, "filters"),
        ({"tune": True, "steps": 3}, "steps"),
        ({"tune": True, "blocks": 1.0}, "network"),
    ],
)
def test_denoising_refuses_settings_that_exclude_each_other(settings, words):
    with pytest.raises(InputError, match=words):
        Denoise(**settings)


@pytest.mark.parametrize(("prior", "calls"), [(False, 0), (True, 2)])
def test_the_prior_denoises_where_it_is_asked_for(model, small_ct, prior, calls):
    before = model.engine.calls
    facts = Denoise(noise=20, prior=prior, quick=True).run(Case(small_ct), Run(model)).facts
    assert (model.engine.calls > before) == (calls > 0)
    assert facts["network_evaluations"] == max(calls, 1) and facts["blocks_share"] == facts["means_share"] == 0


@pytest.mark.slow
def test_detail_comes_back_in_its_share(model, small_ct):
    plain, half, whole = (
        Denoise(noise=20, blocks=0, detail=share).run(Case(small_ct), Run(model)).volumes["noise"]
        for share in (0, 0.5, 1)
    )
    assert np.allclose(half, (plain + whole) / 2, atol=0.01)
    assert np.square(whole).mean() < np.square(plain).mean()


def test_filters_can_be_cancelled(model, small_ct):
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        Denoise(blocks=1.0, noise=20).run(Case(small_ct), Run(model, cancel=token))


def test_denoise_estimates_the_noise_it_was_given(small_ct):
    assert estimate_noise(small_ct.voxels.astype(np.float32)) == pytest.approx(20, rel=0.2)


def test_the_noise_of_coarse_pixels_is_told_from_anatomy():
    """Edges in every window of a slice, the same in all slices: only differences between slices tell the noise."""
    random = np.random.default_rng(0)
    anatomy = 60 * random.standard_normal((24, 24)).repeat(3, 0).repeat(3, 1)
    scan = (anatomy + random.normal(0, 15, (30, 72, 72))).astype(np.float32)
    assert estimate_noise(scan, pixel_mm=1.0) > 25
    assert estimate_noise(scan, pixel_mm=4.5) == pytest.approx(15, rel=0.05)


def test_what_changes_between_thick_slices_is_no_noise():
    """Organs that end from one slice to the next, as in slices of 5 mm."""
    random = np.random.default_rng(0)
    organs = 50 * random.standard_normal((30, 4, 4)).repeat(24, 1).repeat(24, 2).clip(-2, 2)
    scan = (organs + random.normal(0, 15, (30, 96, 96))).astype(np.float32)
    assert estimate_noise(scan, slice_mm=1.0) > 30
    assert estimate_noise(scan, slice_mm=5.0) == pytest.approx(15, rel=0.1)


@pytest.mark.parametrize("blur", [0.0, 1.0])
def test_white_and_correlated_noise_are_both_told(blur):
    noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((12, 96, 96)), (0, blur, blur))
    assert estimate_noise((40 + 20 * noise / noise.std()).astype(np.float32)) == pytest.approx(20, rel=0.1)


@pytest.mark.parametrize("kind", ["white", "ramp"])
def test_noise_that_is_stronger_in_the_middle_is_told_by_its_mean_power(kind):
    """As in a thorax, four times as strong there as at the rim; organs with sharp edges lie in it."""
    from MedDiffFMLib.evaluation.quality.added_noise import ramp_noise

    random = np.random.default_rng(0)
    k, j, i = np.indices((12, 128, 128))
    white = random.standard_normal(k.shape, dtype=np.float32)
    noise = white if kind == "white" else ramp_noise(white, (1.0, 1.0, 1.0))
    noise = noise * (10 + 30 * np.exp(-((j - 64) ** 2 + (i - 64) ** 2) / 30**2))
    organs = np.where((j // 32 + i // 32) % 2, 60.0, -80.0)
    assert estimate_noise((organs + noise).astype(np.float32)) == pytest.approx(noise.std(), rel=0.1)


def test_denoise_says_when_it_cannot_estimate(model, small_ct):
    air = np.where(small_ct.voxels > -500, -700, small_ct.voxels).astype(np.int16)
    with pytest.raises(InputError, match="--noise"):
        Denoise().run(Case(small_ct.with_voxels(air)), Run(model))


@pytest.mark.slow
def test_several_steps_stay_consistent_with_the_input(model, small_ct):
    """With little trust in the prior the result must come back to the input."""
    result = Denoise(noise=20, steps=3, consistency=0.01).run(Case(small_ct), Run(model))
    assert np.abs(result.volumes["noise"]).mean() < 2


@pytest.mark.slow
@pytest.mark.parametrize("turn", [lambda v: v, oblique])
def test_inpaint_leaves_everything_outside_the_mask_bit_for_bit(model, small_ct, small_mask, turn):
    volume, mask = turn(small_ct), small_mask.voxels > 0
    result = FAST.run(Case(volume, mask=mask), Run(model)).volumes["inpainted"]
    assert result.dtype == volume.voxels.dtype
    assert np.array_equal(result[~mask], volume.voxels[~mask])
    assert (result[mask] != volume.voxels[mask]).mean() > 0.3


@pytest.mark.slow
def test_inpaint_blends_only_inside_the_rim(model, small_ct, small_mask):
    mask = small_mask.voxels > 0
    hard = Inpaint(2, 1, 0.0, 2.0, 3.0).run(Case(small_ct, mask=mask), Run(model)).volumes["inpainted"]
    soft = Inpaint(2, 1, 6.0, 2.0, 3.0).run(Case(small_ct, mask=mask), Run(model)).volumes["inpainted"]
    before = small_ct.voxels.astype(float)
    share = (soft - before)[mask] / np.where(hard == small_ct.voxels, np.nan, hard - before)[mask]
    share = share[np.isfinite(share) & (np.abs((hard - before)[mask]) > 50)]
    assert share.min() > 0.3 and share.max() < 1.1 and share.min() < 0.7


@pytest.mark.slow
def test_the_model_never_sees_what_it_fills(model, small_ct, small_mask):
    """Other voxels under the mask, same filling."""
    mask = small_mask.voxels > 0
    changed = small_ct.voxels.copy()
    changed[mask] = 900
    hard = Inpaint(2, 1, 0.0, 4.0, 3.0)
    first = hard.run(Case(small_ct, mask=mask), Run(model)).volumes["inpainted"]
    second = hard.run(Case(small_ct.with_voxels(changed), mask=mask), Run(model)).volumes["inpainted"]
    assert np.array_equal(first[mask], second[mask])


@pytest.mark.slow
def test_same_seed_same_bits_other_seed_other_filling(model, small_ct, small_mask):
    mask = small_mask.voxels > 0
    runs = [FAST.run(Case(small_ct, mask=mask), Run(model, seed=s)).volumes["inpainted"] for s in (3, 3, 4)]
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_a_draft_is_the_surface_of_least_bending_and_asks_no_network(model, small_ct, small_mask):
    """A ramp goes on through the hole."""
    inside, slope = small_mask.voxels > 0, np.indices(small_ct.voxels.shape).sum(0)
    hollow = small_ct.with_voxels(np.where(inside, -1000, slope).astype(np.int16))
    draft, calls = Inpaint(**(Inpaint.draft | {"margin": 0.0, "feather": 0.0})), model.engine.calls
    result = draft.run(Case(hollow, mask=inside), Run(model))
    assert np.abs(result.volumes["inpainted"] - slope)[inside].max() <= 1
    assert model.engine.calls == calls and result.facts["network_evaluations"] == 0


def test_inpaint_needs_a_mask(model, small_ct):
    with pytest.raises(InputError, match="mask"):
        FAST.run(Case(small_ct, mask=np.zeros(small_ct.voxels.shape, bool)), Run(model))


def test_a_mask_thinner_than_a_working_voxel_is_filled(model, small_ct):
    mask = np.zeros(small_ct.voxels.shape, bool)
    mask[20, 20, 12] = True
    result = Inpaint(2, 1, 0.0, 0.0, 5.0).run(Case(small_ct, mask=mask), Run(model))
    assert np.isfinite(result.facts["mean_hu_after"])


@pytest.mark.slow
def test_anomaly_returns_scores_and_units_on_the_input_grid(calibrated, small_ct):
    volume = oblique(small_ct)
    result = Anomaly(threshold=1.0, minimum_volume=0).run(Case(volume), Run(calibrated))
    for name in ("anomaly", "healthy", "uncertainty"):
        assert result.volumes[name].shape == volume.voxels.shape
        assert np.isfinite(result.volumes[name]).all()
    assert result.volumes["anomaly"].min() >= 0
    air = small_ct.voxels[:, :3, :3]
    assert not result.volumes["anomaly"][:, :3, :3].any() and air.max() < -800


@pytest.mark.slow
def test_z_score_has_unit_spread_on_the_tissue_it_was_calibrated_on(calibrated, small_ct):
    """On its own normal case the root mean square of two sizes of cubes is near one, and its tail thin."""
    result = Anomaly(method="cubes").run(Case(small_ct), Run(calibrated))
    score = result.volumes["anomaly"]
    inside = score[score > 0]
    assert 0.4 < np.median(inside) < 1.8
    assert (inside > 4).mean() < 0.05


def test_anomaly_without_calibration_says_what_to_do(tiny_model_file, small_ct):
    bare = load_model(str(tiny_model_file), device="cpu", precision="float32")
    bare.calibration = {}
    with pytest.raises(ModelError, match="calibrate"):
        Anomaly().run(Case(small_ct), Run(bare))


def test_findings_give_place_and_size_of_a_known_blob():
    matrix = np.array([[-2.0, 0, 0, 50], [0, -2.0, 0, 40], [0, 0, 3.0, -30], [0, 0, 0, 1]])
    volume = Volume(np.full((20, 30, 30), 40, np.int16), matrix)
    score = np.zeros(volume.voxels.shape, np.float32)
    score[5:8, 10:14, 20:22] = 6.0
    score[6, 11, 20] = 9.0
    score[15, 2, 2] = 7.0
    rows = list_findings(score, volume, 3.0, minimum_volume=100)
    assert len(rows) == 1
    row = rows[0]
    assert row["volume_mm3"] == pytest.approx(3 * 4 * 2 * 12)
    assert row["peak_z"] == 9.0
    centroid = matrix @ [20.5, 11.5, 6.0, 1]
    assert [row["r_mm"], row["a_mm"], row["s_mm"]] == pytest.approx(centroid[:3].tolist(), abs=0.06)
    assert list_findings(score, volume, 3.0, minimum_volume=0)[0]["peak_z"] == 9.0
    assert len(list_findings(score, volume, 3.0, minimum_volume=0)) == 2
    few = find_regions(score, volume, 3.0, minimum_volume=0, at_most=1)
    assert few.rows == list_findings(score, volume, 3.0, 0)[:1] and few.count == 2 and few.numbered.max() == 1


def test_a_finding_reaches_to_a_share_of_its_peak_and_no_lower_than_the_threshold():
    """A conspicuous one does not flow into what surrounds it; a faint one is all that is above the threshold."""
    volume = Volume(np.full((10, 20, 40), 40, np.int16), np.diag([-2.0, -2.0, 2.0, 1.0]))
    score = np.zeros(volume.voxels.shape, np.float32)
    score[2:8, 4:14, 4:14] = 3.5
    score[3:6, 6:9, 6:9] = 8.0
    score[2:8, 4:14, 24:34] = 2.5
    score[4, 9, 29] = 3.0
    rows = list_findings(score, volume, 2.0, minimum_volume=300)
    assert [(row["peak_z"], row["volume_mm3"]) for row in rows] == [(8.0, 8 * 27.0), (3.0, 8 * 600.0)]
    assert rows[0]["mean_z"] == 8.0 and [rows[0][axis] for axis in ("r_mm", "a_mm", "s_mm")] == [-14.0, -14.0, 8.0]
    assert set(np.unique(find_regions(score, volume, 2.0, 300).numbered[3:6, 6:9, 6:9])) == {1}


def two_peaks(pass_between: float, lower: float = 5.0) -> np.ndarray:
    """(k, j, i) of 2 mm: a region above 2 with a peak of 8 and one of ``lower``, 40 mm apart."""
    score = np.zeros((20, 24, 50), np.float32)
    score[4:16, 4:20, 4:46] = 2.5
    score[8:12, 10:14, 10:40] = pass_between
    for i, peak in ((12, 8.0), (34, lower)):
        distance = np.linalg.norm(np.argwhere(np.ones(score.shape)) - (10, 12, i), axis=1).reshape(score.shape)
        score = np.maximum(score, peak * (1 - distance / 10)).astype(np.float32)
    return score


def test_a_region_with_two_peaks_is_two_findings():
    """Each is outlined around its own peak; where the way between stays high, they are one."""
    volume = Volume(np.full((20, 24, 50), 40, np.int16), np.diag([-2.0, -2.0, 2.0, 1.0]))
    found = find_regions(two_peaks(4.0), volume, 2.0, minimum_volume=100)
    assert [row["peak_z"] for row in found.rows] == [8.0, 5.0] and found.count == 2
    assert found.numbered[10, 12, 12] == 1 and found.numbered[10, 12, 34] == 2
    assert abs(found.rows[0]["r_mm"] + 24) < 6 and abs(found.rows[1]["r_mm"] + 68) < 10
    for number, box in found.boxes.items():
        assert (found.numbered == number).sum() == (found.numbered[box] == number).sum()
    assert len(list_findings(two_peaks(7.0), volume, 2.0, 100)) == 1
    assert len(list_findings(two_peaks(4.0), volume, 2.0, 100, apart=False)) == 1
    assert len(list_findings(two_peaks(4.0, 2.5), volume, 2.0, 100)) == 1


def test_basins_are_those_of_a_watershed():
    """scikit-image's, from a few of many summits; at the border between basins voxels may differ."""
    from scipy import ndimage
    from skimage.segmentation import watershed

    from MedDiffFMLib.tasks.anomaly.watershed import basins

    noise = np.random.default_rng(5).standard_normal((40, 44, 48))
    score = ndimage.gaussian_filter(noise, 3.0).astype(np.float32)
    score /= score.std()
    inside = ndimage.label(score > -0.5)[0] == 1
    summits = np.argwhere(inside & (score == ndimage.maximum_filter(score, 17)))
    markers = np.zeros(score.shape, np.int32)
    markers[tuple(summits.T)] = np.arange(1, len(summits) + 1)
    found = basins(score, inside, markers)
    theirs = watershed(-score, markers, mask=inside, connectivity=np.ones((3, 3, 3)))
    assert len(summits) > 5 and ((found > 0) == inside).all()
    assert (found == theirs)[inside].mean() > 0.98
    assert np.array_equal(basins(score[::-1], inside[::-1], markers[::-1])[::-1], found)


@pytest.mark.parametrize("times", [2, 3])
def test_findings_are_the_same_on_a_finer_grid(times):
    """Peaks are sought on voxels some 3 mm apart, on whatever grid the map is shown."""
    score = two_peaks(4.0)
    coarse = find_regions(score, Volume(np.zeros(score.shape, np.int16), np.diag([-2.0, -2.0, 2.0, 1.0])), 2.0, 100)
    for axis in range(3):
        score = np.repeat(score, times, axis)
    spacing = 2.0 / times
    fine = find_regions(
        score, Volume(np.zeros(score.shape, np.int16), np.diag([-spacing, -spacing, spacing, 1.0])), 2.0, 100
    )
    assert [row["peak_z"] for row in fine.rows] == [row["peak_z"] for row in coarse.rows]
    assert (fine.numbered[1::times, 1::times, 1::times] == coarse.numbered).mean() > 0.995


def test_findings_say_where_they_are():
    """Center in mm, and the organ of most voxels; neither the body's rest nor a minority is an organ's name."""
    volume = Volume(np.full((20, 30, 30), 40, np.int16), np.diag([-2.0, -2.0, 3.0, 1.0]))
    score = np.zeros(volume.voxels.shape, np.float32)
    for k, peak in ((4, 9.0), (10, 8.0), (16, 7.0)):
        score[k, 10:14, 20:24] = peak
    anatomy = np.full(score.shape, 118, np.uint8)
    anatomy[4] = 12  # lung_upper_lobe_right
    anatomy[10, 10:14, 20:21] = 5  # liver, a quarter
    plain = [row["where"] for row in list_findings(score, volume, 3.0, 0.0)]
    assert plain == ["L 43 P 23 S 12", "L 43 P 23 S 30", "L 43 P 23 S 48"]
    named = [row["where"] for row in list_findings(score, volume, 3.0, 0.0, anatomy)]
    assert named == ["right lung upper lobe, " + plain[0], *plain[1:]]


def test_regions_are_whole_however_the_volume_is_cut_for_the_search(monkeypatch):
    """Slab by slab gives what one pass gives, diagonal neighbors included."""
    from scipy import ndimage

    from MedDiffFMLib.tasks.anomaly import findings

    volume = Volume(np.zeros((24, 25, 26), np.int16), np.eye(4))
    noise = ndimage.gaussian_filter(np.random.default_rng(3).standard_normal(volume.voxels.shape), 1.0)
    score = (noise / noise.std()).astype(np.float32)
    whole = list_findings(score, volume, 1.2, 5.0)
    labels, count = ndimage.label(score > 1.2, np.ones((3, 3, 3)))
    assert len(whole) == (np.bincount(labels.ravel())[1:] >= 5).sum() > 10
    monkeypatch.setattr(findings, "SLAB_VOXELS", 1300)
    assert list_findings(score, volume, 1.2, 5.0) == whole


@pytest.mark.slow
@pytest.mark.parametrize(
    "run",
    [
        lambda v, m, mask, **k: Denoise(noise=20).run(Case(v), Run(m, **k)),
        lambda v, m, mask, **k: FAST.run(Case(v, mask=mask), Run(m, **k)),
        lambda v, m, mask, **k: Anomaly().run(Case(v), Run(m, **k)),
    ],
)
def test_every_task_reports_progress_and_obeys_cancel(calibrated, small_ct, small_mask, run):
    fractions = []
    run(small_ct, calibrated, small_mask.voxels > 0, progress=lambda event: fractions.append(event.fraction))
    assert fractions == sorted(fractions) and fractions[-1] == pytest.approx(1.0)
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        run(small_ct, calibrated, small_mask.voxels > 0, cancel=token)
