"""Synthetic CTs are judged as their makers deserve: the same kind is accepted, every way to be wrong shows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.evaluation.quality import evaluate as benchmark
from MedDiffFMLib.evaluation.quality import synthesis, window_features
from MedDiffFMLib.evaluation.quality.cases import Case
from MedDiffFMLib.evaluation.quality.memorization import References
from MedDiffFMLib.evaluation.quality.parameter_sweep import Curve
from MedDiffFMLib.evaluation.quality.protocols import Answer
from MedDiffFMLib.evaluation.quality.synthesis import REAL, SynthesisPlan, SynthesisQuestion
from MedDiffFMLib.imaging.io import write_volume
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.models.checkpoint import load_model

MATRIX = np.diag([-3.0, -3.0, 3.0, 1.0])


SHAPE = (144, 32, 32)  # 8 windows, one above the other


def patient(seed, width=2.0):
    """Lung in front, soft tissue in the middle, bone behind, with irregular borders and blobs of fat; 3 mm."""
    fields = gaussian_filter(np.random.default_rng(seed).standard_normal((2, *SHAPE)), (0, width, width, width))
    fields /= fields.std(axis=(1, 2, 3), keepdims=True)
    depth = np.arange(32)[:, None] + 2.0 * fields[0]
    voxels = np.select([depth < 11, depth < 22], [-800, np.where(fields[1] > 1, -100, 50)], 600)
    return Volume(voxels.astype(np.int16), MATRIX)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    place = tmp_path_factory.mktemp("patients")
    for number in range(4):
        write_volume(patient(number), place / f"{number}.nrrd")
    found = [Case(f"c{n}", place / f"{n}.nrrd", f"p{n}", region="chest") for n in range(4)]
    return [*found, Case("lonely", place / "0.nrrd", "p9", region="pelvis")]


@pytest.fixture(scope="module")
def question(cases):
    return SynthesisQuestion(cases, window_features.HaarStatistics(), SynthesisPlan(volumes=3))


def means(rows):
    return {name: np.mean([row.values[name] for row in rows]) for name in rows[0].values}


def as_method(make):
    def generate(region, seed):
        volume = make(seed)
        return volume, Answer(volume.voxels, evaluations=7)

    return generate


@pytest.mark.slow
def test_the_same_kind_of_body_is_accepted_and_other_kinds_are_not(question):
    baselines = question.baseline_rows()
    real = means([row for row in baselines if row.method == REAL])
    alike = means(question.rows_of("alike", as_method(lambda seed: patient(100 + seed)), "chest"))
    finer = means(question.rows_of("finer", as_method(lambda seed: patient(100 + seed, 1.0)), "chest"))
    for name, tolerance in (("MMD", 0.2), ("precision", 0.25), ("recall", 0.25)):
        assert alike[name] == pytest.approx(real[name], abs=tolerance)
    assert real["precision"] > 0.5 and real["recall"] > 0.5
    assert finer["MMD"] > 10 * abs(real["MMD"]) and finer["MMD"] > 1
    assert finer["precision"] == finer["recall"] == 0


def test_real_patients_made_worse_are_far_from_real_ones(question):
    rows = question.baseline_rows()
    real = means([row for row in rows if row.method == REAL])
    for kind in set(synthesis.CHANGES) - {REAL}:
        found = means([row for row in rows if row.method == kind])
        assert found["MMD"] > real["MMD"] + 0.1, kind
        assert found["precision"] < real["precision"] - 0.3, kind


def test_one_body_again_and_again_has_precision_but_no_recall(question):
    rows = question.rows_of("one", as_method(lambda seed: patient(100)), "chest")
    varied = question.rows_of("varied", as_method(lambda seed: patient(100 + seed)), "chest")
    assert means(rows)["precision"] == pytest.approx(means(varied)["precision"], abs=0.25)
    assert means(rows)["recall"] < means(varied)["recall"] - 0.1


def test_rows_tell_what_a_volume_took_and_that_bodies_are_independent(question):
    rows = question.rows_of("alike", as_method(lambda seed: patient(100 + seed)), "chest")
    assert [row.case for row in rows] == [f"synthetic chest {n}" for n in range(3)]
    assert len({row.patient for row in rows}) == 3
    assert {row.evaluations for row in rows} == {7}


@pytest.mark.slow
def test_references_tell_copies_from_strangers(cases):
    references = References([windows_at_6_mm(patient(100))])
    question = SynthesisQuestion(cases, window_features.HaarStatistics(), SynthesisPlan(volumes=2), references)
    rows = question.baseline_rows()
    strangers = means([row for row in rows if row.method == REAL])
    assert strangers["nearest"] < strangers["nearest, highest"] < 0.7
    copies = means(question.rows_of("copies", as_method(lambda seed: patient(100)), "chest"))
    assert copies["nearest"] > 0.8 > strangers["nearest, highest"]
    shifted = means(question.rows_of("others", as_method(lambda seed: patient(200 + seed)), "chest"))
    assert shifted["nearest"] == pytest.approx(strangers["nearest"], abs=0.1)


def windows_at_6_mm(volume):
    """As references are kept: cubes of two voxels averaged."""
    k, j, i = (n // 2 for n in volume.voxels.shape)
    return volume.voxels.reshape(k, 2, j, 2, i, 2).mean(axis=(1, 3, 5)).astype(np.float32)


def test_random_features_see_what_the_shipped_ones_see(question):
    real = means([row for row in question.baseline_rows() if row.method == REAL])
    finer = means(question.rows_of("finer", as_method(lambda seed: patient(100 + seed, 1.0)), "chest"))
    assert finer["random FID"] > 2 * real["random FID"] and finer["random MMD"] > real["random MMD"] + 0.1


def test_only_the_regions_asked_for_are_judged(cases):
    plan = SynthesisPlan(volumes=2, regions=("abdomen",))
    question = SynthesisQuestion(cases, window_features.HaarStatistics(), plan)
    assert question.regions == [] and question.left_out == {} and question.baseline_rows() == []


def test_a_region_with_one_patient_is_left_out_and_named(question):
    assert question.regions == ["chest"] and question.left_out == {"pelvis": 1}


def test_a_volume_of_air_is_judged_and_a_tiny_one_refused(question):
    air = Volume(np.full(SHAPE, -1000, np.int16), MATRIX)
    rows = question.rows_of("air", as_method(lambda seed: air), "chest")
    assert means(rows)["precision"] == 0 and means(rows)["MMD"] > 1
    tiny = Volume(np.zeros((8, 8, 8), np.int16), MATRIX)
    with pytest.raises(InputError, match="too small"):
        question.rows_of("tiny", as_method(lambda seed: tiny), "chest")


def test_shuffling_moves_cubes_and_loses_none():
    windows = np.arange(2 * 32**3, dtype=np.float32).reshape(2, 32, 32, 32)
    moved = synthesis.shuffled(windows, "p", 3.0)
    assert np.array_equal(np.sort(moved.reshape(2, -1)), windows.reshape(2, -1))
    first = moved[0, 8:16, :8, 24:]  # a whole cube of the same window: its first voxel tells which
    k, j, i = np.argwhere(windows[0] == first[0, 0, 0])[0]
    assert np.array_equal(first, windows[0, k : k + 8, j : j + 8, i : i + 8])
    assert not np.array_equal(moved, windows)


def test_haar_bands_are_orthonormal_and_the_first_the_mean():
    windows = np.random.default_rng(0).normal(size=(2, 8, 8, 8))
    bands = window_features.haar_bands(windows)
    assert bands.shape == (8, 2, 4, 4, 4)
    np.testing.assert_allclose(np.square(bands).sum(), np.square(windows).sum())
    blocks = windows.reshape(2, 4, 2, 4, 2, 4, 2)
    np.testing.assert_allclose(bands[0], blocks.mean(axis=(2, 4, 6)) * np.sqrt(8))


def test_features_of_a_flat_window_are_known():
    found = window_features.HaarStatistics()(np.full((1, 32, 32, 32), 40.0, np.float32))[""][0]
    shares, bands, layout = found[:16], found[16:72].reshape(4, 7, 2), found[72:]
    assert shares.tolist() == [float(n == 10) for n in range(16)]  # between 30 and 60 HU
    np.testing.assert_allclose(bands[..., 0], 2 * np.log10(0.002))
    np.testing.assert_allclose(bands[..., 1], 1)
    np.testing.assert_allclose(layout, 0.04)
    assert len(layout) == 64


def test_windows_hold_tissue_and_cover_thin_volumes_by_reflection():
    voxels = np.full((40, 96, 32), -1000, np.int16)
    voxels[:, :48] = 40
    thin = Volume(voxels[:20], MATRIX)
    windows = window_features.windows_of(Volume(voxels, MATRIX), 3.0)
    assert windows.shape == (3, 32, 32, 32)  # starts 0, 16, 32 of five along the patient's front and back
    assert window_features.windows_of(thin, 3.0).shape == (3, 32, 32, 32)
    assert len(window_features.windows_of(Volume(voxels[:10], MATRIX), 3.0)) == 0


@pytest.fixture
def network_file(tmp_path):
    """The mean and the spread of each channel, as TorchScript; asserts what it is given."""
    import torch

    class Moments(torch.nn.Module):
        def __init__(self, channels: int, dimensions: int) -> None:
            super().__init__()
            self.channels, self.dimensions = channels, dimensions

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.shape[1] == self.channels and x.dim() == self.dimensions
            assert float(x.abs().max()) <= 1
            flat = x.flatten(2)
            return torch.cat([flat.mean(2), flat.std(2)], 1)

    def make(slices):
        file = tmp_path / f"network{slices}.pt"
        torch.jit.script(Moments(3, 4) if slices else Moments(1, 5)).save(str(file))
        return file

    return make


@pytest.mark.parametrize("slices", [False, True])
def test_a_network_given_as_a_file_gives_features_and_a_frechet_distance(cases, network_file, slices):
    space = window_features.load_network(network_file(slices), slices)
    windows = window_features.windows_of(patient(0), space.spacing)
    assert windows.shape[1:] == (64, 64, 64)
    views = space(windows[:4])
    assert list(views) == (["axial", "coronal", "sagittal"] if slices else [""])
    if slices:
        middle = windows[1, :, 32] / 1000  # second window, coronal, second of three slices
        assert views["coronal"].shape == (12, 6)
        assert views["coronal"][4, 0] == pytest.approx(middle.mean(), abs=1e-5)
    else:
        assert views[""][1] == pytest.approx([windows[1].mean() / 1000, windows[1].std() / 1000], abs=1e-4)


@pytest.mark.slow
def test_the_frechet_distance_is_reported_in_a_networks_space(cases, network_file):
    space = window_features.NetworkFeatures(
        window_features.load_network(network_file(False)).module, "moments", spacing=3.0
    )
    question = SynthesisQuestion(cases, space, SynthesisPlan(volumes=2))
    good = means(question.rows_of("good", as_method(lambda seed: patient(100 + seed)), "chest"))
    bad = means(question.rows_of("bad", as_method(lambda seed: Volume(patient(0).voxels + 200, MATRIX)), "chest"))
    assert 0 <= good["FID"] < 0.1 * bad["FID"]
    assert bad["FID"] == pytest.approx(0.2**2, rel=0.3)


def test_a_file_that_is_no_network_is_refused(tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="TorchScript"):
        window_features.load_network(tmp_path / "weights.pt")


@pytest.mark.slow
def test_a_model_from_cases_to_the_page(cases, tiny_model_file, tmp_path):
    model = load_model(str(tiny_model_file), device="cpu")
    fields = {
        "layout": "network",
        "size": (100.0, 100.0, 150.0),
        "spacing": 4.0,
        "whole_steps": 1,
        "middle_steps": 1,
        "native_steps": 1,
    }
    report = benchmark.evaluate(
        model,
        cases,
        ["synthesize"],
        tmp_path,
        parameters={"synthesize": fields},
        synthesis=SynthesisPlan(volumes=2),
        curves=[Curve("synthesize", ("whole_steps",), (1, 2))],
    )
    table = report["tables"]["synthesize"]["chest"]["MMD"]
    assert list(table["mean"]) == [*synthesis.CHANGES, "tiny"]
    assert table["mean"]["tiny"]["count"] == 2
    assert table["mean"]["tiny"]["mean"] > table["mean"][REAL]["high"]  # random weights make no bodies
    points = report["curves"]["synthesize.whole_steps"]
    assert points["groups"]["chest"]["MMD"]["curve"][0]["mean"] == pytest.approx(table["mean"]["tiny"]["mean"])
    assert points["evaluations"][1] == points["evaluations"][0] + 1
    page = (tmp_path / "evaluation.md").read_text()
    assert "Haar and HU statistics" in page and "too few patients to judge: pelvis (1)" in page
    assert page.index("## Synthetic CTs") < page.index("## Steps against quality")
