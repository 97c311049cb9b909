"""The catalogue: shipped models beside those of the user, which appear whole, vanish whole and break nothing."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from MedDiffFMLib.cli import main
from MedDiffFMLib.core.errors import InputError, ModelError, OutputError
from MedDiffFMLib.core.file_hash import file_sha256
from MedDiffFMLib.core.resources import resource_folder
from MedDiffFMLib.models import catalogue
from MedDiffFMLib.models.catalogue import (
    CatalogueEntry,
    list_models,
    register_model,
    remove_model,
    resolve,
    user_folder,
)
from MedDiffFMLib.models.checkpoint import read_metadata, write_weights

PRIOR = "0" * 64


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of own models that does not exist yet."""
    monkeypatch.setenv("MEDDIFFFM_MODELS", str(tmp_path / "deep" / "own"))
    return tmp_path / "deep" / "own"


def entry_of(weights: Path, name: str = "my-lesions", run: str = "r1") -> CatalogueEntry:
    return CatalogueEntry(
        name=name,
        title="Lesions of ours",
        description="",
        file="",
        sha256=file_sha256(weights),
        bytes=1,
        licence="own",
        training_data="12 cases",
        memory_mb=100,
        kind="control",
        task="lesion",
        prior=PRIOR,
        run=run,
    )


def test_a_registered_model_is_listed_found_and_removed(
    own: Path, tiny_model_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = [entry.name for entry in list_models()]
    made = register_model(entry_of(tiny_model_file), tiny_model_file, "# Card")
    assert [entry.name for entry in list_models()] == [*shipped, "my-lesions"]
    assert [entry.name for entry in list_models("control") if entry.is_own] == ["my-lesions"]
    assert list_models()[-1] == made and made.bytes == tiny_model_file.stat().st_size
    name, path, digest = resolve("my-lesions")
    assert (name, digest) == ("my-lesions", file_sha256(path)) and path.read_bytes() == tiny_model_file.read_bytes()
    assert (own / made.card).read_text() == "# Card"

    assert main(["models", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["folder"] == str(own)
    assert {m["name"]: m["own"] for m in answer["models"]} == {**dict.fromkeys(shipped, False), "my-lesions": True}
    assert main(["models"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("my-lesions"))
    assert all(word in line for word in ("ControlNet", "lesion", PRIOR[:12], "you", "Lesions of ours"))

    assert main(["models", "--remove", "my-lesions"]) == 0
    assert [entry.name for entry in list_models()] == shipped and list(own.iterdir()) == []
    with pytest.raises(ModelError, match="There is no model called 'my-lesions'"):
        resolve("my-lesions")


def test_names_that_are_taken_or_no_names_are_refused(own: Path, tiny_model_file: Path) -> None:
    register_model(entry_of(tiny_model_file), tiny_model_file, "")
    before = sorted(path.name for path in own.iterdir())
    for name, run, words in (
        ("my-lesions", "r2", "There is a model called 'my-lesions' already"),
        (list_models()[0].name, "r1", "already"),
        ("My lesions", "r1", "cannot be a model's name"),
        ("../up", "r1", "cannot be a model's name"),
    ):
        with pytest.raises(InputError, match=words):
            register_model(entry_of(tiny_model_file, name, run), tiny_model_file, "")
    with pytest.raises(InputError, match="is shipped with MedDiff-FM"):
        remove_model(list_models()[0].name)
    assert sorted(path.name for path in own.iterdir()) == before


def test_a_run_may_replace_its_own_model(own: Path, tiny_model_file: Path, tmp_path: Path) -> None:
    first = register_model(entry_of(tiny_model_file), tiny_model_file, "first")
    better = tmp_path / "better.safetensors"
    better.write_bytes(tiny_model_file.read_bytes()[:-1] + b"\1")
    second = register_model(entry_of(better), better, "second")
    assert second.file != first.file and not first.path.exists(), "a file with a name never changes"
    assert sorted(path.name for path in own.iterdir()) == sorted([second.file, second.card, "my-lesions.json"])
    assert resolve("my-lesions")[1].read_bytes() == better.read_bytes()


def test_damaged_entries_hide_nothing_else(
    own: Path, tiny_model_file: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    register_model(entry_of(tiny_model_file), tiny_model_file, "")
    (own / "half.json").write_text('{"name": "half", ')
    (own / "other.json").write_text(json.dumps({"name": "other"}))
    good = json.loads((own / "my-lesions.json").read_text())
    (own / "away.json").write_text(json.dumps({**good, "name": "away", "file": "../../secret.safetensors"}))
    with caplog.at_level(logging.WARNING):
        assert [entry.name for entry in list_models() if entry.is_own] == ["my-lesions"]
    assert {name for name in ("half", "other", "away") if f"{name}.json" in caplog.text} == {"half", "other", "away"}

    list_models()[-1].path.write_bytes(b"changed")
    assert main(["models", "check"]) == ModelError.exit_code
    shown = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("my-lesions"))
    assert not shown.endswith("ok")


def test_a_folder_that_cannot_be_written_is_an_error_with_a_remedy(own: Path, tiny_model_file: Path) -> None:
    own.parent.mkdir()
    own.write_text("a file")
    with pytest.raises(OutputError) as caught:
        register_model(entry_of(tiny_model_file), tiny_model_file, "")
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("platform", "variable", "expected"),
    [
        ("linux", "XDG_DATA_HOME", "{base}/MedDiffFM/models"),
        ("linux", None, "{home}/.local/share/MedDiffFM/models"),
        ("darwin", None, "{home}/Library/Application Support/MedDiffFM/models"),
        ("win32", "LOCALAPPDATA", "{base}/MedDiffFM/models"),
    ],
)
def test_the_folder_is_the_platforms(
    platform: str, variable: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MEDDIFFFM_MODELS", "XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(catalogue.Path, "home", lambda: tmp_path / "home")
    if variable:
        monkeypatch.setenv(variable, str(tmp_path / "base"))
    assert str(user_folder()) == expected.format(base=tmp_path / "base", home=tmp_path / "home")


def test_entries_and_schema_have_the_same_fields() -> None:
    schema = json.loads((resource_folder() / "Models" / "models.schema.json").read_text())
    listed = set(schema["properties"]["models"]["items"]["properties"])
    assert listed == {field.name for field in fields(CatalogueEntry)} - {"folder"}


def test_no_weights_pass_for_a_pickle_and_no_pickle_for_weights(tmp_path: Path) -> None:
    """A safetensors file begins with its header's length, whose first byte may be that of a pickle."""
    import pickle

    import torch

    path, first = tmp_path / "w.safetensors", set()
    for length in range(0, 256, 8):
        write_weights(path, {"w": torch.zeros(2)}, {"note": "x" * length})
        assert read_metadata(path)["note"] == "x" * length
        first.add(path.read_bytes()[:1])
    assert b"\x80" in first
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps({"weights": [1.0, 2.0]}, protocol))
        with pytest.raises(ModelError, match="pickle"):
            read_metadata(path)
    torch.save({"w": torch.zeros(2)}, path)
    with pytest.raises(ModelError, match="pickle"):
        read_metadata(path)
