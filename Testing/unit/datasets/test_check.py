"""The dataset check: every mistake is found, named with its case and a remedy, and all of them at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from MedDiffFMLib.cli import main
from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.datasets.check import Needs, check_dataset, read_entries
from MedDiffFMLib.datasets.check_report import CheckReport
from MedDiffFMLib.datasets.dataset_folder import Dataset
from MedDiffFMLib.imaging.io import write_volume
from MedDiffFMLib.imaging.volume import Volume
from Testing.unit.phantoms import body

SHAPE = (16, 24, 24)
LESION = Needs("lesion", mask=True, window=16)
EXPECTED = {"few-cases", "one-validates", "ct"}
"""Warnings that every small example here deserves."""


def ct(seed: int) -> Volume:
    """Scans that differ in every voxel."""
    noise = np.random.default_rng(seed).integers(-20, 21, SHAPE)
    return body(SHAPE).with_voxels((body(SHAPE).voxels + noise).astype(np.int16))


def mask(value: int = 1) -> np.ndarray:
    label = np.zeros(SHAPE, np.uint8)
    label[5:9, 10:14, 10:14] = value
    return label


class Builder:
    """A good datalist of four cases, to be spoilt."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: dict[str, list] = {"training": [], "validation": []}
        for number, split in enumerate(("training", "training", "training", "validation")):
            self.add(f"c{number}", split, ct(number))

    def add(self, name: str, split: str, image: Volume, label: np.ndarray | None = None, **row: str) -> None:
        write_volume(image, self.folder / f"{name}.nrrd")
        self.label(name, mask() if label is None else label)
        self.rows[split].append({"image": f"{name}.nrrd", "label": f"{name}_mask.nrrd", **row})

    def label(self, name: str, label: np.ndarray, matrix: np.ndarray | None = None) -> None:
        volume = Volume(label, ct(0).ijk_to_ras if matrix is None else matrix, "mask")
        write_volume(volume, self.folder / f"{name}_mask.nrrd", overwrite=True)

    def path(self) -> Path:
        path = self.folder / "datalist.json"
        path.write_text(json.dumps(self.rows))
        return path


@pytest.fixture
def good(tmp_path: Path) -> Builder:
    return Builder(tmp_path)


def codes(found: CheckReport, level: str = "error") -> list[tuple[str, str]]:
    return [
        (finding.code, finding.case)
        for finding in found.findings
        if finding.level == level and finding.code not in EXPECTED
    ]


def test_a_good_dataset_has_no_errors(good: Builder) -> None:
    found = check_dataset(good.path(), LESION)
    assert not found.errors and codes(found, "warning") == []
    assert {finding.code for finding in found.warnings} <= EXPECTED
    assert "3 training and 1 validation cases, 0 errors" in found.text()
    assert found.cases[0].labels == (1,) and found.cases[0].marked_ml == pytest.approx(64 * 0.027)
    found.raise_for_errors()


def no_image(good: Builder) -> None:
    (good.folder / "c1.nrrd").unlink()


def damaged_image(good: Builder) -> None:
    (good.folder / "c1.nrrd").write_bytes((good.folder / "c1.nrrd").read_bytes()[:-300])


def not_a_ct(good: Builder) -> None:
    write_volume(ct(1).with_voxels(np.abs(ct(1).voxels)), good.folder / "c1.nrrd", overwrite=True)


def no_mask_file(good: Builder) -> None:
    (good.folder / "c1_mask.nrrd").unlink()


def no_mask(good: Builder) -> None:
    del good.rows["training"][1]["label"]


def mask_of_other_size(good: Builder) -> None:
    good.label("c1", np.ones((4, 5, 6), np.uint8))


def mask_elsewhere(good: Builder) -> None:
    matrix = ct(1).ijk_to_ras.copy()
    matrix[0, 3] += 20
    good.label("c1", mask(), matrix)


def mask_of_fractions(good: Builder) -> None:
    good.label("c1", mask() * np.float32(0.5))


def mask_everywhere(good: Builder) -> None:
    good.label("c1", np.ones(SHAPE, np.uint8))


def one_case(good: Builder) -> None:
    good.rows = {"training": good.rows["training"][:1], "validation": []}


def one_patient(good: Builder) -> None:
    for row in (*good.rows["training"], *good.rows["validation"]):
        row["patient"] = "p"
    good.rows = {"training": good.rows["training"] + good.rows["validation"], "validation": []}


def patient_in_both(good: Builder) -> None:
    good.rows["training"][0]["patient"] = good.rows["validation"][0]["patient"] = "p"


def file_in_both(good: Builder) -> None:
    good.rows["validation"].append({**good.rows["training"][1], "name": "copy"})


def scan_in_both(good: Builder) -> None:
    """The same scan, cut, turned and saved under another name."""
    image = ct(1)
    turned = Volume(np.ascontiguousarray(image.voxels[2:, :, ::-1]), image.ijk_to_ras @ np.diag([-1.0, 1, 1, 1]))
    label = Volume(mask()[2:], turned.ijk_to_ras, "mask")
    write_volume(turned, good.folder / "other.nrrd")
    write_volume(label, good.folder / "other_mask.nrrd")
    good.rows["validation"].append({"image": "other.nrrd", "label": "other_mask.nrrd"})


def no_training(good: Builder) -> None:
    good.rows = {"training": [], "validation": good.rows["training"]}


def all_empty(good: Builder) -> None:
    for number in range(3):
        good.label(f"c{number}", 0 * mask())


def nothing_to_validate(good: Builder) -> None:
    good.label("c3", 0 * mask())


def nothing_listed(good: Builder) -> None:
    good.rows = {"training": [], "validation": []}


ERRORS: list[tuple[Callable[[Builder], None], str, str, str]] = [
    (nothing_listed, "list", "", "names no CT under training or validation"),
    (no_image, "image", "c1", "There is no file or folder"),
    (damaged_image, "image", "c1", "incomplete or damaged"),
    (not_a_ct, "image", "c1", "do not look like CT in Hounsfield units"),
    (no_mask_file, "mask", "c1", "There is no file or folder"),
    (no_mask, "mask", "c1", "It has no mask."),
    (mask_of_other_size, "mask", "c1", "The mask has 6 x 5 x 4 voxels, the CT 24 x 24 x 16."),
    (mask_elsewhere, "mask", "c1", "lies elsewhere"),
    (mask_of_fractions, "mask", "c1", "no whole numbers"),
    (mask_everywhere, "mask", "c1", "covers the whole image"),
    (one_case, "too-few", "", "There is only one patient (1 cases)."),
    (one_patient, "too-few", "", "There is only one patient (4 cases)."),
    (patient_in_both, "patient-leak", "c3", "Patient 'p' is in two splits: c0 in training, c3 in validation."),
    (file_in_both, "file-leak", "copy", "The same image file is in two splits"),
    (scan_in_both, "voxel-leak", "other", "slices are equal to slices of c1, voxel by voxel"),
    (no_training, "empty-split", "", "There is no training case."),
    (all_empty, "all-empty", "", "All masks of the training cases are empty."),
    (nothing_to_validate, "all-empty", "", "All masks of the validation cases are empty."),
]


@pytest.mark.parametrize(("spoil", "code", "case", "words"), ERRORS, ids=[row[0].__name__ for row in ERRORS])
def test_each_mistake_is_named(
    good: Builder, spoil: Callable[[Builder], None], code: str, case: str, words: str
) -> None:
    spoil(good)
    found = check_dataset(good.path(), LESION)
    assert codes(found) == [(code, case)], found.text()
    assert words in found.errors[0].cause and found.errors[0].remedy
    with pytest.raises(InputError) as caught:
        found.raise_for_errors("check.txt")
    assert words in caught.value.cause and "check.txt" in caught.value.remedy


def test_all_mistakes_come_at_once(good: Builder, capsys: pytest.CaptureFixture[str]) -> None:
    no_image(good)
    patient_in_both(good)
    good.label("c2", np.ones((4, 5, 6), np.uint8))
    report = good.folder / "report.json"
    command = ["dataset", "check", str(good.path()), "--window", "16", "--quiet"]
    assert main([*command, "--report", str(report)]) == 2
    text = capsys.readouterr().out
    wanted = [("patient-leak", "c3"), ("image", "c1"), ("mask", "c2")]
    assert [line.split()[1:3] for line in text.splitlines() if line.startswith("ERROR")] == [
        [f"[{code}]", f"{case}:"] for code, case in wanted
    ]
    written = json.loads(report.read_text())
    assert [(f["code"], f["case"]) for f in written["findings"] if f["level"] == "error"] == wanted
    assert written["status"] == "error" and len(written["cases"]) == 4
    assert main([*command, "--json"]) == 2
    assert json.loads(capsys.readouterr().out) == written


def test_doubts_are_warnings(good: Builder) -> None:
    tiny, air, many, wide = 0 * mask(), 0 * mask(), 0 * mask(), 0 * mask()
    tiny[8, 12, 12] = 1
    air[:2, :3, :3] = 1
    many[4:9, 10:15, 10:15] = np.arange(125).reshape(5, 5, 5) % 40
    wide[8, 12, 2:22] = 1
    for number, label in enumerate((tiny, air, many, wide)):
        good.label(f"c{number}", label)
    good.add("empty", "training", ct(8), 0 * mask())
    good.add("again", "training", ct(2))
    found = check_dataset(good.path(), LESION)
    assert not found.errors, found.text()
    assert set(codes(found, "warning")) == {
        ("tiny-mask", "c0"),
        ("mask-in-air", "c1"),
        ("many-labels", "c2"),
        ("large-mask", "c3"),
        ("empty-mask", "empty"),
        ("duplicate", "again"),
    }
    larger = check_dataset(good.path(), Needs("lesion", mask=True, window=32))
    assert ("small-image", "c0") in codes(larger, "warning")


def test_only_the_chosen_labels_count(good: Builder) -> None:
    good.label("c1", mask(2))
    found = check_dataset(good.path(), Needs("lesion", mask=True, window=16, labels=(1,)))
    assert codes(found, "warning") == [("empty-mask", "c1")]
    assert "no voxel of the labels 1" in next(f.cause for f in found.warnings if f.case == "c1" and f.code != "ct")
    assert found.cases[1].labels == (2,) and found.cases[1].marked_ml == 0


def test_a_task_without_masks_asks_for_none(good: Builder) -> None:
    no_mask_file(good)
    mask_of_other_size(good)
    assert not check_dataset(good.path(), Needs("super-resolution", mask=False, window=16)).errors


def test_without_a_split_patients_are_chosen(good: Builder) -> None:
    good.rows = {"training": good.rows["training"] + good.rows["validation"]}
    first, second = (check_dataset(good.path(), LESION) for _ in range(2))
    assert not first.errors and len(first.validation) == 1 and first.validation == second.validation
    assert codes(first, "warning") == [("auto-split", "")] and first.validation[0] in first.text().split("\n\n")[1]
    assert {entry.name for entry in read_entries(good.path(), LESION) if entry.split == "validation"} == set(
        first.validation
    )


def test_a_dataset_folder_is_checked_for_damage(tmp_path: Path) -> None:
    dataset = Dataset.create(tmp_path / "data")
    found = check_dataset(dataset.folder, LESION)
    assert codes(found) == [("list", "")] and "has no cases" in found.errors[0].cause
    for number in range(4):
        dataset.add(f"c{number}", ct(number), mask())
    assert codes(check_dataset(dataset.folder, LESION)) == []
    write_volume(ct(9), dataset.folder / "cases" / "c1" / "image.nrrd", overwrite=True)
    (dataset.folder / "cases" / "c2" / "case.json").write_text("{")
    found = check_dataset(dataset.folder, LESION)
    assert codes(found) == [("damaged-case", "c2")] and ("changed", "c1") in codes(found, "warning")
