"""Results under the names of BIDS derivatives, found again and judged by BIDS's own rules."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from MedDiffFMLib.cli import main
from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.imaging.io import write_volume
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.runner.bids import BIDS, planned


@pytest.mark.parametrize(
    ("scan", "folder", "base"),
    [
        ("sub-01_ct.nii.gz", "sub-01/ct", "sub-01"),
        ("sub-A1_ses-pre_ct.nrrd", "sub-A1/ses-pre/ct", "sub-A1_ses-pre"),
        ("sub-01_ses-2_acq-thin_run-1_ct.nii", "sub-01/ses-2/ct", "sub-01_ses-2_acq-thin_run-1"),
        ("sub-01_desc-denoised_ct.nii.gz", "sub-01/ct", "sub-01"),
    ],
)
def test_entities_of_a_scan_are_those_of_its_results(scan: str, folder: str, base: str) -> None:
    plan = planned("denoise", Path("raw") / scan, Path("out"), BIDS)
    assert plan.file("denoise", "denoised") == Path("out") / folder / f"{base}_desc-denoised_ct.nii.gz"
    assert plan.file("denoise", "noise") == Path("out") / folder / f"{base}_desc-noise_ct.nii.gz"
    assert plan.report == Path("out") / folder / f"{base}_desc-denoised_ct.json", "the sidecar of the main result"
    lesion = planned("generate_lesion", Path(scan), Path("out"), BIDS)
    assert lesion.file("generate_lesion", "with_lesion").name == f"{base}_desc-withLesion_ct.nii.gz"
    assert lesion.file("generate_lesion", "lesion").name == f"{base}_desc-lesion_mask.nii.gz"


@pytest.mark.parametrize("scan", ["thorax.nrrd", "sub-_ct.nrrd", "sub-a-b_ct.nrrd", "ses-1_sub-1_ct.nrrd"])
def test_scans_without_a_subject_are_refused(scan: str) -> None:
    with pytest.raises(InputError, match="is no name of a BIDS scan"):
        planned("denoise", Path(scan), Path("out"), BIDS)


@pytest.mark.slow
def test_a_batch_of_derivatives_resumes_and_has_its_description(
    small_ct: Volume, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, out = tmp_path / "raw", tmp_path / "derivatives" / "meddifffm"
    for name in ("sub-01_ses-1_ct.nii.gz", "sub-02_ct.nii.gz", "thorax.nii.gz"):
        write_volume(small_ct, raw / name)
    words = ["radiograph", "--batch", str(raw), "-o", str(out), "--names", "bids", "--json"]
    assert main(words) == 2
    rows = json.loads(capsys.readouterr().out)["cases"]
    assert [(row["name"], row["status"]) for row in rows] == [
        ("sub-01_ses-1_ct", "done"), ("sub-02_ct", "done"), ("thorax", "failed")
    ]  # fmt: skip
    assert main(words) == 2
    rows = json.loads(capsys.readouterr().out)["cases"]
    assert [row["status"] for row in rows] == ["skipped", "skipped", "failed"]

    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative" and description["GeneratedBy"][0]["Name"] == "MedDiff-FM"
    assert {"Name", "BIDSVersion"} <= set(description)
    files = sorted(path.name for path in (out / "sub-01" / "ses-1" / "ct").iterdir())
    assert files and all(file.startswith("sub-01_ses-1_desc-") for file in files)
    assert main(["radiograph", str(raw / "thorax.nii.gz"), "--names", "bids", "--quiet"]) == 2
