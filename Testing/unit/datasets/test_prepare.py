"""The cache that training opens: what is in it, what is left out, and what a second call does."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from MedDiffFMLib.cli import main
from MedDiffFMLib.conditioning.region import body_mask
from MedDiffFMLib.conditioning.tissue import classify_tissue
from MedDiffFMLib.core.atomic_files import owned_name
from MedDiffFMLib.core.errors import InputError, OutputError
from MedDiffFMLib.datasets.datalist import read_datalist
from MedDiffFMLib.datasets.prepare import build_case, prepare
from MedDiffFMLib.datasets.prepared_cases import open_cases
from MedDiffFMLib.imaging.grid import to_grid, working_grid
from MedDiffFMLib.imaging.io import write_volume
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.training.windows import WindowConfig, draw_window
from Testing.unit.phantoms import body


def turned(spacing: float = 3.0) -> Volume:
    """A CT with its axes as no scanner writes them: i to superior, j to the right, k to anterior."""
    matrix = np.zeros((4, 4))
    matrix[2, 0], matrix[0, 1], matrix[1, 2], matrix[3, 3] = spacing, spacing, spacing, 1
    matrix[:3, 3] = 10, -20, 30
    return Volume(np.ascontiguousarray(body((30, 36, 40)).voxels.transpose(1, 2, 0)), matrix)


def listed(folder: Path, training: list, validation: list = ()) -> Path:  # type: ignore[assignment]
    """Write a datalist."""
    path = folder / "datalist.json"
    path.write_text(json.dumps({"training": list(training), "validation": list(validation)}))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three CTs as files, one with organ labels."""
    write_volume(turned(), tmp_path / "turned.nrrd")
    write_volume(body(spacing=1.5), tmp_path / "fine.nii.gz")
    write_volume(body((20, 40, 40)), tmp_path / "small.nrrd")
    labels = np.zeros(turned().voxels.shape, np.uint8)
    labels[4:20, 5:9, 6:30] = 51
    write_volume(turned().with_voxels(labels), tmp_path / "organs.nrrd", mask=True)
    return tmp_path


def test_cases_are_the_cts_turned_to_lps(folder: Path) -> None:
    rows = [{"image": "turned.nrrd", "anatomy": "organs.nrrd", "region": "pelvis", "patient": "p1"}, "fine.nii.gz"]
    summaries = prepare(listed(folder, rows, [{"image": "small.nrrd", "region": "none"}]), folder / "cache")
    assert [(s.name, s.split, s.state) for s in summaries] == [
        ("turned", "training", "prepared"),
        ("fine", "training", "prepared"),
        ("small", "validation", "prepared"),
    ]
    first, fine = open_cases(folder / "cache", "training")
    (small,) = open_cases(folder / "cache", "validation")

    volume = turned()
    grid = working_grid(volume, None)
    level = first.levels[0]
    assert level.voxels.dtype == np.int16 and (first.patient, first.region) == ("p1", "pelvis")
    np.testing.assert_array_equal(level.voxels, to_grid(volume, grid))
    np.testing.assert_allclose(level.spacing, 3.0)
    assert set(np.unique(level.anatomy)) == {0, 51} and (level.anatomy == 51).sum() == 16 * 4 * 24
    assert (level.voxels[level.anatomy == 51].mean()) == volume.voxels[4:20, 5:9, 6:30].mean(), "turned together"
    assert len(first.levels) == len(small.levels) == 1, "3 mm is the coarse level already"
    assert small.region == "" and fine.patient == "fine"

    mask = body_mask(level.voxels)
    edges = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {a}))) for a in range(3)]
    np.testing.assert_allclose(first.body_box[0], [(e[0] - 0.5) * 3 for e in edges])
    np.testing.assert_allclose(first.body_box[1], [(e[-1] + 0.5) * 3 for e in edges])

    acquisition, coarse = fine.levels
    assert coarse.voxels.shape == (20, 30, 30) and coarse.voxels.dtype == np.int16
    np.testing.assert_allclose(coarse.origin, 0.75)
    np.testing.assert_array_equal(acquisition.anatomy, 118 * body_mask(acquisition.voxels))
    np.testing.assert_array_equal(coarse.anatomy, 118 * body_mask(coarse.voxels))
    for level in (*first.levels, *fine.levels, *small.levels):
        assert level.tissue.dtype == np.uint8 and level.tissue.shape == level.voxels.shape
        np.testing.assert_array_equal(level.tissue, classify_tissue(level.voxels, tuple(level.spacing)))


def test_the_coarse_level_lies_where_it_says() -> None:
    spacing, shape = np.array([1.0, 2.0, 1.5]), (30, 24, 20)
    lines = np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij")
    voxels = np.rint(10 * (lines[0] + 2 * lines[1] - lines[2])).astype(np.int16)
    labels = np.broadcast_to((np.arange(30, dtype=np.uint8) // 3)[:, None, None], shape)
    arrays, record = build_case(voxels, spacing, labels)
    assert arrays["coarse"].shape == (10, 16, 10)
    origin = np.array(record["levels"][1]["origin"])
    at = [origin[a] + 3.0 * np.arange(arrays["coarse"].shape[a]) for a in range(3)]
    expected = 10 * (at[0][:, None, None] + 2 * at[1][None, :, None] - at[2][None, None])
    inner = (slice(1, -1),) * 3
    np.testing.assert_allclose(arrays["coarse"][inner], expected[inner], atol=3)
    np.testing.assert_array_equal(arrays["coarse_anatomy"][:, 0, 0], np.arange(10))


def test_bad_cases_are_listed_and_left_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_volume(body().with_voxels(np.zeros((40, 60, 60), np.int16)), folder / "constant.nrrd")
    (folder / "damaged.nrrd").write_bytes((folder / "small.nrrd").read_bytes()[:-500])
    rows = [
        "constant.nrrd",
        "small.nrrd",
        "damaged.nrrd",
        "absent.nrrd",
        {"name": "elsewhere", "image": "fine.nii.gz", "anatomy": "organs.nrrd"},
        {"name": "foot", "image": "fine.nii.gz", "region": "foot"},
    ]
    code = main(["prepare", str(listed(folder, rows)), "--output", str(folder / "cache"), "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert code == 2 and answer["status"] == "error"
    assert (answer["training"], answer["validation"], answer["skipped"]) == (1, 0, 5)
    reasons = {case["name"]: case["reason"] for case in answer["cases"]}
    for name, reason in {
        "constant": "All voxels have the same value (0).",
        "small": "",
        "damaged": "incomplete or damaged",
        "absent": f"There is no file or folder '{folder / 'absent.nrrd'}'.",
        "elsewhere": "another grid than the CT",
        "foot": "There is no region 'foot'.",
    }.items():
        assert reason in reasons[name] and bool(reason) == bool(reasons[name])
    assert [case.name for case in open_cases(folder / "cache", "training")] == ["small"]
    index = json.loads((folder / "cache" / "cases.json").read_text())
    assert set(index["skipped"]) == set(reasons) - {"small"}


@pytest.mark.parametrize("same", ["patient", "image", "bytes"])
def test_no_patient_is_in_two_splits(folder: Path, same: str) -> None:
    validation: dict = {"image": "small.nrrd", "name": "late"}
    training: dict = {"image": "turned.nrrd", "name": "early"}
    if same == "patient":
        training["patient"] = validation["patient"] = "p1"
    elif same == "image":
        training["image"] = "../" + folder.name + "/small.nrrd"
    else:
        (folder / "copy.nrrd").write_bytes((folder / "small.nrrd").read_bytes())
        training["image"] = "copy.nrrd"
    datalist = listed(folder, [training], [validation])
    if same == "bytes":  # only known once the files are read
        assert [s.state for s in prepare(datalist, folder / "cache")] == ["prepared", "skipped"]
        return
    with pytest.raises(InputError, match="is in two splits: early in training, late in validation"):
        prepare(datalist, folder / "cache")
    assert not (folder / "cache").exists()


def test_a_second_call_does_only_what_is_missing(folder: Path) -> None:
    datalist = listed(folder, ["turned.nrrd", "small.nrrd"], ["fine.nii.gz"])
    cache = folder / "cache"
    prepare(datalist, cache)
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*.npy")}
    left = owned_name().replace(f"-{os.getpid()}-", "-4194305-")  # what a kill leaves; no process has that number
    leftover = cache / f".{left}.partial"
    leftover.mkdir()
    (leftover / "acquisition.npy").write_bytes(b"half")
    (cache / "turned" / "case.json").write_text("{")
    write_volume(body((24, 40, 40)), folder / "small.nrrd", overwrite=True)
    assert [s.state for s in prepare(datalist, cache)] == ["prepared", "prepared", "kept"]
    for path, time in before.items():
        assert (path.stat().st_mtime_ns == time) == (path.parent.name == "fine"), path
    assert open_cases(cache, "training")[1].levels[0].voxels.shape == (24, 40, 40)
    assert not leftover.exists()
    again = [(summary.state, summary.shape) for summary in prepare(datalist, cache)]
    assert again == [("kept", (40, 36, 30)), ("kept", (40, 40, 24)), ("kept", (60, 60, 40))]


def test_a_cache_that_cannot_be_written_ends_the_call(folder: Path) -> None:
    (folder / "cache").write_text("a file")
    with pytest.raises(OutputError, match="'turned' cannot be written"):
        prepare(listed(folder, ["turned.nrrd", "small.nrrd"]), folder / "cache")


def test_names_are_unique_and_fit_for_folders(tmp_path: Path) -> None:
    rows = ["a/ct.nii.gz", "b/ct.nii.gz", {"image": "../x y/scan.nrrd", "name": "x/../y z"}, "dicom/p1"]
    names = [entry.name for entry in read_datalist(listed(tmp_path, rows))]
    assert names == ["a-ct.nii.gz", "b-ct.nii.gz", "x-..-y-z", "p1"]
    with pytest.raises(InputError, match="names 2 cases 'ct'"):
        read_datalist(listed(tmp_path, [{"image": "a.nrrd", "name": "ct"}, {"image": "b.nrrd", "name": "ct"}]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "has no splits"),
        ('{"training": {}}', "'training' in datalist.json is not a list"),
        ('{"training": [{"label": "a"}]}', "Row 1 of datalist.json ('training') names no image"),
        ('{"testing": ["a.nrrd"]}', "names no CT under training or validation"),
    ],
)
def test_what_is_no_datalist_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "datalist.json").write_text(text)
    with pytest.raises(InputError) as caught:
        prepare(tmp_path / "datalist.json", tmp_path / "cache")
    assert message in caught.value.cause and caught.value.remedy


def many(cache: Path, name: str, count: int) -> None:
    """A cache in which one case stands ``count`` times, its arrays as links to the same files."""
    files = {path.name: path for path in (cache / name).iterdir()}
    for n in range(count):
        folder = cache / f"copy-{n}"
        folder.mkdir()
        for file, path in files.items():
            os.link(path, folder / file)
    (cache / "cases.json").write_text(json.dumps({"training": [f"copy-{n}" for n in range(count)], "validation": []}))


@pytest.mark.slow
def test_thousands_of_cases_hold_no_files_and_hardly_memory(folder: Path) -> None:
    """Fewer files may be open than there are cases; each case is a few numbers, also for a worker process."""
    resource = pytest.importorskip("resource")
    prepare(listed(folder, ["fine.nii.gz"]), folder / "cache")
    many(folder / "cache", "fine", 2000)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (150, hard))
    try:
        cases = open_cases(folder / "cache", "training")
        samples = [draw_window(case, WindowConfig(size=8), np.random.default_rng(0)) for case in cases[:200]]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert all(type(sample["voxels"]) is np.ndarray for sample in samples), "no map is kept by a sample"
    assert len(cases) == 2000 and len(pickle.dumps(cases)) / 2000 < 4_000 < cases[0].levels[0].voxels.nbytes


def test_a_case_says_whether_its_voxels_are_a_scanners_own(folder: Path) -> None:
    rows = [{"image": "small.nrrd", "native": False}, "turned.nrrd"]
    cache = folder / "cache"
    assert [s.native for s in prepare(listed(folder, rows), cache)] == [False, True]
    assert [case.native for case in open_cases(cache, "training")] == [False, True]
    rows[0] = {"image": "small.nrrd", "native": True}
    assert [s.state for s in prepare(listed(folder, rows), cache)] == ["prepared", "kept"], "made anew if that changes"
    with pytest.raises(InputError, match="neither true nor false for 'native'"):
        read_datalist(listed(folder, [{"image": "small.nrrd", "native": "no"}]))


def test_a_cache_of_an_earlier_version_is_read_without_tissue_and_made_anew(folder: Path) -> None:
    datalist, cache = listed(folder, ["small.nrrd"]), folder / "cache"
    prepare(datalist, cache)
    record = json.loads((cache / "small" / "case.json").read_text())
    del record["native"], record["source"]["native"], record["summary"]["native"]
    record["source"]["format"] = "meddifffm-cache-2"
    (cache / "small" / "case.json").write_text(json.dumps(record))
    (cache / "small" / "acquisition_tissue.npy").unlink()
    (case,) = open_cases(cache, "training")
    assert case.levels[0].tissue is None and case.native
    assert draw_window(case, WindowConfig(size=8), np.random.default_rng(0))["tissue"] is None
    assert [s.state for s in prepare(datalist, cache)] == ["prepared"]
    assert open_cases(cache, "training")[0].levels[0].tissue is not None


def test_a_truncated_level_is_found_when_the_cache_is_opened(folder: Path) -> None:
    prepare(listed(folder, ["small.nrrd"]), folder / "cache")
    path = folder / "cache" / "small" / "acquisition.npy"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="or it is damaged"):
        open_cases(folder / "cache", "training")


def test_tissue_is_classified_when_it_is_first_asked_for(folder: Path) -> None:
    """Fine-tuning does without; the training of a prior on the same cache classifies it then."""
    rows, cache = listed(folder, ["small.nrrd"]), folder / "cache"
    steps = [(False, "prepared", False), (False, "kept", False), (True, "prepared", True), (False, "kept", True)]
    for tissue, state, there in steps:
        (summary,) = prepare(rows, cache, tissue=tissue)
        (case,) = open_cases(cache, "training")
        assert (summary.state, case.levels[0].tissue is not None) == (state, there)
