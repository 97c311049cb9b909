"""The detector judges places by what they look like, however the scan lies, and finds what it was not taught."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
import torch

from MedDiffFMLib.conditioning.region import body_mask
from MedDiffFMLib.core.errors import ModelError
from MedDiffFMLib.core.resources import resource_folder
from MedDiffFMLib.imaging.io import read_volume
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.models.checkpoint import read_weights, write_weights
from MedDiffFMLib.preprocessing.working_image import working_image
from MedDiffFMLib.tasks.anomaly.detector import (
    TAILS,
    Detector,
    Member,
    build_network,
    load_detector,
    rarity_z,
    save_detector,
    search_area,
    shipped_detector,
    smoothed_odds,
)
from MedDiffFMLib.tasks.anomaly.findings import list_findings
from MedDiffFMLib.tasks.anomaly.local_features import NAMES, feature_table
from MedDiffFMLib.tasks.anomaly.spec import Anomaly
from MedDiffFMLib.training.pretrain.anomaly_detector import (
    AROUND_LESION_MM,
    PARTS,
    DetectorConfig,
    calibrated,
    deal_folds,
    draw_samples,
    fit_detector,
    prepare_scan,
    rarity,
    train_detector,
)
from MedDiffFMLib.training.pretrain.misplaced_tissue import misplace_tissue

SPACING = (3.0, 3.0, 3.0)


@pytest.mark.slow
def test_features_turn_with_the_scan(small_ct: Volume) -> None:
    """In all 48 turns and mirror images; the sizes can be halved twice, so that no block is cut."""
    hounsfield = small_ct.voxels[:32, :36, :40].astype(np.float32)
    body, wanted = hounsfield > -500, np.zeros(hounsfield.shape, bool)
    wanted[4:28:5, 6:30:4, 5:36:6] = True
    expected = np.full((*hounsfield.shape, len(NAMES)), np.nan, np.float32)
    expected[wanted] = feature_table(hounsfield, body, SPACING, wanted)
    for axes, flips in product(permutations(range(3)), product((1, -1), repeat=3)):
        turned = [a.transpose(axes)[tuple(slice(None, None, f) for f in flips)] for a in (hounsfield, body, wanted)]
        table = feature_table(turned[0], turned[1], SPACING, turned[2])
        there = expected.transpose(*axes, 3)[tuple(slice(None, None, f) for f in flips)][turned[2]]
        assert np.abs(table - there).max() < 0.02


def test_lumps_lie_where_they_may_and_change_what_they_cover(small_ct: Volume) -> None:
    hounsfield = small_ct.voxels.astype(np.float32)
    allowed = hounsfield > -500
    allowed[:, :, 22:] = False
    altered, numbers = misplace_tissue(hounsfield, allowed, 3.0, 6, np.random.default_rng(1))
    assert numbers.max() >= 3 and not numbers[~allowed].any()
    assert np.abs(altered - hounsfield)[numbers > 0].mean() > 15
    assert np.abs(altered - hounsfield)[~allowed].mean() < 1


@pytest.fixture(scope="module")
def trained(small_ct: Volume) -> tuple[Detector, dict]:
    return train_detector([(small_ct, None, None)], DetectorConfig(epochs=5.0))


@pytest.mark.slow
def test_what_was_put_there_stands_out(trained: tuple[Detector, dict], small_ct: Volume) -> None:
    """Even soft tissue in a lung, which the training draws too, but not there."""
    hounsfield = working_image(small_ct, 3.0).hounsfield.copy()
    k, j, i = np.ogrid[tuple(slice(n) for n in hounsfield.shape)]
    lump = (k - 14) ** 2 + (j - 20) ** 2 + (i - 30) ** 2 < 3**2
    hounsfield[lump] = 40
    body = body_mask(hounsfield)
    detector, facts = trained
    assert len(detector.members) == 1 and not detector.quantiles
    odds = smoothed_odds(detector, hounsfield, body, search_area(body, SPACING), SPACING)
    score = detector.z_score(odds)
    assert score[lump].mean() > 1.5 and np.median(score[body & ~lump]) < 1
    assert facts["cases"] == 1 and facts["misplaced_voxels"] > 0


def rough_ball(volume: Volume, center: tuple[int, int, int], radius: float = 4) -> tuple[Volume, np.ndarray]:
    """The CT with a ball of rough texture in it, which no lump has, as dense on average as what was there; its mask."""
    k, j, i = np.ogrid[tuple(slice(n) for n in volume.voxels.shape)]
    ball = (k - center[0]) ** 2 + (j - center[1]) ** 2 + (i - center[2]) ** 2 < radius**2
    noise = np.random.default_rng(center).normal(0, 150, volume.voxels.shape)
    return volume.with_voxels(np.where(ball, volume.voxels + noise, volume.voxels).astype(np.float32)), ball


def test_what_is_drawn_of_a_case(small_ct: Volume) -> None:
    """Each lesion apart; nothing normal near one; the same again, and without lesions the same otherwise."""
    first, one = rough_ball(small_ct, (10, 34, 14), 3)
    both, other = rough_ball(first, (30, 34, 30), 2)
    scan = prepare_scan(both, one | other, 3.0)
    drawn = draw_samples(scan, DetectorConfig(), 5)
    shown = [len(lesion) for lesion in drawn.lesions]
    whole = [np.count_nonzero(scan.search & (scan.lesions == n)) for n in (1, 2)]
    assert PARTS <= len(shown) <= 2 * PARTS and min(shown) >= 3 and max(shown) <= max(whole)
    near = [
        np.linalg.norm((np.argwhere(scan.normal) - center) * 3, axis=1).min() for center in np.argwhere(one | other)
    ]
    assert min(near) > AROUND_LESION_MM
    again, without = draw_samples(scan, DetectorConfig(), 5), draw_samples(scan, DetectorConfig(show_lesions=False), 5)
    assert np.array_equal(again.misplaced, drawn.misplaced) and not without.lesions
    assert np.array_equal(np.sort(without.normal, axis=0), np.sort(drawn.normal, axis=0))


def test_each_part_is_looked_at_as_if_the_scan_ended_there(monkeypatch: pytest.MonkeyPatch, small_ct: Volume) -> None:
    """Several parts of each case, of many sizes, all of which show some of what is outlined."""
    ct, ball = rough_ball(small_ct, (22, 24, 20))
    scan = prepare_scan(ct, ball, 3.0)
    seen: list[tuple[int, ...]] = []

    def watched(hounsfield: np.ndarray, body: np.ndarray, spacing: tuple, wanted: np.ndarray) -> np.ndarray:
        assert hounsfield.shape == body.shape == wanted.shape
        seen.append(hounsfield.shape)
        return feature_table(hounsfield, body, spacing, wanted)

    monkeypatch.setattr("MedDiffFMLib.training.pretrain.anomaly_detector.feature_table", watched)
    drawn = draw_samples(scan, DetectorConfig(), 3)
    assert len(seen) == len(set(seen)) == 2 * PARTS and len(drawn.lesions) == PARTS
    assert all(n <= whole for shape in seen for n, whole in zip(shape, scan.body.shape, strict=True))


@pytest.mark.slow
def test_outlined_lesions_teach_what_lumps_do_not(small_ct: Volume) -> None:
    """A texture that was outlined in one place is found in another."""
    ct, ball = rough_ball(small_ct, (12, 34, 14))
    elsewhere, there = rough_ball(small_ct, (26, 34, 30))
    scan = prepare_scan(elsewhere, None, 3.0)
    rise = []
    for shown in (True, False):
        config = DetectorConfig(epochs=15.0, show_lesions=shown)
        detector, _ = fit_detector([draw_samples(prepare_scan(ct, ball, 3.0), config, 0)], config)
        odds = smoothed_odds(detector, scan.hounsfield, scan.body, scan.search, SPACING)
        assert len(odds) == (2 if shown else 1)
        odds = odds[-1]
        rise.append(np.median(odds[there & scan.search]) - np.quantile(odds[scan.search & ~there], 0.95))
    assert rise[0] > 0 and rise[0] > rise[1] + 1


@pytest.mark.slow
def test_lesions_of_one_patient_alone_make_two_calibrated_networks(small_ct: Volume) -> None:
    """Though the fold that judges this patient has no lesion to learn from."""
    ct, ball = rough_ball(small_ct, (12, 34, 14))
    detector, facts = train_detector([(small_ct, None, None), (ct, ball, None)], DetectorConfig(epochs=0.5))
    assert len(detector.members) == len(facts["losses"]) == 2 and facts["parts_of_lesions"] == PARTS
    for quantiles in (detector.quantiles, *(member.quantiles for member in detector.members)):
        assert len(quantiles) == len(TAILS) and (np.diff(quantiles) > 0).all()
    weights = [next(member.network.parameters()) for member in detector.members]
    assert not torch.equal(*weights)


def test_patients_are_dealt_out_whole() -> None:
    patients = [f"p{n}" for n in (0, 1, 1, 2, 0, 3, 4, 5, 6)]
    folds = deal_folds(patients, 3)
    assert len(set(zip(patients, folds, strict=True))) == 7 and [folds.count(n) for n in range(3)] == [4, 3, 2]


@pytest.mark.slow
def test_a_file_gives_the_same_scores(trained: tuple[Detector, dict], tmp_path: Path) -> None:
    detector, facts = trained
    path = tmp_path / "detector.safetensors"
    digest = save_detector(path, detector, facts)
    again = load_detector(path, digest)
    table = np.random.default_rng(0).normal(0, 1, (50, len(NAMES))).astype(np.float16)
    assert np.allclose(again.z_score(again.odds(table)), detector.z_score(detector.odds(table)), atol=0.1)
    assert again.sha256 == digest
    with pytest.raises(ModelError, match="holds no anomaly detector"):
        load_detector(resource_folder() / "Models" / "body-coordinates.safetensors")


def test_z_is_as_rare_as_in_a_normal_distribution() -> None:
    odds = np.random.default_rng(0).logistic(-5, 2, 400_000)
    quantiles = rarity(odds)
    z = rarity_z(odds, quantiles)
    for limit, tail in zip((1, 2, 3), TAILS[1:4], strict=True):
        assert np.mean(z > limit) == pytest.approx(tail, rel=0.05)
    rising = rarity_z(np.linspace(-20, 60, 100), quantiles)
    assert (np.diff(rising) >= 0).all() and rising[-1] > 5


def untrained(members: int) -> Detector:
    """Networks as they begin, calibrated on alike but not equal answers to normal tissue."""
    torch.manual_seed(members)
    networks = tuple(Member(build_network().eval().requires_grad_(False)) for _ in range(members))
    rng = np.random.default_rng(0)
    common = rng.normal(0, 1, 100_000)
    odds = np.stack([common + rng.normal(0, 1 + n, len(common)) for n in range(members)])
    return calibrated(
        Detector(networks, torch.zeros(len(NAMES)), torch.ones(len(NAMES))), [odds[:, ::2], odds[:, 1::2]]
    )


def test_the_larger_z_counts_and_is_as_rare_as_it_says() -> None:
    """Of two networks; more of what either sees never lowers it, and one of them alone is its own answer."""
    rng = np.random.default_rng(0)
    common = rng.normal(0, 1, 100_000)
    normal = np.stack([common + rng.normal(0, 1 + n, len(common)) for n in range(2)])
    both = untrained(2)
    z = both.z_score(normal)
    for limit, tail in zip((1, 2, 3), TAILS[1:4], strict=True):
        assert np.mean(z > limit) == pytest.approx(tail, rel=0.05)
        assert np.mean(both.z_scores(normal).max(0) > limit) > 1.2 * tail
    odds = rng.normal(0, 6, (2, 5000))
    larger = replace(both, quantiles=()).z_score(odds)
    assert (larger >= both.z_scores(odds)).all()
    order = np.argsort(larger)
    assert (np.diff(both.z_score(odds)[order]) >= 0).all()
    for member in range(2):
        more = odds.copy()
        more[member] += rng.exponential(2, 5000)
        assert (both.z_score(more) >= both.z_score(odds)).all()
    one = untrained(1)
    assert not one.quantiles and np.array_equal(one.z_score(odds[:1]), rarity_z(odds[0], one.members[0].quantiles))


@pytest.mark.parametrize("members", [1, 2])
def test_a_file_keeps_each_network(members: int, tmp_path: Path) -> None:
    detector = untrained(members)
    path = tmp_path / "detector.safetensors"
    digest = save_detector(path, detector, {})
    again = load_detector(path, digest)
    table = np.random.default_rng(1).normal(0, 1, (50, len(NAMES))).astype(np.float16)
    odds = detector.odds(table)
    assert odds.shape == (members, 50) and np.allclose(again.odds(table), odds, atol=2e-3)
    assert np.allclose(again.z_score(odds), detector.z_score(odds), atol=1e-3)
    assert len(again.quantiles) == (0 if members == 1 else len(TAILS))


def test_a_file_of_the_version_before_and_one_that_lacks_a_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "detector.safetensors"
    save_detector(path, untrained(2), {})
    weights = read_weights(path, None)
    write_weights(path, dict(weights.state), {**weights.metadata, "format": "meddifffm-anomaly-1"})
    with pytest.raises(ModelError, match="holds no anomaly detector of this version"):
        load_detector(path)
    few = {key: value for key, value in weights.state.items() if not key.startswith("1.")}
    write_weights(path, few, weights.metadata)
    with pytest.raises(ModelError, match="do not fit their description"):
        load_detector(path)
    config = json.loads(weights.metadata["config"])
    for wrong in ({"members": config["members"][:1]}, {"quantiles": []}, {"members": []}):
        write_weights(path, dict(weights.state), {**weights.metadata, "config": json.dumps(config | wrong)})
        with pytest.raises(ModelError, match="do not fit their description"):
            load_detector(path)


@pytest.fixture(scope="module")
def sample() -> tuple[Volume, Volume]:
    folder = resource_folder() / "SampleData"
    return read_volume(folder / "thorax_lidc0001.nrrd"), read_volume(folder / "thorax_lidc0001_mask.nrrd", "mask")


def shipped_score(volume: Volume) -> tuple[np.ndarray, Volume]:
    """On the working grid, and the CT there."""
    image = working_image(volume, 3.0)
    body = body_mask(image.hounsfield)
    search = search_area(body, SPACING)
    detector = shipped_detector()
    odds = smoothed_odds(detector, image.hounsfield, body, search, SPACING)
    return np.where(search, detector.z_score(odds), 0), Volume(image.hounsfield, image.grid.ijk_to_ras)


@pytest.mark.slow
def test_the_sample_nodule_is_among_the_first_three(sample: tuple[Volume, Volume]) -> None:
    """With the shipped detector, which has not seen this patient."""
    volume, nodule = sample
    score, image = shipped_score(volume)
    asked = Anomaly()
    rows = list_findings(score, image, asked.threshold, asked.minimum_volume, at_most=asked.at_most)
    center = (nodule.ijk_to_ras @ [*np.argwhere(nodule.voxels > 0).mean(0)[::-1], 1])[:3]
    apart = [np.linalg.norm(np.array([row["r_mm"], row["a_mm"], row["s_mm"]]) - center) for row in rows[:3]]
    assert min(apart) < 12 and len(rows) <= 5


def test_the_shipped_detector_is_small_and_says_what_it_was_made_of() -> None:
    folder = resource_folder() / "Models"
    row = next(r for r in json.loads((folder / "models.json").read_text())["models"] if r["name"] == "anomaly-detector")
    assert row["bytes"] == (folder / row["file"]).stat().st_size < 2_000_000
    assert (folder / row["card"]).is_file() and shipped_detector().sha256 == row["sha256"]
