"""Cases of a batch: nothing is dropped in silence, nothing that the product made is taken for a case."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from MedDiffFMLib.core.errors import InputError
from MedDiffFMLib.imaging.io import write_volume
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.runner.case_files import CaseFiles
from MedDiffFMLib.runner.case_search import find_cases
from MedDiffFMLib.runner.outputs import plan_outputs
from MedDiffFMLib.runner.report import FORMAT, NOTICE
from Testing.unit.imaging.test_dicom import write_series


def _search(*sources: Path, task: str = "denoise", **folders: Path) -> tuple[list[CaseFiles], str]:
    """Cases, and what was told to be left out."""
    notes: list[str] = []
    return find_cases(sources, task, folders, note=notes.append), "\n".join(notes)


def _empty(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_mixed_folder_gives_every_case_and_names_what_it_leaves_out(tmp_path: Path) -> None:
    write_series(tmp_path / "b_dicom")
    write_series(tmp_path, prefix="loose")
    _empty(tmp_path / "a.NRRD", tmp_path / "c.mha", tmp_path / "d.zip", tmp_path / "e.nii.gz")
    _empty(tmp_path / "notes.pdf", tmp_path / "a.seg.nrrd", tmp_path / ".hidden.nrrd", tmp_path / "._c.mha")
    _empty(tmp_path / "docs" / "readme.md", tmp_path / ".DS_Store")
    (tmp_path / "f.mhd").write_text("NDims = 3\nElementDataFile = f.raw\n")
    _empty(tmp_path / "f.raw")
    cases, notes = _search(tmp_path)
    assert [case.name for case in cases] == [tmp_path.name, "a", "b_dicom", "c", "d", "e", "f"]
    assert notes.splitlines() == [
        f"Left out of {tmp_path} (no volumes): a.seg.nrrd, notes.pdf, docs.",
        f"Left out of {tmp_path} (hidden): .hidden.nrrd.",
    ]


@pytest.mark.parametrize("private", [False, True])
def test_own_results_are_no_cases_but_where_a_list_names_them(private: bool, tmp_path: Path) -> None:
    _empty(tmp_path / "a.nrrd", tmp_path / "a_denoise.nrrd", tmp_path / "a_denoise_noise.nrrd")
    _empty(tmp_path / "a_denoise_mine.nrrd")
    outputs = {"denoised": {"file": "a_denoise.nrrd"}, "noise": {"file": "a_denoise_noise.nrrd"}}
    report = {"format": FORMAT, "notice": NOTICE, "settings": {"task": "denoise"}, "outputs": outputs}
    if private:
        report["outputs"] = {name: {} for name in outputs}
    (tmp_path / "a_denoise.json").write_text(json.dumps(report))
    (tmp_path / "other.json").write_text("[1, 2]")
    cases, notes = _search(tmp_path)
    assert [case.name for case in cases] == ["a", "a_denoise_mine"]
    assert "(results of earlier runs): a_denoise.json, a_denoise.nrrd, a_denoise_noise.nrrd." in notes
    (tmp_path / "list.txt").write_text("a_denoise.nrrd\n")
    assert [case.name for case in _search(tmp_path / "list.txt")[0]] == ["a_denoise"]
    (tmp_path / "a.nrrd").unlink()
    (tmp_path / "a_denoise_mine.nrrd").unlink()
    with pytest.raises(InputError, match="only where a list names them"):
        _search(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b'\xef\xbb\xbfct one.nrrd\r\n\r\n"b.nrrd"\r\n',
        b"'ct one.nrrd'\n  b.nrrd  ",
        "ct one.nrrd\r\nb.nrrd\r\n".encode("utf-16"),
    ],
)
def test_lists_of_every_editor_are_read(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "list.TXT").write_bytes(content)
    assert [case.input for case in _search(tmp_path / "list.TXT")[0]] == [tmp_path / "ct one.nrrd", tmp_path / "b.nrrd"]


@pytest.mark.parametrize(
    "content",
    [
        b'\xef\xbb\xbfInput,Mask,age\r\na.nrrd,"m, 1.nrrd",7\r\n,,\r\n',
        b'sep=;\ninput; mask ;Age\na.nrrd;"m, 1.nrrd";7\n',
        b"mask\tinput\tage\nm, 1.nrrd\ta.nrrd\n",
    ],
)
def test_tables_of_every_spreadsheet_are_read(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(content)
    cases, notes = _search(tmp_path / "list.csv", task="inpaint")
    assert cases == [CaseFiles(tmp_path / "a.nrrd", tmp_path / "m, 1.nrrd")]
    assert notes == "Columns of list.csv that are not used: age."


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("list.txt", b"caf\xe9.nrrd", "is no text"),
        ("list.csv", b"input\na.nrrd,b.nrrd\n", "Row 2 of .* has more cells than columns"),
        ("list.csv", b"input\nA.nrrd\na.nii\n", "Several cases are called 'A'"),
        ("list.csv", b"", "No volumes in"),
        ("gone.txt", None, "cannot be read: No such file or directory"),
    ],
)
def test_unclear_lists_are_refused_without_python(name: str, content: bytes | None, words: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        _search(tmp_path / name)
    assert "codec" not in str(caught.value) and "Errno" not in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_a_link_goes_by_its_own_name(small_ct: Volume, tmp_path: Path) -> None:
    store = tmp_path / "objects" / "MD5E-s1--0f343b0931.nrrd"
    write_volume(small_ct, store)
    for name in ("ct/sub-01.nrrd", "masks/sub-01.seg.nrrd", "masks/sub-02.nrrd"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(store)
    (case,), _ = _search(tmp_path / "ct", task="inpaint", mask=tmp_path / "masks")
    assert case.name == "sub-01" and case.mask == tmp_path / "masks" / "sub-01.seg.nrrd"
    assert plan_outputs("denoise", case.input, tmp_path).base == "sub-01_denoise"
    (tmp_path / "masks" / "sub-01.mha").symlink_to(store)
    with pytest.raises(InputError, match="several files for 'sub-01': sub-01.mha, sub-01.seg.nrrd"):
        _search(tmp_path / "ct", task="inpaint", mask=tmp_path / "masks")


def test_a_folder_may_have_a_dot_in_its_name(tmp_path: Path) -> None:
    for name in ("results_v1.2", "2026.11.28", "out.d"):
        assert plan_outputs("denoise", Path("ct.mhd"), tmp_path / name).report == tmp_path / name / "ct_denoise.json"
    assert plan_outputs("denoise", Path("ct.mhd"), tmp_path / "x.mha").suffix == ".mha"
    for name in ("x.dcm", "x.PNG", "x.nhdr", "x.csv"):
        with pytest.raises(InputError, match="cannot be written"):
            plan_outputs("denoise", Path("ct.nrrd"), tmp_path / name)
