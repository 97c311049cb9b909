"""Reports that can be handed on: no absolute paths, private ones without names; folders with accents and blanks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from MedDiffFMLib.cli import main
from MedDiffFMLib.runner.report import published

HOME = "Übung é 肺"


@pytest.fixture
def home(tmp_path: Path, small_ct_file: Path, tiny_model_file: Path) -> Path:
    """A folder whose name is not ASCII, with a CT and a model."""
    folder = tmp_path / HOME
    folder.mkdir()
    shutil.copy(small_ct_file, folder / "Müller CT.nrrd")
    shutil.copy(tiny_model_file, folder / "modèle.safetensors")
    return folder


def run(home: Path, *options: str) -> int:
    command = ["denoise", "--batch", str(home / "Müller CT.nrrd"), "-o", str(home / "é"), "--noise", "20"]
    model = ["--model", str(home / "modèle.safetensors"), "--device", "cpu", "--threads", "1"]
    return main([*command, *model, "--json", *options])


@pytest.mark.slow
def test_reports_have_no_absolute_path_and_move_with_their_files(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(home) == 0
    texts = [path.read_text(encoding="utf-8") for path in (home / "é").iterdir() if path.suffix in (".json", ".csv")]
    assert len(texts) == 3 and not any(str(tmp_path) in text or HOME in text for text in texts)
    report = json.loads((home / "é" / "Müller CT_denoise.json").read_text(encoding="utf-8"))
    assert report["inputs"]["volume"]["path"] == "../Müller CT.nrrd"
    assert report["settings"]["model"] == "../modèle.safetensors"
    home = home.rename(tmp_path / "elsewhere")
    capsys.readouterr()
    assert main(["repeat", str(home / "é" / "Müller CT_denoise.json"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["identical"] is True
    assert run(home) == 0
    assert json.loads(capsys.readouterr().out)["cases"][0]["status"] == "skipped"


@pytest.mark.slow
def test_private_reports_name_no_file(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(home, "--private") == 0
    path = home / "é" / "Müller CT_denoise.json"
    text = path.read_text(encoding="utf-8")
    assert "Müller" not in text and "modèle" not in text and HOME not in text
    assert json.loads(text)["inputs"]["volume"]["sha256"]
    capsys.readouterr()
    assert run(home, "--private") == 0
    assert json.loads(capsys.readouterr().out)["cases"][0]["status"] == "skipped"
    assert main(["repeat", str(path)]) == 2
    assert "The report is private" in capsys.readouterr().err


def test_private_reports_name_no_model_of_a_users_own(tmp_path: Path) -> None:
    """What a file besides the prior is called, which the facts of a run tell; its hash stays."""
    own = {"name": "Müller", "sha256": "1f"}
    report = {
        "settings": {"model": "none", "parameters": {"reader": str(tmp_path / "Müller.safetensors"), "head": "lungs"}},
        "model": {"name": "none", "sha256": ""},
        "facts": {"reader": own, "head": {"name": "lungs", "sha256": "2f"}, "strangeness": 0.3},
    }
    made = published(report, tmp_path, private=True)
    assert "Müller" not in json.dumps(made, ensure_ascii=False)
    assert made["facts"]["reader"]["sha256"] == "1f" and made["facts"]["head"]["name"] == "lungs"
    assert published(report, tmp_path)["facts"]["reader"] == own, "the report that is not private"
