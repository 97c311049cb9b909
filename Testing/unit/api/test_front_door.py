"""The front door: ``import MedDiffFMLib as mdf``."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import MedDiffFMLib as mdf
from MedDiffFMLib.api import stub
from MedDiffFMLib.runner.case import run_case
from MedDiffFMLib.runner.case_files import CaseFiles
from MedDiffFMLib.runner.outputs import plan_outputs
from MedDiffFMLib.runner.settings import RunSettings
from MedDiffFMLib.tasks.inputs import NONE, REQUIRED
from MedDiffFMLib.tasks.parameters import describe
from MedDiffFMLib.tasks.registry import TASKS

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def model(tiny_model_file: Path) -> mdf.FoundationModel:
    return mdf.load_model(str(tiny_model_file), device="cpu")


@pytest.mark.slow
def test_import_is_cheap_and_brings_nothing_heavy() -> None:
    """Processor time, the best of three; even the list of names needs nothing but NumPy."""
    code = """
import sys, time
begin = time.process_time()
import MedDiffFMLib as mdf
print(time.process_time() - begin)
assert "numpy" not in sys.modules
names = dir(mdf)
assert "anomaly" in names and "Dataset" in names
for name in set(names) - {"finetune"}:
    assert getattr(mdf, name) is not None
heavy = [name for name in ("torch", "monai", "scipy", "lightning", "nibabel") if name in sys.modules]
assert not heavy, heavy
"""
    seconds = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        seconds.append(float(done.stdout))
    assert min(seconds) < 0.05


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'anomly'"):
        _ = mdf.anomly  # type: ignore[attr-defined]
    assert not hasattr(mdf, "__wrapped__")


@pytest.mark.parametrize("name", TASKS)
def test_a_tasks_function_is_its_dataclass(name: str) -> None:
    """Names, order and defaults; the docstring has every limit and every choice."""
    function = getattr(mdf, name)
    parameters = inspect.signature(function).parameters
    own = {field.name: field.default for field in dataclasses.fields(TASKS[name])}
    assert {name: parameters[name].default for name in parameters if name in own} == own
    assert [name for name in parameters if name in own] == list(own)
    assert ("mask" in parameters) == (TASKS[name].inputs.mask is not NONE)
    text = " ".join(inspect.getdoc(function).split())
    for field, info in describe(TASKS[name]):
        assert f"{field.name}: {info.help.rstrip('.')}" in text
        assert info.limits in text and all(choice in text for choice in info.choices)
    assert all(f's["{output.name}"]' in text for output in TASKS[name].outputs)


def test_the_stub_is_that_of_the_table() -> None:
    assert stub.PATH.read_text(encoding="utf-8") == stub.stub(), "run python -m MedDiffFMLib.api.stub"


@pytest.mark.slow
@pytest.mark.parametrize("name, options", [("denoise", {"noise": 20}), ("inpaint", {"samples": 1}), ("anomaly", {})])
def test_results_are_those_of_the_command_line(
    name: str,
    options: dict[str, Any],
    model: mdf.FoundationModel,
    small_ct_file: Path,
    small_mask_file: Path,
    tiny_model_file: Path,
    tmp_path: Path,
) -> None:
    """The same bits, geometry, findings and report, whether inputs are paths, volumes or arrays."""
    task = TASKS[name]
    mask = {"mask": small_mask_file} if task.inputs.mask is REQUIRED else {}
    settings = RunSettings(name, task(**options), seed=3, model=str(tiny_model_file), device="cpu")
    plan = plan_outputs(name, small_ct_file, tmp_path)
    expected = run_case(settings, CaseFiles(small_ct_file, **mask), plan, lambda: model)
    by_path = getattr(mdf, name)(small_ct_file, model, seed=3, **options, **mask)
    arrays = {key: mdf.read_volume(path, "mask").voxels for key, path in mask.items()}
    by_volume = getattr(mdf, name)(mdf.read_volume(small_ct_file), model, seed=np.int64(3), **options, **arrays)
    for output in [output.name for output in task.volumes()]:
        written = mdf.read_volume(plan.file(name, output))
        for result in (by_path, by_volume):
            assert np.array_equal(result.volumes[output].voxels, written.voxels)
            assert result.volumes[output].same_geometry(written)
    assert by_path.table == by_volume.table and len(by_path.table) == expected["findings"]
    assert by_path.facts == expected["facts"] and by_path.warnings == expected["warnings"]
    assert by_path.report["inputs"] == expected["inputs"]
    assert by_volume.report["inputs"]["volume"]["source"] == "memory"


def test_a_model_by_name_and_a_result_to_a_file(small_ct: mdf.Volume, tiny_model_file: Path, tmp_path: Path) -> None:
    """A synthetic CT says so in its file, and where it lies without any input."""
    result = mdf.synthesize(
        tiny_model_file, size=(60, 60, 60), spacing=3.0, companion="none", whole_steps=1, middle_steps=1, native_steps=1
    )
    mdf.write_volume(result.volumes["synthetic"], tmp_path / "nobody.nrrd")
    again = mdf.read_volume(tmp_path / "nobody.nrrd")
    assert again.synthetic and again.spacing == (3.0, 3.0, 3.0)


@pytest.mark.parametrize(
    "task, options, words",
    [
        ("anomaly", {"treshold": 4}, "no parameter 'treshold'. Known are: volume, model, threshold"),
        ("anomaly", {"threshold": 99.0}, "threshold is 99.0. Allowed are 0.5 to 50"),
        ("anomaly", {"threshold": "high"}, "type float"),
        ("anomaly", {"region": "thorax"}, "There is no region 'thorax'"),
        ("anomaly", {"seed": -1}, "seed is -1"),
        ("anomaly", {"model": 3}, "no model"),
        ("denoise", {"mask": None}, "no parameter 'mask'"),
        ("inpaint", {}, "missing a required argument: 'mask'"),
        ("inpaint", {"mask": np.zeros((2, 2, 2))}, "The mask has 2 x 2 x 2 voxels"),
        ("generate_lesion", {"mask": [1]}, "type list is no volume"),
    ],
)
def test_wrong_use_gets_a_typed_error(task: str, options: dict[str, Any], words: str, small_ct: mdf.Volume) -> None:
    with pytest.raises(mdf.InputError, match=words.replace("(", r"\(")):
        getattr(mdf, task)(small_ct, **options)


def test_a_run_tells_how_far_it_is_and_can_be_cancelled(small_ct: mdf.Volume, model: mdf.FoundationModel) -> None:
    cancel, seen = mdf.CancelToken(), []

    def progress(event: mdf.ProgressEvent) -> None:
        seen.append(event.fraction)
        cancel.cancel()

    with pytest.raises(mdf.Cancelled):
        mdf.anomaly(small_ct, model, progress=progress, cancel=cancel)
    assert len(seen) == 1


def test_label_maps_stay_label_maps(small_mask: mdf.Volume, tmp_path: Path) -> None:
    """A volume of modality "mask" is written in its smallest type without being told."""
    mdf.write_volume(small_mask, tmp_path / "mask.nrrd")
    assert mdf.read_volume(tmp_path / "mask.nrrd", "mask").voxels.dtype == np.uint8


def test_a_dataset_from_paths_volumes_and_arrays(small_ct_file: Path, small_mask_file: Path, tmp_path: Path) -> None:
    dataset = mdf.Dataset.create(tmp_path / "lesions")
    dataset.add("one", small_ct_file, small_mask_file, patient="p1", labels={1: "nodule"})
    mask = mdf.read_volume(small_mask_file, "mask")
    dataset.add("two", mdf.read_volume(small_ct_file), mask.voxels, patient="p2")
    assert [case.labels for case in dataset.cases()] == [(1,), (1,)]
    assert {finding.code for finding in dataset.check("lesion").errors} == {"voxel-leak"}
    with pytest.raises(mdf.InputError, match="no fine-tuning task"):
        dataset.check("nodules")
    copy = mdf.Dataset.create(tmp_path / "copy")
    copy.add_datalist(dataset.datalist)
    assert [case.patient for case in copy.cases()] == ["p1", "p2"]


def test_finetuning_takes_a_dataset(small_ct_file: Path, tmp_path: Path) -> None:
    dataset = mdf.Dataset.create(tmp_path / "thin")
    with pytest.raises(mdf.InputError, match="has no cases"):
        mdf.finetune(dataset, tmp_path / "run", "super-resolution", preset="small", prepare_only=True)
    with pytest.raises(mdf.InputError, match="no setting called 'step'"):
        mdf.finetune(dataset, tmp_path / "run", "super-resolution", step=3)
