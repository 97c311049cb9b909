"""The evaluation as a whole, with a model that knows the truth and one that knows nothing."""

from __future__ import annotations

import json
import runpy
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from MedDiffFMLib.cli.evaluate import parse_settings
from MedDiffFMLib.core.errors import Cancelled, InputError
from MedDiffFMLib.core.progress import CancelToken
from MedDiffFMLib.evaluation.quality import candidates
from MedDiffFMLib.evaluation.quality import evaluate as benchmark
from MedDiffFMLib.evaluation.quality.baselines import bm3d
from MedDiffFMLib.evaluation.quality.cases import load_case, read_cases
from MedDiffFMLib.evaluation.quality.compare_reports import compare, read_report, rows_of
from MedDiffFMLib.evaluation.quality.degradations import Plan
from MedDiffFMLib.evaluation.quality.paired_tests import difference
from MedDiffFMLib.evaluation.quality.protocols import PROTOCOLS, Row
from MedDiffFMLib.evaluation.quality.tables import HIGHER_IS_BETTER
from MedDiffFMLib.imaging.io import write_volume
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.tasks.base import Task, TaskResult
from MedDiffFMLib.tasks.parameters import parameter

PLAN = Plan(
    slab_mm=60.0,
    sphere_diameters_mm=(20.0, 10.0),
    lesion_diameters_mm=(15.0,),
    spheres_per_size=1,
    noise_kinds=("dose",),
)


@dataclass(frozen=True)
class Nothing(Task):
    strength: float = parameter(1.0, "No effect.", minimum=0, maximum=2)


@pytest.fixture(autouse=True)
def few_blocks(monkeypatch):
    """BM3D takes few blocks and searches nearby: what it finds is not tested here."""
    monkeypatch.setattr(bm3d, "REACH", 3)
    monkeypatch.setattr(bm3d, "STEP", 6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two small abdomens, one with an outlined lesion, stored feet first to see that the grid is followed."""
    place = tmp_path_factory.mktemp("cases")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:60, :70] * 3.0 - np.array([88.5, 103.5])[:, None, None]
    inside = np.hypot(x / 95, y / 80) < 1
    for name in ("first", "second"):
        voxels = np.where(inside, 50.0, -1000.0)[None] + rng.normal(0, 6, (24, 60, 70))
        lesion = np.zeros(voxels.shape, np.uint8)
        lesion[14:17, 25:29, 25:29] = 3
        voxels[lesion > 0] += 100
        matrix = np.diag([-3.0, -3.0, -4.0, 1.0])
        write_volume(Volume(np.rint(voxels).astype(np.int16), matrix), place / f"{name}.nrrd")
        if name == "first":
            write_volume(Volume(lesion, matrix, "mask"), place / "first_lesion.nrrd", mask=True)
    return place


@pytest.fixture
def oracle(monkeypatch, folder):
    """Makes a model whose tasks return what ``answer(task, truth, given)`` says."""
    truth = {case.name: load_case(case, PLAN.slab_mm).volume.voxels for case in read_cases(folder)}

    def make(answer):
        def run(self, case, run):
            name, voxels = self.name, case.scan.voxels
            assert (case.mask is not None) == (name == "inpaint")
            same = [t for t in truth.values() if np.median(np.abs(t - voxels)) < 30]
            best = min(same, key=lambda t: np.abs(t - voxels)[:, :5].sum())
            return TaskResult({benchmark.OUTPUTS[name]: answer(name, best, voxels)})

        tasks = {name: type("Oracle", (Nothing,), {"name": name, "run": run}) for name in benchmark.OUTPUTS}
        monkeypatch.setattr(candidates, "TASKS", tasks)
        return SimpleNamespace(name="oracle", sha256="0" * 64, device="cpu")

    return make


@pytest.mark.slow
def test_a_perfect_model_wins_everywhere(folder, oracle, tmp_path):
    def nearly(task, truth, given):  # exactly would be an infinite PSNR, which nothing can be compared with
        return np.abs(given - truth) if task == "anomaly" else truth + 0.01 * (task == "denoise")

    model = oracle(nearly)
    lines: list[str] = []
    report = benchmark.evaluate(
        model,
        read_cases(folder),
        tuple(PROTOCOLS),
        tmp_path,
        plan=PLAN,
        cache=tmp_path / "cache",
        progress=lines.append,
    )
    tables = report["tables"]
    assert tables["inpaint"]["20 mm"]["MAE"]["mean"]["oracle"]["mean"] == 0
    assert tables["denoise"][""]["SSIM"]["mean"]["oracle"]["mean"] == pytest.approx(1, abs=1e-4)
    beaten = [
        "noisy input",
        "non-local means",
        "non-local means, level estimated",
        "total variation",
        "BM3D",
        "BM3D, spectrum told",
    ]
    assert tables["denoise"][""]["SSIM"]["wins"] == dict.fromkeys(beaten, (2, 2))
    against = {(v["task"], v["group"], v["figure"], v["against"]): v for v in report["verdict"]}
    assert len(against) == 2 * 4 + 2 + 3 * 2  # two patients are too few for the classifier
    won = [v for v in against.values() if v["group"] != "real lesions"]  # this model is told of inserted ones alone
    won = [v for v in won if v["figure"] != "found 4"]  # the baseline finds them too
    assert all(v["better"] == v["cases"] and v["mean"] > 0 for v in won)
    assert against["denoise", "", "SSIM", "BM3D"]["verdict"] == "better"
    assert against["anomaly", "real lesions", "AP", "local residual"]["verdict"] == "one patient"
    synthetic = tables["anomaly"]["synthetic lesions"]
    assert synthetic["AP"]["mean"]["oracle"]["mean"] > 0.9
    assert synthetic["detection"]["sensitivity"]["oracle"][1.0] == 1
    assert synthetic["detection"]["first"]["oracle"]["all"][8]["mean"] == 1
    assert synthetic["AUPRO30"]["mean"]["oracle"]["mean"] > 0.95 < synthetic["pooled"]["oracle"]["AUROC"]["mean"]
    assert tables["anomaly"]["real lesions"]["AUROC"]["cases"] == ["first"]
    assert len(lines) == 6
    page = (tmp_path / "evaluation.md").read_text()
    assert page.index("## Verdict") < page.index("## Denoising")
    assert "| inpaint 20 mm | MAE | biharmonic fill | 2 of 2 |" in page
    assert "oracle is better than noisy input in 2 of 2" in page and "Real lesions" in page
    stored = json.loads((tmp_path / "evaluation.json").read_text())
    assert stored["model"]["name"] == "oracle" and len(stored["rows"]) == len(report["rows"])


@pytest.mark.slow
def test_short_tables_of_one_and_of_two_evaluations(folder, oracle, tmp_path):
    page = runpy.run_path(str(Path(__file__).parents[2] / "experiments" / "yardsticks.py"))["page"]
    reports = []
    for error in (20, 5):
        model = oracle(lambda task, truth, given, error=error: truth + error)
        benchmark.evaluate(model, read_cases(folder), ["inpaint", "anomaly"], tmp_path, plan=PLAN)
        reports.append(read_report(tmp_path / "evaluation.json"))
    one, two = page(reports[:1]), page(reports)
    assert "2 cases of 2 patients" in one and "### Synthetic lesions, 2 cases" in one and "| oracle | **20.0**" in one
    asked = f"Asked of each case: up to {PLAN.spheres_per_size} healthy spheres of each size"
    assert one.count(asked) == two.count(asked) == 1 and "added noise" not in one
    assert "| oracle (before) | **20.0** [20.0, 20.0]" in two and "| oracle (after) | **5.0** [5.0, 5.0]" in two
    assert two.count("| biharmonic fill |") == one.count("| biharmonic fill |")
    found = two[two.index("| lesions found |") : two.index("AUROC over all voxels")].strip().splitlines()
    assert all(line.startswith("|") for line in found) and "oracle (after)" in found[-1]
    assert "| inpaint 20 mm | MAE | 2 of 2 | **+15.0** [+15.0, +15.0] | better |" in two


@pytest.mark.slow
def test_an_ignorant_model_loses(folder, oracle, tmp_path):
    model = oracle(lambda task, truth, given: np.zeros_like(truth))
    report = benchmark.evaluate(model, read_cases(folder), ["inpaint", "anomaly"], tmp_path, plan=PLAN)
    tables = report["tables"]
    assert tables["inpaint"]["20 mm"]["MAE"]["wins"] == {"mean fill": (0, 2), "biharmonic fill": (0, 2)}
    assert {v["verdict"] for v in report["verdict"] if v["task"] == "inpaint"} == {"worse"}
    assert tables["anomaly"]["synthetic lesions"]["AUROC"]["mean"]["oracle"]["mean"] == pytest.approx(0.5)


def test_inpainting_cannot_see_the_truth(folder, oracle, tmp_path):
    seen = []
    model = oracle(lambda task, truth, given: (seen.append(np.abs(given - truth).max()), truth)[1])
    benchmark.evaluate(model, read_cases(folder)[:1], ["inpaint"], tmp_path, plan=PLAN)
    assert seen and min(seen) > 5


def test_baselines_are_computed_once(folder, tmp_path, monkeypatch):
    cases = read_cases(folder)[:1]
    first = benchmark.evaluate(None, cases, ["inpaint"], tmp_path, plan=PLAN, cache=tmp_path / "cache")
    monkeypatch.setattr(benchmark, "PROTOCOLS", {"inpaint": lambda *_: pytest.fail("computed again")})
    again = benchmark.evaluate(None, cases, ["inpaint"], tmp_path, plan=PLAN, cache=tmp_path / "cache")
    assert first["rows"] == again["rows"]


@pytest.mark.slow
def test_a_stopped_run_goes_on_where_it_was(folder, oracle, tmp_path):
    asked = []
    model = oracle(lambda task, truth, given: (asked.append(task), truth + 5)[1])
    again = {"plan": PLAN, "cache": tmp_path / "cache", "resume": True}
    first = benchmark.evaluate(model, read_cases(folder)[:1], ["inpaint"], tmp_path, **again)
    before = len(asked)
    both = benchmark.evaluate(model, read_cases(folder), ["inpaint"], tmp_path, **again)
    assert len(asked) == 2 * before
    ours = [[row for row in report["rows"] if row["case"] == "first"] for report in (first, both)]
    assert ours[0] == ours[1]
    other = {"inpaint": {"strength": 0.5}}
    benchmark.evaluate(model, read_cases(folder)[:1], ["inpaint"], tmp_path, parameters=other, **again)
    assert len(asked) == 3 * before


def test_slab_is_around_the_real_lesion_and_keeps_its_place(folder):
    case = read_cases(folder)[0]
    whole, slab = load_case(case, None), load_case(case, 40.0)
    assert slab.volume.voxels.shape[0] == 10
    assert slab.lesions.sum() == whole.lesions.sum()
    place = [np.append(np.argwhere(one.lesions)[0][::-1], 1) @ one.volume.ijk_to_ras.T for one in (whole, slab)]
    np.testing.assert_allclose(place[0], place[1])


def test_datalist_and_what_is_wrong_with_one(folder, tmp_path):
    rows = [{"image": str(folder / "first.nrrd"), "lesion": str(folder / "first_lesion.nrrd"), "lesion_labels": [7]}]
    datalist = tmp_path / "list.json"
    datalist.write_text(json.dumps({"testing": rows}))
    case = read_cases(datalist)[0]
    assert case.name == "first" and not load_case(case, None).lesions.any()
    wrong = {'{"training": []}': "names no CT", "[1]": "no list", "{": "JSON", "[{}]": "no image"}
    for content, message in wrong.items():
        datalist.write_text(content)
        with pytest.raises(InputError, match=message):
            read_cases(datalist)
    with pytest.raises(InputError, match="neither"):
        read_cases(tmp_path / "absent")


def test_settings_reach_the_tasks_parameters(folder, oracle, tmp_path):
    assert parse_settings(["denoise.steps=20", "anomaly.scales=[1, 2]", "denoise.mode=fast"]) == {
        "denoise": {"steps": 20, "mode": "fast"},
        "anomaly": {"scales": (1, 2)},
    }
    with pytest.raises(InputError, match="cannot be understood"):
        parse_settings(["steps=20"])
    model = oracle(lambda task, truth, given: truth)
    with pytest.raises(InputError, match="does not take"):
        benchmark.evaluate(model, [], ["denoise"], tmp_path, parameters={"denoise": {"steps": 20}})
    with pytest.raises(InputError, match="strength"):
        benchmark.evaluate(model, [], ["denoise"], tmp_path, parameters={"denoise": {"strength": 3}})


@pytest.mark.slow
def test_an_earlier_evaluation_is_put_beside_the_new_one(folder, oracle, tmp_path):
    cases = read_cases(folder)
    worse = oracle(lambda task, truth, given: truth + 20)
    benchmark.evaluate(worse, cases, ["inpaint"], tmp_path / "old", plan=PLAN)
    better = oracle(lambda task, truth, given: truth + 5)
    earlier = read_report(tmp_path / "old" / "evaluation.json")
    report = benchmark.evaluate(better, cases, ["inpaint"], tmp_path / "new", plan=PLAN, earlier=earlier)
    found = {one["group"]: one for one in report["compared"]["differences"] if one["figure"] == "MAE"}
    assert found["20 mm"]["better"] == 2 and found["20 mm"]["mean"] == pytest.approx(15, abs=0.1)
    assert found["20 mm"]["values"]["first"] == pytest.approx((20, 5), abs=0.1)
    assert report["compared"]["warnings"] == []
    assert "| first | 20.0 | 5.0 | -15.0 |" in (tmp_path / "new" / "evaluation.md").read_text()


def test_reports_of_the_first_version_are_still_read(folder, oracle, tmp_path):
    """No verdict, no curves, no evaluations in its rows, and null where a case had nothing to measure."""
    model = oracle(lambda task, truth, given: truth)
    benchmark.evaluate(model, read_cases(folder), ["inpaint"], tmp_path, plan=PLAN)
    report = json.loads((tmp_path / "evaluation.json").read_text())
    old = {key: report[key] for key in ("model", "seed", "parameters", "quick", "plan", "tables", "rows")}
    old["rows"] = [{k: v for k, v in row.items() if k != "evaluations"} for row in old["rows"]]
    old["rows"][0]["values"]["MAE"] = None
    (tmp_path / "old.json").write_text(json.dumps(old))
    rows = rows_of(read_report(tmp_path / "old.json"))
    assert np.isnan(rows[0].values["MAE"]) and rows[1].evaluations is None
    compared = compare(rows, "oracle", old["plan"], old, HIGHER_IS_BETTER)
    assert all(one["mean"] == 0 and one["verdict"] == "open" for one in compared["differences"])


def test_a_changed_yardstick_is_named(folder, oracle, tmp_path):
    model = oracle(lambda task, truth, given: truth)
    report = benchmark.evaluate(model, read_cases(folder), ["inpaint"], tmp_path, plan=PLAN)
    old = read_report(tmp_path / "evaluation.json")
    old["plan"]["dose"] = 0.1
    for row in old["rows"]:
        if row["method"] == "mean fill":
            row["values"]["MAE"] += 1
    warnings = compare(rows_of(report), "oracle", report["plan"], old, HIGHER_IS_BETTER)["warnings"]
    assert "dose" in warnings[0] and "mean fill (inpaint)" in warnings[1] and "biharmonic" not in warnings[1]


def test_a_variant_is_compared_and_is_no_yardstick(folder, oracle, tmp_path):
    model = oracle(lambda task, truth, given: truth + 20)
    benchmark.evaluate(model, read_cases(folder), ["inpaint"], tmp_path, plan=PLAN)
    report = read_report(tmp_path / "evaluation.json")
    for row in [row for row in report["rows"] if row["method"] == "oracle"]:
        report["rows"].append({**row, "method": "oracle, steps 5"})
    rows = rows_of(report)
    for row in rows:
        row.values["MAE"] -= 2 * (row.method == "oracle, steps 5")
    compared = compare(rows, "oracle", report["plan"], report, HIGHER_IS_BETTER)
    means = {one["variant"]: one["mean"] for one in compared["differences"] if one["figure"] == "MAE"}
    assert means == {"": 0, "steps 5": pytest.approx(2)} and compared["warnings"] == []


def test_what_cannot_be_compared_is_refused(folder, tmp_path):
    (tmp_path / "other.json").write_text('{"rows": 3}')
    with pytest.raises(InputError, match="no evaluation"):
        read_report(tmp_path / "other.json")
    (tmp_path / "other.json").write_text("{")
    with pytest.raises(InputError, match="JSON"):
        read_report(tmp_path / "other.json")
    with pytest.raises(InputError, match="need a model"):
        benchmark.evaluate(None, [], [], tmp_path, earlier={"rows": []})
    with pytest.raises(InputError, match="only baselines"):
        compare([], "new", {}, {"rows": [], "plan": {}, "model": None}, HIGHER_IS_BETTER)


def test_paired_difference_against_numbers_worked_out_by_hand():
    def rows(method, values):
        return [Row("inpaint", f"c{n}", f"p{n // 2}", "", method, {"MAE": v}, 0.0) for n, v in enumerate(values)]

    found = difference(rows("a", [1, 2, 3, float("nan")]), rows("b", [2, 4, 2, 9]), "MAE", higher_is_better=False)
    assert (found.better, found.cases, found.patients) == (2, 3, 2)
    assert found.mean == pytest.approx((1 + 2 - 1) / 3)
    assert found.low == pytest.approx(-1) and found.high == pytest.approx(1.5)
    assert found.word == "open"
    steady = difference(rows("a", [1, 1, 1, 1]), rows("b", [2, 2, 2, 3]), "MAE", higher_is_better=False)
    assert steady.word == "better" and steady.low == 1


@pytest.mark.slow
def test_a_wish_to_stop_is_noticed_and_what_is_done_stays(folder, oracle, tmp_path):
    model = oracle(lambda task, truth, given: truth)
    cancel = CancelToken()

    def progress(line):
        if "case 2" in line:
            cancel.cancel()

    with pytest.raises(Cancelled):
        benchmark.evaluate(
            model, read_cases(folder), ["inpaint", "anomaly"], tmp_path, plan=PLAN, progress=progress, cancel=cancel
        )
    stored = json.loads((tmp_path / "evaluation.json").read_text())
    done = {(row["case"], row["task"]) for row in stored["rows"]}
    assert done == {("first", "inpaint"), ("first", "anomaly"), ("second", "inpaint")}


def test_nothing_to_do_is_said(folder, oracle, tmp_path):
    with pytest.raises(InputError, match="nothing to evaluate"):
        benchmark.evaluate(oracle(None), read_cases(folder), [], tmp_path)
