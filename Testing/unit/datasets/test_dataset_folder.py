"""Dataset folders: a case is there whole or not at all, whatever dies when; splits never part a patient."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from MedDiffFMLib.cli import main
from MedDiffFMLib.core.atomic_files import owned_name
from MedDiffFMLib.core.errors import InputError, OutputError
from MedDiffFMLib.datasets.dataset_folder import Dataset, choose_patients
from MedDiffFMLib.datasets.importers import add_datalist, add_files, find_pairs, labels_of
from MedDiffFMLib.datasets.prepare import read_datalist
from MedDiffFMLib.imaging.io import read_volume, write_volume
from MedDiffFMLib.imaging.volume import Volume
from Testing.unit.phantoms import body

ROOT = Path(__file__).parents[3]
SMALL = (12, 20, 20)


def ct() -> Volume:
    return body(SMALL)


def lesion(value: int = 1) -> np.ndarray:
    """A mask as an array."""
    mask = np.zeros(SMALL, np.uint8)
    mask[4:7, 8:12, 8:12] = value
    return mask


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset.create(tmp_path / "data", "Ours")


def test_a_case_from_arrays_comes_back_as_it_was(dataset: Dataset) -> None:
    case = dataset.add("Case 1/left", ct(), lesion(2), anatomy=lesion(51), patient="p1", region="chest")
    assert (case.name, case.patient, case.split, case.labels) == ("Case-1-left", "p1", "training", (2,))
    again = Dataset(dataset.folder).cases()[0]
    assert again == case and Dataset(dataset.folder).title == "Ours"
    image = read_volume(case.files["image"])
    assert image.same_geometry(ct())
    np.testing.assert_array_equal(image.voxels, ct().voxels)
    np.testing.assert_array_equal(read_volume(case.files["label"], "mask").voxels, lesion(2))
    entry = dataset.entries()[0]
    assert (entry.file("label"), entry.file("anatomy"), entry.region) == (
        case.files["label"],
        case.files["anatomy"],
        "chest",
    )


def test_the_folder_can_be_moved_and_its_datalist_read_by_others(dataset: Dataset, tmp_path: Path) -> None:
    for number in range(3):
        dataset.add(f"c{number}", ct(), lesion(), patient=f"p{number}")
    dataset.split(0.3, seed=1)
    for path in dataset.folder.rglob("*.json"):
        assert str(tmp_path) not in path.read_text(), "no absolute path"
    moved = Dataset(shutil.move(dataset.folder, tmp_path / "elsewhere"))
    listed = read_datalist(moved.folder / "datalist.json")
    assert {(e.name, e.split, e.patient) for e in listed} == {(e.name, e.split, e.patient) for e in moved.entries()}
    assert all(entry.image.is_file() and entry.files["label"].is_file() for entry in listed)
    (moved.folder / "dataset.json").unlink()
    assert len(Dataset(moved.folder).cases()) == 3, "a lost dataset.json costs the split, not the cases"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"label": np.zeros((12, 20, 21), np.uint8)}, "The mask has 21 x 20 x 12 voxels, the CT 20 x 20 x 12."),
        ({"label": Volume(lesion(), np.diag([-3.0, -3.0, 3.5, 1]), "mask")}, "lies elsewhere, up to 5.5 mm away"),
        ({"label": lesion() * 0.5}, "holds values that are no whole numbers"),
        ({"label": ct()}, "check that it is not the CT itself"),
        ({"anatomy": np.zeros((3, 3, 3))}, "The organ map has 3 x 3 x 3 voxels"),
        ({"image": ct().with_voxels(np.zeros(SMALL))}, "All voxels have the same value"),
        ({"name": "TAKEN"}, "There is a case 'taken'"),
    ],
)
def test_what_is_no_case_is_refused_and_leaves_nothing(dataset: Dataset, change: dict, words: str) -> None:
    dataset.add("taken", ct())
    before = sorted(path.name for path in dataset.folder.rglob("*"))
    with pytest.raises(InputError) as caught:
        dataset.add(**{"name": "new", "image": ct(), **change})
    assert words in str(caught.value)
    assert sorted(path.name for path in dataset.folder.rglob("*")) == before


@pytest.mark.slow
def test_a_process_that_dies_leaves_whole_cases_only(dataset: Dataset) -> None:
    """Kill a process that adds cases, at two moments; every case that is listed is complete, and work goes on."""
    code = (
        "import sys, itertools; from Testing.unit.phantoms import body\n"
        "from MedDiffFMLib.datasets.dataset_folder import Dataset\n"
        "image = body((12, 20, 20)); label = (image.voxels > 500).astype('uint8')\n"
        "for n in itertools.count(): Dataset(sys.argv[1]).add(f'{sys.argv[2]}-{n}', image, label)"
    )
    generator = np.random.default_rng(3)
    for attempt in range(2):
        process = subprocess.Popen([sys.executable, "-c", code, str(dataset.folder), f"a{attempt}"], cwd=ROOT)
        while not (dataset.folder / "cases" / f"a{attempt}-0").exists():
            assert process.poll() is None
            time.sleep(0.005)
        time.sleep(generator.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.wait()
        cases, damaged = dataset.scan()
        assert damaged == {} and cases
        for case in cases:
            np.testing.assert_array_equal(read_volume(case.files["label"], "mask").voxels, ct().voxels > 500)
    mine = dataset.folder / "cases" / f".{owned_name()}.partial"
    left = mine.with_name(mine.name.replace(f"-{os.getpid()}-", "-4194305-"))  # no process has so high a number
    left.mkdir()
    mine.mkdir()
    dataset.add("last", ct())
    assert not left.exists(), "what a dead process left is swept away"
    assert mine.exists(), "a process is at work there"
    names = {row["name"] for row in json.loads((dataset.folder / "datalist.json").read_text())["training"]}
    assert names == {case.name for case in dataset.cases()}, "the index is written anew from the folders"


def test_a_full_disk_adds_nothing(dataset: Dataset) -> None:
    import resource

    dataset.add("first", ct())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(OutputError):
            dataset.add("second", ct())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [case.name for case in dataset.cases()] == ["first"]
    assert sorted(path.name for path in (dataset.folder / "cases").iterdir()) == ["first"]


def test_a_damaged_case_is_named_and_hides_no_other(dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    dataset.add("good", ct())
    dataset.add("bad", ct())
    (dataset.folder / "cases" / "bad" / "image.nrrd").unlink()
    assert [case.name for case in dataset.cases()] == ["good"]
    assert main(["dataset", "list", str(dataset.folder)]) == 2
    shown = capsys.readouterr().out
    assert "a file of the case is missing" in shown and "1 cases" in shown
    assert main(["dataset", "remove", str(dataset.folder), "bad", "--quiet"]) == 0
    assert dataset.scan()[1] == {}


@given(
    patients=st.lists(st.sampled_from([f"p{n}" for n in range(12)]), min_size=2, max_size=30),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 5),
)
@settings(max_examples=100, deadline=None)
def test_a_split_takes_some_patients_and_leaves_some(patients: list[str], share: float, seed: int) -> None:
    different = set(patients)
    if len(different) < 2:
        with pytest.raises(InputError, match="cannot be split"):
            choose_patients(patients, share, seed)
        return
    chosen = choose_patients(patients, share, seed)
    assert chosen == choose_patients(patients[::-1], share, seed), "the order of adding does not matter"
    assert 0 < len(chosen) < len(different) and set(chosen) < different
    assert abs(len(chosen) - share * len(different)) <= 1


def test_patients_stay_together_and_new_ones_train(dataset: Dataset) -> None:
    for number in range(6):
        dataset.add(f"c{number}", ct(), patient=f"p{number // 2}")
    splits = dataset.split(0.34)
    assert len(splits["validation"]) == 2 and len(splits["training"]) == 4
    assert len({int(name[1:]) // 2 for name in splits["validation"]}) == 1
    late = dataset.add("late", ct(), patient="p9")
    follow = dataset.add("again", ct(), patient=f"p{int(splits['validation'][0][1:]) // 2}")
    assert (late.split, follow.split) == ("training", "validation")
    for share in (0.0, 1.0):
        with pytest.raises(InputError, match="is not possible"):
            dataset.split(share)


# From files


@pytest.mark.parametrize(
    "layout",
    [
        ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "imagesTr/b_0000.nii.gz", "labelsTr/b.nii.gz"),
        ("a.nrrd", "a_mask.nrrd", "b.nrrd", "b-label.nrrd"),
        ("a/ct.nii.gz", "a/mask.nii.gz", "b/CT.nrrd", "b/segmentation.nrrd"),
        ("site/images/a.nrrd", "site/masks/a.nrrd", "site/images/b.nrrd", "site/masks/b_seg.nrrd"),
    ],
    ids=["nnunet", "suffix", "folders", "nested"],
)
def test_images_find_their_masks(layout: tuple[str, ...], tmp_path: Path) -> None:
    for name in layout:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    pairs = [
        (str(entry.image.relative_to(tmp_path)), str(entry.files["label"].relative_to(tmp_path)))
        for entry in find_pairs(tmp_path)
    ]
    assert sorted(pairs) == sorted([layout[:2], layout[2:]])
    assert {entry.name.split("-")[-1] for entry in find_pairs(tmp_path, r"([ab])$")} == {"a", "b"}
    assert {entry.patient for entry in find_pairs(tmp_path, r"([ab])$")} == {"a", "b"}


@pytest.mark.parametrize(
    ("names", "pattern", "words"),
    [
        ([], None, "holds no images"),
        (["a_mask.nrrd"], None, "has no image"),
        (["a.nrrd", "a.nii.gz"], None, "are both the image of case 'a'"),
        (["a.nrrd"], r"^p(\d)", "finds no patient in 'a'"),
        (["a.nrrd"], r"a", "cannot be used"),
        (["a.nrrd"], r"(", "cannot be used"),
    ],
)
def test_pairs_that_are_none_are_refused(names: list[str], pattern: str | None, words: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=words.replace("(", r"\(")):
        find_pairs(tmp_path, pattern)


def test_a_second_call_adds_only_what_is_missing(dataset: Dataset, tmp_path: Path) -> None:
    source = tmp_path / "files"
    for name in ("a", "b"):
        write_volume(ct(), source / f"{name}.nrrd")
        write_volume(ct().with_voxels(lesion()), source / f"{name}_mask.nrrd", mask=True)
    (source / "c.nrrd").write_text("no image")
    states = [(added.name, added.state) for added in add_files(dataset, find_pairs(source))]
    assert states == [("a", "added"), ("b", "added"), ("c", "skipped")]
    write_volume(ct().with_voxels(lesion(3)), source / "b_mask.nrrd", mask=True, overwrite=True)
    again = {added.name: added for added in add_files(dataset, find_pairs(source))}
    assert again["a"].state == "kept"
    assert again["b"].state == "skipped" and "'b' was added from other files" in again["b"].reason


def test_a_datalist_brings_its_split(dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b", "c"):
        write_volume(ct(), tmp_path / f"{name}.nrrd")
    rows = {"training": [{"image": "a.nrrd", "patient": "p1"}], "validation": ["b.nrrd"]}
    (tmp_path / "list.json").write_text(json.dumps(rows))
    assert [added.state for added in add_datalist(dataset, tmp_path / "list.json")] == ["added", "added"]
    assert {case.name: case.split for case in dataset.cases()} == {"a": "training", "b": "validation"}
    rows = {"training": ["b.nrrd"], "validation": [{"image": "c.nrrd"}]}
    (tmp_path / "list.json").write_text(json.dumps(rows))
    assert main(["dataset", "create", str(dataset.folder), "--datalist", str(tmp_path / "list.json"), "--quiet"]) == 0
    assert {case.name: case.split for case in dataset.cases()} == {"a": "training", "b": "training", "c": "validation"}
    rows["training"].append({"image": "a.nrrd", "patient": "c"})  # type: ignore[arg-type]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    with pytest.raises(InputError, match="is in two splits"):
        add_datalist(dataset, tmp_path / "list.json")


def test_the_command_line_builds_a_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "data")
    write_volume(ct(), tmp_path / "x.nrrd")
    write_volume(ct().with_voxels(lesion()), tmp_path / "y.nrrd", mask=True)
    assert main(["dataset", "create", folder, "--quiet"]) == 0
    for name in ("one", "two"):
        add = ["dataset", "add", folder, str(tmp_path / "x.nrrd"), "--mask", str(tmp_path / "y.nrrd"), "--name", name]
        assert main(add) == 0
    capsys.readouterr()
    assert main(["dataset", "split", folder, "--json"]) == 0
    splits = json.loads(capsys.readouterr().out)
    assert sorted(splits["training"] + splits["validation"]) == ["one", "two"]
    assert main(["dataset", "list", folder, "--json"]) == 0
    assert {c["name"]: c["labels"] for c in json.loads(capsys.readouterr().out)["cases"]} == {"one": [1], "two": [1]}
    for arguments, words in (
        (["add", folder, str(tmp_path / "x.nrrd"), "--name", "one"], "There is a case 'one'"),
        (["remove", folder, "three"], "There is no case 'three'"),
        (["remove", folder, "../data"], "There is no case '../data'"),
        (["list", str(tmp_path)], "is no dataset folder"),
        (["create", str(tmp_path)], "is not empty and no dataset"),
        (["create", folder, "--patient-pattern", "x"], "is of use with --pairs only"),
    ):
        assert main(["dataset", *arguments]) == 2
        assert words in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------ names of labels


def two_labels(first: int, second: int) -> np.ndarray:
    """Two boxes, on the grid of ``body()``."""
    label = np.zeros(SMALL, np.uint8)
    label[2:5, 4:8, 4:8], label[6:9, 4:8, 4:8] = first, second
    return label


def test_a_name_has_one_number_in_all_cases(dataset: Dataset) -> None:
    """In whatever order the cases name their structures, and beside masks whose numbers nobody named."""
    red = {"name": "liver", "color": [200, 10, 10], "terminology": "Anatomy~liver"}
    dataset.add("old", ct(), two_labels(1, 1))
    dataset.add("a", ct(), two_labels(1, 2), labels={1: red, 2: "tumor"})
    dataset.add("b", ct(), two_labels(1, 2), labels={1: "Tumor", 2: "liver"})
    first, second, old = dataset.cases()
    assert [label.name for label in first.named] == ["tumor", "liver"] and old.named == ()
    for case, wanted in ((first, two_labels(3, 2)), (second, two_labels(2, 3)), (old, two_labels(1, 1))):
        assert np.array_equal(read_volume(case.files["label"]).voxels, wanted)
    shutil.move(dataset.folder, dataset.folder.with_name("moved"))
    moved = dataset.folder.with_name("moved")
    moved_labels = Dataset(moved).labels()
    assert {value: label.name for value, label in moved_labels.items()} == {2: "tumor", 3: "liver"}
    assert moved_labels[3].as_dict() == {**red, "value": 3}
    assert {int(key) for key in json.loads((moved / "datalist.json").read_text())["labels"]} == {2, 3}
    assert labels_of(moved)[3]["terminology"] == labels_of(moved / "datalist.json")[3]["terminology"] == "Anatomy~liver"


@pytest.mark.slow
def test_two_processes_do_not_give_one_number_to_two_names(tmp_path: Path) -> None:
    """Each adds one case with a structure of its own; started together."""
    folder, image = tmp_path / "set", tmp_path / "ct.nrrd"
    write_volume(ct(), image)
    write_volume(Volume(two_labels(1, 1), ct().ijk_to_ras, "mask"), tmp_path / "mask.nrrd", mask=True)
    Dataset.create(folder)
    command = [sys.executable, "-m", "MedDiffFMLib", "dataset", "add", str(folder), str(image), "--mask"]
    command += [str(tmp_path / "mask.nrrd"), "--label-names"]
    started = [subprocess.Popen([*command, f"1={name}", "--name", name]) for name in ("liver", "tumor", "spleen")]
    assert [process.wait(120) for process in started] == [0, 0, 0]
    assert sorted(Dataset(folder).labels()) == [1, 2, 3]


@pytest.mark.parametrize(
    "options, words",
    [
        (["--label-names", "1=liver", "2=Liver"], "name of its own"),
        (["--label-names", "liver"], "by its number"),
        (["--labels", "none.json"], "names no labels"),
    ],
)
def test_names_that_are_none_are_refused(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_volume(ct(), tmp_path / "ct.nrrd")
    write_volume(Volume(two_labels(1, 2), ct().ijk_to_ras, "mask"), tmp_path / "mask.nrrd", mask=True)
    Dataset.create(tmp_path / "set")
    arguments = ["dataset", "add", str(tmp_path / "set"), str(tmp_path / "ct.nrrd"), "--mask"]
    assert main([*arguments, str(tmp_path / "mask.nrrd"), *options]) == 2
    assert words in capsys.readouterr().err and Dataset(tmp_path / "set").cases() == []


def test_names_survive_a_new_split(dataset: Dataset) -> None:
    """``dataset.json`` may name what no case names."""
    path = dataset.folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "labels": {"7": "kidney"}}))
    dataset.set_validation(["nobody"])
    assert dataset.labels()[7].name == "kidney"
