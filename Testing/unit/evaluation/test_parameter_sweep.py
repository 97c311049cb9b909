"""Steps against quality, from the command line to the picture, with a tiny model on a tiny CT."""

from __future__ import annotations

import json

import numpy as np
import pytest

from MedDiffFMLib.cli.main import main
from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.evaluation.quality import degradations
from MedDiffFMLib.evaluation.quality import evaluate as benchmark
from MedDiffFMLib.evaluation.quality import parameter_sweep as curves
from MedDiffFMLib.evaluation.quality.baselines import bm3d
from MedDiffFMLib.evaluation.quality.cases import read_cases
from MedDiffFMLib.evaluation.quality.parameter_sweep import Curve, curve_record, parse_curve
from MedDiffFMLib.evaluation.quality.protocols import Row
from MedDiffFMLib.evaluation.quality.variants import Variant, parse_variant
from MedDiffFMLib.imaging.io import write_volume
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.models.checkpoint import load_model

TASKS = benchmark.EVALUATED_TASKS


def test_what_a_curve_is_written_like():
    assert parse_curve("denoise=steps:5,10,20", TASKS) == Curve("denoise", ("steps",), (5, 10, 20))
    several = parse_curve("synthesize=middle_steps+native_steps:2,4", TASKS)
    assert several.settings(4) == {"middle_steps": 4, "native_steps": 4}
    assert several.name == "synthesize.middle_steps+native_steps" and several.label(4) == "middle_steps+native_steps 4"
    for rest in ("", "=steps", "=steps:5", "=steps:5,5", "=steps:a,b", "=steps:true,2"):
        with pytest.raises(InputError, match="--curve"):
            parse_curve(f"denoise{rest}", TASKS)
    with pytest.raises(InputError, match="Tasks: denoise"):
        parse_curve("sharpen=steps:1,2", TASKS)


def test_what_a_variant_is_written_like():
    assert parse_variant("inpaint:steps=10,samples=1", TASKS) == Variant(
        "inpaint", "steps 10, samples 1", {"steps": 10, "samples": 1}
    )
    for text in ("inpaint", "inpaint:", "inpaint:steps", "inpaint:steps=", "sharpen:steps=1"):
        with pytest.raises(InputError, match="--variant"):
            parse_variant(text, TASKS)


def test_points_of_a_curve_are_means_over_cases():
    curve = Curve("inpaint", ("steps",), (2, 4))
    rows = []
    for steps, errors in ((2, (10.0, 20.0)), (4, (8.0, float("nan")))):
        for case, error in zip("ab", errors, strict=True):
            rows.append(Row("inpaint", case, case, "20 mm", f"steps {steps}", {"MAE": error}, 1.5 * steps, {}, steps))
    rows += [Row("inpaint", "a", "a", "20 mm", "biharmonic fill", {"MAE": 12.0}, 1.0)]
    record = curve_record(curve, rows)
    assert record["evaluations"] == [2, 4] and record["seconds"] == [3, 6]
    found = record["groups"]["20 mm"]["MAE"]
    assert [point["mean"] for point in found["curve"]] == [15, 8]
    assert found["baselines"] == {"biharmonic fill": 12}


def test_a_picture_leaves_out_baselines_that_would_flatten_the_curve():
    assert curves._in_sight({"near": 12.0, "far": 90.0}, [8.0, 10.0]) == ["near"]
    assert curves._in_sight({"all": 90.0, "far": 95.0}, [8.0, 10.0]) == ["all", "far"]
    assert curves._in_sight({"within": 9.0, "edge": 16.0, "beyond": 16.1}, [8.0, 10.0]) == ["within", "edge"]


@pytest.fixture
def folder(tmp_path, small_ct, monkeypatch):
    """Two small chests of four slices; low dose without its projections, and BM3D of few blocks."""

    def white(loaded, plan):
        noise = np.random.default_rng(plan.case_seed(loaded.case.name)).normal(0, 30, loaded.volume.voxels.shape)
        return {"noisy": np.rint(loaded.volume.voxels + noise).astype(np.int16)}

    monkeypatch.setattr(bm3d, "REACH", 3)
    monkeypatch.setattr(bm3d, "STEP", 6)
    monkeypatch.setattr("MedDiffFMLib.evaluation.quality.added_noise.quarter_dose", white)
    for name, part in (("a", small_ct.voxels[14:18]), ("b", small_ct.voxels[20:24])):
        write_volume(Volume(part, small_ct.ijk_to_ras), tmp_path / "cases" / f"{name}.nrrd")
    return tmp_path / "cases"


@pytest.mark.slow
def test_curve_and_comparison_from_the_command_line(folder, tiny_model_file, tmp_path, capsys):
    common = ["evaluate", str(folder), "--model", str(tiny_model_file), "--device", "cpu", "--slab", "0", "--quiet",
              "--json", "--cache", str(tmp_path / "cache"), "--set", "denoise.noise=30", "--noise", "dose"]  # fmt: skip
    first, second = tmp_path / "first", tmp_path / "second"
    assert main([*common, "--tasks", "denoise", "-o", str(first)]) == 0
    old = str(first / "evaluation.json")
    curve = ["--curve", "denoise=steps:1,3", "--set", "denoise.noise=20", "--compare", old,
             "--variant", "denoise:strength=0.5"]  # fmt: skip
    assert main([*common, "--tasks", "denoise", *curve, "-o", str(second)]) == 0
    capsys.readouterr()

    report = json.loads((second / "evaluation.json").read_text())
    points = report["curves"]["denoise.steps"]
    assert points["evaluations"] == [1, 3] and all(seconds > 0 for seconds in points["seconds"])
    assert len(points["groups"][""]["PSNR"]["curve"]) == 2
    assert points["groups"][""]["PSNR"]["baselines"].keys() == {
        "noisy input",
        "non-local means",
        "non-local means, level estimated",
        "total variation",
        "BM3D",
        "BM3D, spectrum told",
    }
    assert (second / points["picture"]).read_bytes().startswith(b"\x89PNG")

    before = {
        row["case"]: row["values"]["PSNR"]
        for row in json.loads((first / "evaluation.json").read_text())["rows"]
        if row["method"] == "tiny"
    }
    now = {row["case"]: row["values"]["PSNR"] for row in report["rows"] if row["method"] == "tiny"}
    assert "tiny, strength 0.5" in report["tables"]["denoise"][""]["PSNR"]["values"]
    psnr = report["compared"]["differences"][0]
    assert psnr["figure"] == "PSNR" and psnr["cases"] == 2
    assert psnr["mean"] == pytest.approx(np.mean([now[c] - before[c] for c in before]))
    assert psnr["low"] <= psnr["mean"] <= psnr["high"]
    assert report["compared"]["warnings"] == []

    page = (second / "evaluation.md").read_text()
    assert "## Steps against quality: denoise.steps" in page and "## Compared with an earlier evaluation" in page
    assert f"]({points['picture']})" in page


@pytest.mark.slow
def test_a_curve_alone_reports_no_tables(folder, tiny_model_file, tmp_path):
    model = load_model(str(tiny_model_file), device="cpu")
    curve = Curve("denoise", ("strength",), (0.5, 1.0))
    plan = degradations.Plan(slab_mm=None, noise_kinds=("dose",))
    noise = {"denoise": {"noise": 30}}
    report = benchmark.evaluate(model, read_cases(folder), [], tmp_path, plan=plan, parameters=noise, curves=[curve])
    assert report["tables"] == {} and report["rows"] == [] and report["verdict"] == []
    assert report["curves"]["denoise.strength"]["values"] == [0.5, 1.0]


def test_every_value_of_a_curve_is_checked_before_anything_runs(folder, tiny_model_file, tmp_path):
    model = load_model(str(tiny_model_file), device="cpu")
    for curve in (Curve("denoise", ("steps",), (5, 5000)), Curve("denoise", ("stairs",), (1, 2))):
        with pytest.raises(InputError, match="steps|stairs"):
            benchmark.evaluate(model, [], [], tmp_path, curves=[curve])
    with pytest.raises(InputError, match="need a model"):
        benchmark.evaluate(None, [], [], tmp_path, curves=[Curve("denoise", ("steps",), (1, 2))])
