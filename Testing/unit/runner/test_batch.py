"""Many cases: resuming, going on after a bad one, the table."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from MedDiffFMLib.cli import main
from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.core.parts import Claimed, claimed
from MedDiffFMLib.imaging.io import write_volume
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.runner.case_files import CaseFiles
from MedDiffFMLib.runner.case_search import find_cases


@pytest.fixture
def folder(small_ct: Volume, tmp_path: Path) -> Path:
    """Two good cases around a bad one."""
    cases = tmp_path / "cases"
    cases.mkdir()
    write_volume(small_ct, cases / "a.nrrd")
    (cases / "b.nrrd").write_text("no NRRD")
    write_volume(small_ct.with_voxels(small_ct.voxels[::-1].copy()), cases / "c.nii.gz")
    return cases


def run(cases: Path, tmp_path: Path, model: Path, *options: str) -> int:
    arguments = ["denoise", "--batch", str(cases), "-o", str(tmp_path / "out.v1"), "--noise", "20"]
    return main([*arguments, "--model", str(model), "--device", "cpu", "--threads", "1", *options])


def status(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    return {row["name"]: row["status"] for row in json.loads(capsys.readouterr().out)["cases"]}


@pytest.mark.slow
def test_goes_on_after_a_bad_case_and_resumes(
    folder: Path, small_ct: Volume, tmp_path: Path, tiny_model_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, tmp_path, tiny_model_file) == 2
    shown = capsys.readouterr()
    table = [line.split()[:2] for line in shown.out.splitlines()]
    assert table == [["case", "status"], ["a", "done"], ["b", "failed"], ["c", "done"]]
    assert "2/3 b: failed" in shown.err and "does not start with 'NRRD'" in shown.out
    with open(tmp_path / "out.v1" / "batch_denoise.csv", newline="") as stream:
        assert [row["status"] for row in csv.DictReader(stream)] == ["done", "failed", "done"]
    assert json.loads((tmp_path / "out.v1" / "batch_denoise.json").read_text())["cases"][1]["exit_code"] == 2

    write_volume(small_ct.with_voxels(small_ct.voxels + 1), folder / "b.nrrd", overwrite=True)
    assert run(folder, tmp_path, tiny_model_file, "--json") == 0
    assert status(capsys) == {"a": "skipped", "b": "done", "c": "skipped"}


@pytest.mark.slow
def test_what_changed_is_not_skipped(
    folder: Path, small_ct: Volume, tmp_path: Path, tiny_model_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "b.nrrd").unlink()
    assert run(folder, tmp_path, tiny_model_file, "--quiet") == 0
    capsys.readouterr()

    assert run(folder, tmp_path, tiny_model_file, "--json", "--strength", "1.5") == 2
    assert set(status(capsys).values()) == {"failed"}, "results of other settings are replaced only on wish"
    assert run(folder, tmp_path, tiny_model_file, "--json", "--strength", "1.5", "--overwrite") == 0
    assert set(status(capsys).values()) == {"done"}

    write_volume(small_ct.with_voxels(small_ct.voxels + 1), folder / "a.nrrd", overwrite=True)
    (tmp_path / "out.v1" / "c_denoise_noise.nii.gz").write_bytes(b"damaged")
    assert run(folder, tmp_path, tiny_model_file, "--json", "--strength", "1.5", "--overwrite") == 0
    assert status(capsys) == {"a": "done", "c": "done"}, "a changed input or a damaged output is no finished case"


def test_missing_model_ends_the_batch_at_once(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, tmp_path, tmp_path / "none.safetensors") == 3
    assert list((tmp_path / "out.v1").iterdir()) == []


def test_cases_are_found_in_folders_and_lists(folder: Path, small_mask: Volume, tmp_path: Path) -> None:
    assert [case.input.name for case in find_cases([folder], "denoise")] == ["a.nrrd", "b.nrrd", "c.nii.gz"]
    (tmp_path / "list.txt").write_text("cases/c.nii.gz\n\ncases/a.nrrd\n")
    assert [case.input for case in find_cases([tmp_path / "list.txt"], "denoise")] == [
        tmp_path / "cases/c.nii.gz",
        tmp_path / "cases/a.nrrd",
    ]
    (tmp_path / "list.csv").write_text("input,mask\ncases/a.nrrd,m.nrrd\n")
    assert find_cases([tmp_path / "list.csv"], "inpaint") == [CaseFiles(tmp_path / "cases/a.nrrd", tmp_path / "m.nrrd")]
    masks = tmp_path / "masks"
    masks.mkdir()
    write_volume(small_mask, masks / "a.nii.gz", mask=True)
    assert find_cases([folder / "a.nrrd"], "inpaint", {"mask": masks})[0].mask == masks / "a.nii.gz"
    dicom = tmp_path / "dicom"
    (dicom / "patient1").mkdir(parents=True)
    (dicom / "patient1" / "IM0").write_bytes(bytes(128) + b"DICM")
    assert find_cases([dicom], "denoise") == [CaseFiles(dicom / "patient1")]


@pytest.mark.parametrize(
    ("sources", "task", "masks", "words"),
    [
        (["empty"], "denoise", None, "No volumes"),
        (["cases/a.nrrd", "copy/a.nrrd"], "denoise", None, "Several cases are called 'a'"),
        (["cases"], "inpaint", "empty", "no file for 'a'"),
        (["cases"], "inpaint", None, "needs a mask"),
        (["no.csv"], "denoise", None, "cannot be read"),
        (["bad.csv"], "denoise", None, "row without input"),
    ],
)
def test_unclear_batches_are_refused(
    sources: list[str], task: str, masks: str | None, words: str, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.csv").write_text("file\nx.nrrd\n")
    with pytest.raises(InputError, match=words):
        find_cases([tmp_path / name for name in sources], task, {"mask": tmp_path / masks} if masks else None)


@pytest.mark.slow
def test_parts_and_claims_share_cases_among_processes(
    folder: Path, tmp_path: Path, tiny_model_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each part has its own cases and table; what another process computes at this moment is left to it."""
    (folder / "b.nrrd").unlink()
    with claimed(tmp_path, "a_denoise"), pytest.raises(Claimed), claimed(tmp_path, "a_denoise"):
        pass
    (tmp_path / "out.v1").mkdir()
    with claimed(tmp_path / "out.v1", "a_denoise"):
        assert run(folder, tmp_path, tiny_model_file, "--json", "--part", "1/2") == 0
    assert status(capsys) == {"a": "elsewhere"}
    for part, expected in (("2/2", {"c": "done"}), ("3/3", {}), ("1/2", {"a": "done"})):
        assert run(folder, tmp_path, tiny_model_file, "--json", "--part", part) == 0
        assert status(capsys) == expected
    assert run(folder, tmp_path, tiny_model_file, "--json") == 0
    assert status(capsys) == {"a": "skipped", "c": "skipped"}
    written = {path.name for path in (tmp_path / "out.v1").glob("*")}
    assert {"batch_denoise_part1of2.csv", "batch_denoise_part2of2.csv", "batch_denoise.csv"} <= written
    assert not any(name.endswith(".lock") for name in written)


@pytest.mark.parametrize("part", ["0/2", "3/2", "2", "a/b", "1/0"])
def test_what_is_no_part_is_refused(part: str, folder: Path, tmp_path: Path, tiny_model_file: Path) -> None:
    assert run(folder, tmp_path, tiny_model_file, "--part", part) == 2
