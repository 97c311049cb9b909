"""What was read is never overwritten, under whatever name, also with --overwrite."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from MedDiffFMLib.cli import main
from Testing.unit.imaging.test_dicom import write_series


@pytest.fixture
def common(tiny_model_file: Path, tmp_path: Path) -> list[str]:
    shutil.copy(tiny_model_file, tmp_path / "prior.safetensors")
    return ["--model", str(tmp_path / "prior.safetensors"), "--device", "cpu", "--threads", "1", "--overwrite"]


def _refused(arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The message of a run that must leave every file as it was."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert {path: path.read_bytes() for path in before} == before
    return shown.err + shown.out


@pytest.mark.parametrize(
    ("output", "target", "how"),
    [
        ("ct.nrrd", None, None),  # its own name
        ("./sub/../ct.nrrd", None, None),
        ("link.nrrd", "ct.nrrd", os.symlink),
        ("twin.nrrd", "ct.nrrd", os.link),
        ("m.nrrd", None, None),
        ("o.nrrd", "m.nrrd", os.symlink),
        ("o.json", "ct.nrrd", os.symlink),  # not only the main result
        ("o.nrrd", "prior.safetensors", os.symlink),
    ],
)
@pytest.mark.skipif(os.name != "posix", reason="links")
def test_one_case(
    output: str,
    target: str | None,
    how: object,
    common: list[str],
    small_ct_file: Path,
    small_mask_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copy(small_ct_file, tmp_path / "ct.nrrd")
    shutil.copy(small_mask_file, tmp_path / "m.nrrd")
    (tmp_path / "sub").mkdir()
    if target is not None:
        how(tmp_path / target, tmp_path / output)  # type: ignore[operator]
    main_result = str(tmp_path / output).replace(".json", ".nrrd")
    files = [str(tmp_path / "ct.nrrd"), "--mask", str(tmp_path / "m.nrrd")]
    assert "is one of the inputs" in _refused(["inpaint", *files, "-o", main_result, *common], tmp_path, capsys)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="links")
def test_a_series_and_the_cases_and_the_list_of_a_batch(
    common: list[str], small_ct_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    series = write_series(tmp_path / "series")
    (tmp_path / "o.nrrd").symlink_to(series[3])
    single = ["denoise", str(tmp_path / "series"), "--noise", "20", "-o", str(tmp_path / "o.nrrd"), *common]
    assert "is one of the inputs" in _refused(single, tmp_path, capsys)

    for name in ("a.nrrd", "a_denoise.nrrd"):  # the result of one case has the name of another
        (tmp_path / "in").mkdir(exist_ok=True)
        shutil.copy(small_ct_file, tmp_path / "in" / name)
    batch = ["denoise", "--batch", str(tmp_path / "in"), "-o", str(tmp_path / "in"), "--noise", "20"]
    told = _refused([*batch, *common, "--steps", "1"], tmp_path, capsys)
    assert "a_denoise.nrrd' is one of the inputs" in told and (tmp_path / "in" / "a_denoise_denoise.nrrd").exists()

    listed = tmp_path / "batch_denoise.csv"
    listed.write_text("input\nin/a.nrrd\n")
    assert "is one of the inputs" in _refused(
        ["denoise", "--batch", str(listed), "-o", str(tmp_path), "--noise", "20", *common], tmp_path, capsys
    )
