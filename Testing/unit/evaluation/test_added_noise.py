"""Noise of a known kind and level, the truth of its estimate, and LDCT-benchmark's figures, against theory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from MedDiffFMLib.cli.main import main
from MedDiffFMLib.evaluation.quality import added_noise, ldct_benchmark, protocols
from MedDiffFMLib.evaluation.quality.baselines import classical as baselines
from MedDiffFMLib.evaluation.quality.cases import Case, LoadedCase
from MedDiffFMLib.evaluation.quality.degradations import Plan
from MedDiffFMLib.evaluation.quality.tables import summary
from MedDiffFMLib.imaging.io import write_volume
from MedDiffFMLib.imaging.volume import Volume

SPACING = (2.0, 2.0, 3.0)


@pytest.fixture(scope="module")
def loaded() -> LoadedCase:
    """An elliptic patient of soft tissue under fat, larger than a part, whose own noise is of 12 HU."""
    y, x = (np.mgrid[:150, :180] - np.array([74.5, 89.5])[:, None, None]) * 2.0
    body = np.hypot(x / 150, y / 110) < 1
    tissue = np.where(np.hypot(x / 140, y / 100) < 1, 50.0, -100.0)
    voxels = np.repeat(np.where(body, tissue, -1000.0)[None], 20, axis=0).astype(np.float32)
    voxels += 12 * added_noise.ramp_noise(np.random.default_rng(7).standard_normal(voxels.shape, np.float32), SPACING)
    volume = Volume(voxels, np.diag([-2.0, -2.0, 3.0, 1.0]))
    case = Case("ellipse", Path("ellipse.nrrd"), "p", region="abdomen")
    return LoadedCase(case, volume, np.zeros(voxels.shape, np.uint8), np.repeat(body[None], 20, axis=0))


def question(kind: str, level: float = 30.0) -> Plan:
    return replace(Plan(slab_mm=None), noise_kinds=(kind,), noise_levels_hu=(level,)).questions("denoise")[0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["projections", "ramp", "white"])
@pytest.mark.parametrize("level", [15.0, 60.0])
def test_noise_has_its_level_and_both_truths_are_told(loaded, kind, level):
    plan = question(kind, level)
    part = added_noise.noisy_part(loaded, plan, added_noise.noisy_voxels(loaded, plan)["noisy"])
    assert part.group == f"{kind} {level:g} HU"
    assert part.noisy.shape == part.clean.voxels.shape == (13, 120, 120)
    # Projections add more in the middle of the body, where the part is, than over all of it.
    assert part.told == pytest.approx(level, rel=0.25 if kind == "projections" else 0.03)
    assert part.added == pytest.approx(part.told, rel=0.1)
    assert part.own == pytest.approx(12, rel=0.1)
    assert part.total == pytest.approx(np.hypot(part.added, part.own))


def test_coarse_pixels_have_no_truth_of_the_scans_own_noise(loaded):
    """For what a blur of one pixel leaves there is anatomy; the noise that was added is known."""
    coarse = replace(loaded, volume=replace(loaded.volume, ijk_to_ras=np.diag([-3.9, -3.9, 3.0, 1.0])))
    plan = question("white")
    part = added_noise.noisy_part(coarse, plan, added_noise.noisy_voxels(coarse, plan)["noisy"])
    assert np.isnan(part.own) and np.isnan(part.total) and part.added == pytest.approx(30, rel=0.1)

    def estimated(volume, part):
        return protocols.Answer(part.noisy, facts={"noise_hu": 33.0, "noise_estimated": True})

    values = protocols.denoise_rows(coarse, plan, None, {"estimated": estimated})[0].values
    assert values["level error, added"] == pytest.approx(10, abs=4) and "level error, total" not in values


@pytest.mark.slow
def test_noise_of_projections_has_its_level_over_the_body(loaded):
    body = loaded.body[:6]
    noise = added_noise.added_noise(loaded.volume.voxels[:6], SPACING, body, "projections", 45.0, seed=1)
    assert noise[body].std() == pytest.approx(45, rel=1e-3)
    assert noise[~body].std() < noise[body].std()


def test_a_part_lies_where_it_was_cut_and_knows_the_whole_patient(loaded):
    plan = question("white")
    part = added_noise.noisy_part(loaded, plan, added_noise.noisy_voxels(loaded, plan)["noisy"])
    value = part.clean.voxels[3, 40, 50]
    k, j, i = np.argwhere(loaded.volume.voxels == value)[0]
    assert np.allclose(part.clean.ijk_to_ras @ [50, 40, 3, 1], loaded.volume.ijk_to_ras @ [i, j, k, 1])
    assert part.clean.whole is not None and part.clean.whole.voxels.shape[1] > 60


def test_ramp_noise_has_the_spectrum_of_filtered_back_projection():
    white = np.random.default_rng(0).standard_normal((400, 64, 64), dtype=np.float32)
    noise = added_noise.ramp_noise(white, (1.0, 1.0, 3.0))
    assert noise.std() == pytest.approx(1, rel=0.01)
    power = (np.abs(np.fft.fft2(noise)) ** 2).mean(axis=0)
    share = np.minimum(np.hypot(*np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64))) * 2, 1)
    expected = share * (0.5 + 0.5 * np.cos(np.pi * share)) ** 2
    power, expected = power / power.sum(), expected / expected.sum()
    np.testing.assert_allclose(power, expected, atol=0.35 * expected.max())
    assert np.corrcoef(power.ravel(), expected.ravel())[0, 1] > 0.98
    # Twice the pixel halves the frequencies that there are.
    wide = added_noise.ramp_noise(white, (2.0, 1.0, 3.0))
    assert np.abs(np.fft.fft2(wide)[:, 32, 0]).max() < 1e-3 * np.abs(np.fft.fft2(noise)[:, 10, 0]).max()


def test_noise_without_correlation_is_estimated_from_its_diagonal_band():
    rng = np.random.default_rng(0)
    body = np.ones((6, 81, 64), bool)
    assert baselines.wavelet_level(rng.normal(40, 25, body.shape), body) == pytest.approx(25, rel=0.05)


def test_denoising_is_scored_by_kind_and_the_estimate_by_both_truths(loaded, monkeypatch):
    plan = replace(Plan(slab_mm=None), noise_kinds=("white", "ramp"), noise_levels_hu=(30.0, 60.0))

    def half(volume, part):
        return protocols.Answer(part.clean.voxels + part.noise / 2, facts={"noise_hu": 33.0, "noise_estimated": True})

    def told(volume, part):
        return protocols.Answer(part.clean.voxels + part.noise / 10) if part.tell else None

    rows = protocols.denoise_rows(loaded, plan, None, {"half": half, "told": told})
    assert [row.group for row in rows if row.method == "half"] == [
        "white 30 HU",
        "white 60 HU",
        "ramp 30 HU",
        "ramp 60 HU",
    ]
    assert [row.group for row in rows if row.method == "told"] == ["white 30 HU", "ramp 30 HU"]
    values = rows[0].values
    assert values["PSNR"] == pytest.approx(20 * np.log10(400 / 15), abs=0.15)
    assert values["level over added"] == pytest.approx(33 / 30, rel=0.02)
    assert values["level over total"] == pytest.approx(33 / np.hypot(30, 12), rel=0.03)
    assert values["level error, total"] == pytest.approx(100 * abs(values["level over total"] - 1))
    tables = summary(rows, "half")["denoise"]
    assert list(tables["white 60 HU"]["PSNR"]["values"]) == ["half"]  # a method that was not asked has no column


def test_a_level_that_cannot_be_estimated_is_told_and_stops_nothing(loaded):
    from MedDiffFMLib.core.errors import InputError

    def refuses(volume, part):
        raise InputError("The noise level cannot be estimated.", "Give it.")

    plan = replace(Plan(slab_mm=None), noise_kinds=("white",))
    rows = protocols.denoise_rows(loaded, plan, None, {"refuses": refuses, "noisy": lambda v, part: v.voxels})
    tables = summary(rows)["denoise"]["white 30 HU"]
    assert tables["refused"] == {"refuses": ["ellipse"]} and tables["PSNR"]["mean"]["noisy"]["count"] == 1


def test_figures_of_ldct_benchmark_against_its_definition():
    truth = np.full((2, 32, 32), 50.0)
    image = truth + 39.9  # a tenth of the abdominal window of 399 steps
    found = ldct_benchmark.ldct_figures(image, truth, np.array([True, False]), "abdomen")
    assert found["LDCT PSNR"] == pytest.approx(20)
    assert ldct_benchmark.shown(np.array([-149.5, 49.5, 248.9, 1000.0]), "abdomen") == pytest.approx(
        [0.0013, 0.5, 1.0, 1.0], abs=2e-3
    )
    rng = np.random.default_rng(0)
    slices = rng.normal(-600, 300, (3, 32, 32))
    noisy = slices + rng.normal(0, 50, slices.shape)
    assert ldct_benchmark.ldct_figures(slices, slices, np.ones(3, bool), "chest")["LDCT SSIM"] == 1
    worse = ldct_benchmark.ldct_figures(noisy, slices, np.ones(3, bool), "chest")
    # The chest's window of 1500 HU, where nothing is cut off: the error is 50 / 1499.
    assert worse["LDCT PSNR"] == pytest.approx(20 * np.log10(1499 / 50), abs=0.3) and worse["LDCT SSIM"] < 1


@pytest.mark.slow
def test_noise_from_the_command_line(loaded, tmp_path, capsys):
    voxels = np.rint(loaded.volume.voxels[:8]).astype(np.int16)
    write_volume(Volume(voxels, loaded.volume.ijk_to_ras), tmp_path / "cases" / "a.nrrd")
    common = ["evaluate", str(tmp_path / "cases"), "--model", "none", "--tasks", "denoise", "--slab", "0", "--quiet"]
    out = tmp_path / "out"
    assert main([*common, "--noise", "white", "--levels", "40", "-o", str(out)]) == 0
    page = (out / "evaluation.md").read_text()
    assert "Added noise: white, of 40 HU" in page and "| white 40 HU | 1 |" in page
    assert main([*common, "--levels", "0", "-o", str(out)]) == 2
    assert "level is out of range" in capsys.readouterr().err
