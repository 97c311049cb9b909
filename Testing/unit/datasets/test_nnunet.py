"""Datasets of nnU-Net: written from generated lesions, and read as a datalist."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from MedDiffFMLib.cli import main
from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.core.file_hash import file_sha256
from MedDiffFMLib.datasets.datalist import read_datalist
from MedDiffFMLib.datasets.dataset_folder import Dataset
from MedDiffFMLib.datasets.labels import labels_in
from MedDiffFMLib.imaging.io import write_volume
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.runner.report import FORMAT


@pytest.fixture
def results(small_ct: Volume, small_mask: Volume, tmp_path: Path) -> Path:
    """What runs of generate_lesion on one CT left, the last one without a lesion worth showing, and another task."""
    folder = tmp_path / "run"
    for name, shift in (("p1a", 0), ("p1b", 3), ("p1c", 5)):
        write_volume(small_ct.with_voxels(small_ct.voxels + shift), folder / f"{name}_generate_lesion.nrrd")
        write_volume(small_mask, folder / f"{name}_generate_lesion_lesion.nrrd", mask=True)
        files = {"with_lesion": f"{name}_generate_lesion.nrrd", "lesion": f"{name}_generate_lesion_lesion.nrrd"}
        report = {
            "format": FORMAT, "settings": {"task": "generate_lesion"}, "model": {}, "versions": {},
            "inputs": {"volume": {"path": "../cts/p1.nrrd", "sha256": "0" * 64}},
            "outputs": {key: {"file": file, "sha256": file_sha256(folder / file)} for key, file in files.items()},
            "facts": {"check": {"good": name != "p1c"}},
        }  # fmt: skip
        (folder / f"{name}_generate_lesion.json").write_text(json.dumps(report))
    (folder / "batch_generate_lesion.json").write_text("{}")
    return folder


def test_a_lesion_run_becomes_a_training_set_of_nnunet_and_comes_back(
    results: Path, small_ct: Volume, small_mask: Volume, tmp_path: Path
) -> None:
    """Files, geometry and labels as nnU-Net's page on its format says, read by nibabel."""
    data, raw = tmp_path / "data", tmp_path / "nnUNet_raw" / "Dataset501_Lesions"
    assert main(["dataset", "create", str(data), "--generated", str(results), "--quiet"]) == 0
    cases = Dataset(data).cases()
    assert [case.name for case in cases] == ["p1a_generate_lesion", "p1b_generate_lesion"]
    assert {case.patient for case in cases} == {"p1"}, "two lesions in one CT are never split"
    Dataset(data).add("other", small_ct, small_mask.with_voxels(small_mask.voxels * 7), labels={7: "bone tumor"})
    Dataset(data).add("bare", small_ct)
    Dataset(data).set_validation(["other"])
    assert main(["dataset", "export", str(data), "--nnunet", str(raw), "--quiet"]) == 0

    description = json.loads((raw / "dataset.json").read_text())
    assert description["channel_names"] == {"0": "CT"} and description["file_ending"] == ".nii.gz"
    assert description["labels"] == {"background": 0, "lesion": 1, "bone tumor": 2} and description["numTraining"] == 3
    names = ["other", "p1a_generate_lesion", "p1b_generate_lesion"]
    assert sorted(p.name for p in (raw / "imagesTr").iterdir()) == [f"{name}_0000.nii.gz" for name in names]
    assert sorted(p.name for p in (raw / "labelsTr").iterdir()) == [f"{name}.nii.gz" for name in names]
    image, label = (nib.load(raw / file) for file in ("imagesTr/other_0000.nii.gz", "labelsTr/other.nii.gz"))
    assert image.shape == label.shape and np.allclose(image.affine, label.affine)
    assert set(np.unique(np.asarray(label.dataobj))) == {0, 2}, "numbers follow each other without a gap"
    assert json.loads((raw / "splits_final.json").read_text()) == [{"train": names[1:], "val": ["other"]}]

    entries = read_datalist(raw / "dataset.json")
    assert [e.name for e in entries if e.split == "training"] == names[1:]
    assert [e.name for e in entries if e.split == "validation"] == names[:1]
    assert labels_in(raw / "dataset.json") == {1: "lesion", 2: "bone tumor"}
    back = tmp_path / "back"
    assert main(["dataset", "create", str(back), "--datalist", str(raw / "dataset.json"), "--quiet"]) == 0
    assert {label.name for label in Dataset(back).labels().values()} == {"lesion", "bone tumor"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"channel_names": {"0": "T1"}}, "Channel 0 of .* is 'T1', not CT"),
        ({"file_ending": ".nrrd"}, r"There is no \*_0000.nrrd"),
        ({"channel_names": ["CT"]}, "not CT"),
    ],
)
def test_datasets_that_cannot_be_used_are_refused(change: dict, words: str, tmp_path: Path) -> None:
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "imagesTr" / "a_0000.nii.gz").touch()
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1}, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps({**content, **change}))
    with pytest.raises(InputError, match=words):
        read_datalist(tmp_path / "dataset.json")


def test_names_that_nnunet_does_not_take_and_empty_runs_are_refused(
    small_ct: Volume, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Dataset.create(tmp_path / "data").add("a", small_ct)
    for words, said in (
        (["export", str(tmp_path / "data"), "--nnunet", str(tmp_path / "lesions")], "Dataset501_Lesions"),
        (["export", str(tmp_path / "data"), "--nnunet", str(tmp_path / "Dataset001_A")], "No case has a label"),
        (["create", str(tmp_path / "new"), "--generated", str(tmp_path)], "no results of generate_lesion"),
    ):
        assert main(["dataset", *words]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
