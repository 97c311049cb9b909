"""Reports: hashes that others can check, and refusal of what is no report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from MedDiffFMLib.core.errors import InputError, OutputError, expected
from MedDiffFMLib.core.json_files import write_json
from MedDiffFMLib.imaging.image_files import stem_of
from MedDiffFMLib.runner.outputs import OutputPlan, plan_outputs
from MedDiffFMLib.runner.report import FORMAT, Stopwatch, read_report, software_versions
from MedDiffFMLib.tasks.denoise.spec import Denoise
from MedDiffFMLib.tasks.parameters import from_dict
from MedDiffFMLib.tasks.registry import TASKS


@pytest.mark.parametrize(
    "content", [None, "{", "[]", "{}", json.dumps({"format": "other"}), json.dumps({"format": FORMAT})]
)
def test_what_is_no_report_is_refused(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "x.json").write_text(content)
    with pytest.raises(InputError) as caught:
        read_report(tmp_path / "x.json")
    assert "x.json" in caught.value.cause and caught.value.remedy


def test_json_is_written_whole_and_never_over_another_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json({"a": np.float32(1.5), "b": float("inf"), "path": tmp_path}, path)
    assert json.loads(path.read_text()) == {"a": 1.5, "b": None, "path": str(tmp_path)}
    with pytest.raises(OutputError):
        write_json({}, path)
    assert len(list(tmp_path.iterdir())) == 1


def test_versions_and_memory_are_measured() -> None:
    versions = software_versions()
    assert versions["numpy"] == np.__version__ and set(versions) >= {"meddifffm", "python", "torch", "monai"}
    fields = Stopwatch().fields()
    assert fields["peak_memory_bytes"]["main"] > 1e7 and fields["seconds"] >= 0 and fields["started"].endswith("+00:00")


def test_names_of_outputs(tmp_path: Path) -> None:
    assert [stem_of(Path(name)) for name in ("a.b.nii.gz", "A.NRRD", "x.dcm", "folder")] == ["a.b", "A", "x", "folder"]
    plan = plan_outputs("anomaly", Path("/data/ct.nrrd"), tmp_path)
    assert [path.name for path in plan.expected("anomaly")] == [
        "ct_anomaly.nrrd",
        "ct_anomaly_healthy.nrrd",
        "ct_anomaly_uncertainty.nrrd",
        "ct_anomaly_findings.csv",
        "ct_anomaly.json",
    ]
    assert plan_outputs("denoise", Path("x.nrrd"), tmp_path / "y.nii.gz") == OutputPlan(tmp_path, "y", ".nii.gz")
    assert plan_outputs("synthesize", None, tmp_path, 7) == OutputPlan(tmp_path, "synthesize_seed7", ".nrrd")


def test_parameters_come_back_from_json_and_nothing_else_does() -> None:
    given = Denoise(noise=12.0, steps=3)
    again = from_dict(Denoise, json.loads(json.dumps(vars(given))))
    assert again == given and isinstance(from_dict(Denoise, {"noise": 12}).noise, float)
    for wrong in ({"steps": "3"}, {"steps": 2.5}, {"steps": True}, {"steps": None}, {"noise": 0}, {"x": 1}):
        with pytest.raises(InputError):
            from_dict(Denoise, wrong)
    for task in TASKS.values():
        assert from_dict(task, {}) == task()


@pytest.mark.parametrize(
    ("problem", "kind"),
    [
        (MemoryError(), "memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), "memory"),
        (ModuleNotFoundError("No module named 'monai'", name="monai"), "dependency"),
        (OSError(28, "No space left on device"), "output"),
        (KeyboardInterrupt(), "cancelled"),
        (InputError("x"), "input"),
        (RuntimeError("shape mismatch"), None),
        (ModuleNotFoundError("x", name="MedDiffFMLib.nothing"), None),
    ],
)
def test_foreign_exceptions_are_understood(problem: BaseException, kind: str | None) -> None:
    typed = expected(problem)
    assert (typed.kind if typed else None) == kind
