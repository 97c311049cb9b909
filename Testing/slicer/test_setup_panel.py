"""The Set-up section: which Python, packages in a folder of their own, broken torch, handshake, own models."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path, widget: Any) -> Path:
    """The package folder of the test, chosen in the panel."""
    widget.ui.folderPythonRadioButton.click()
    widget.ui.packageFolderLineEdit.currentPath = str(tmp_path / "own packages")
    return tmp_path / "own packages"


def add_package(folder: Path, name: str, version: str) -> None:
    """What pip leaves of an installed package, as far as it tells the version."""
    about = folder / f"{name}-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def whole_torch(folder: Path) -> None:
    (folder / "torch" / "lib").mkdir(parents=True)
    for name in ("__init__.py", "version.py", "lib/libtorch.so"):
        (folder / "torch" / name).write_text("")


@pytest.mark.slow
def test_three_ways_exclude_each_other(widget: Any) -> None:
    ui, choice = widget.ui, widget.logic.workerPython
    ui.setupCollapsibleButton.collapsed = False
    assert ui.otherPythonRadioButton.checked and choice.useOther and not choice.useFolder
    ui.folderPythonRadioButton.click()
    assert choice.useFolder and not choice.useOther and not ui.otherPythonRadioButton.checked
    assert ui.packageFolderLineEdit.visible and not ui.pythonPathLineEdit.enabled and not ui.installButton.visible
    ui.slicerPythonRadioButton.click()
    assert not choice.useFolder and not choice.useOther and ui.installButton.visible
    assert not ui.packageFolderLineEdit.visible
    ui.remoteRadioButton.click()
    assert choice.useRemote and ui.remoteLineEdit.visible and not ui.installButton.visible
    ui.otherPythonRadioButton.click()
    assert choice.useOther and not choice.useRemote and not ui.remoteLineEdit.visible


def test_another_computer_needs_an_address_and_no_packages_here(
    app: Any, widget: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address goes to the worker's start; what runs here alone says that it does."""
    from MedDiffFMLib.worker.client import worker_command

    monkeypatch.setattr(app.slicer.packaging, "pip_check", lambda requirement: False)
    ui, choice = widget.ui, widget.logic.workerPython
    ui.remoteRadioButton.click()
    assert "ssh://user@host" in choice.problem() and not ui.checkPythonButton.enabled
    for text, words in (("workstation", "no address"), ("ssh://a:b@host", "no password"), ("ssh://me@host", "")):
        ui.remoteLineEdit.text = text
        ui.remoteLineEdit.editingFinished.emit()
        assert words in choice.problem() and bool(words) == bool(choice.problem())
    assert ui.checkPythonButton.enabled and "no name" in ui.setupStatusLabel.text
    program, arguments = worker_command(choice.executable())
    assert program == sys.executable and arguments[-1] == "ssh://me@host"
    assert "this computer" in choice.localProblem()


@pytest.mark.slow
def test_packages_of_the_folder_count_and_only_the_worker_sees_them(
    app: Any, widget: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.slicer.packaging, "pip_check", lambda requirement: requirement.name != "monai")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if not (Path(path or ".") / "torch").is_dir()])
    widget.onWorkerPythonChanged()
    assert str(folder) in widget.logic.workerPython.problem() and "monai>=1.5" in widget.ui.setupStatusLabel.text
    add_package(folder, "monai", "1.4.0")
    widget.onWorkerPythonChanged()
    assert "monai" in widget.logic.workerPython.problem()
    add_package(folder, "MONAI", "1.6.0")
    (folder / "monai-1.4.0.dist-info" / "METADATA").unlink()
    (folder / "monai-1.4.0.dist-info").rmdir()
    widget.onWorkerPythonChanged()
    assert widget.logic.workerPython.problem() == ""
    environment = widget.logic.workerPython.environment()
    assert environment["PYTHONPATH"].split(":" if sys.platform != "win32" else ";")[0] == str(folder)
    assert str(folder) not in sys.path


@pytest.mark.slow
def test_a_torch_without_its_code_is_named(
    app: Any, widget: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Windows' path limit leaves: licenses, but no package; Python would import it as an empty one."""
    monkeypatch.setattr(app.slicer.packaging, "pip_check", lambda requirement: True)
    (folder / "torch" / "licenses").mkdir(parents=True)
    widget.onWorkerPythonChanged()
    assert (
        "only in part" in widget.ui.setupStatusLabel.text and str(folder / "torch") in widget.ui.setupStatusLabel.text
    )
    assert not widget.ui.runButton.enabled
    whole_torch(folder)
    widget.onWorkerPythonChanged()
    assert widget.logic.workerPython.problem() == ""


def make_wheel(folder: Path, name: str) -> None:
    """A wheel with one module."""
    folder.mkdir(exist_ok=True)
    about = f"{name}-9.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-9.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", "")
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.0\n")
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{about}/RECORD", "")


@pytest.mark.slow
def test_wheels_are_installed_without_internet_and_whole_or_not_at_all(
    app: Any, widget: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real pip: first a wheel is missing and nothing appears, then all are there."""
    from packaging.requirements import Requirement

    names = {"requirements.txt": "tinyone", "requirements-training.txt": "tinytwo"}

    def required(path: Path) -> list[Requirement]:
        name = names.get(Path(path).name)
        return [Requirement(f"{name}>=9")] if name else []

    monkeypatch.setattr(app.slicer.packaging, "load_requirements", required)
    wheels = tmp_path / "wheels"
    make_wheel(wheels, "tinyone")
    panel, ui = widget.setupPanel, widget.ui
    panel.installIntoFolder("wheels", str(wheels))
    assert ui.folderInstallButton.text == "Cancel" and ui.folderInstallButton.enabled
    app.wait(lambda: panel._install is None, 120)
    assert "tinytwo" in ui.installStatusLabel.text
    assert not folder.exists() and not list(tmp_path.glob("own packages*"))

    make_wheel(wheels, "tinytwo")
    panel.installIntoFolder("wheels", str(wheels))
    app.wait(lambda: panel._install is None, 120)
    assert (folder / "tinyone" / "__init__.py").exists() and (folder / "tinytwo").is_dir()
    assert list(tmp_path.glob("own packages*")) == [folder]
    assert "everything" in ui.setupStatusLabel.text


@pytest.mark.slow
def test_cancelled_installation_leaves_nothing(app: Any, widget: Any, folder: Path, tmp_path: Path) -> None:
    widget.setupPanel.installIntoFolder("wheels", str(tmp_path))
    widget.ui.folderInstallButton.click()
    assert widget.setupPanel._install is None and "Cancelled" in widget.ui.installStatusLabel.text
    assert not list(tmp_path.glob("own packages*"))


def test_pip_is_told_where_to_look(module: Any) -> None:
    from MedDiffFMGui.worker.packageFolder import CPU_INDEX, pipArguments

    assert CPU_INDEX in pipArguments(["torch>=2.4"], "t", "cpu") and CPU_INDEX not in pipArguments([], "t", "cuda")
    offline = pipArguments(["torch>=2.4"], "t", "wheels", "w")
    assert "--no-index" in offline and offline[-1] == "torch>=2.4" and "--target" in offline


def test_check_starts_the_python_once_and_says_what_it_has(app: Any, widget: Any) -> None:
    widget.ui.checkPythonButton.click()
    assert not widget.ui.checkPythonButton.enabled
    app.wait(lambda: widget.ui.pythonCheckLabel.text.startswith("Works"), 60)
    assert "torch 2.9.0, CPU, 2 cores, Pretend GPU (6.5 of 8 GB free)." in widget.ui.pythonCheckLabel.text
    assert widget.ui.checkPythonButton.enabled


def test_check_of_a_program_that_is_no_python(app: Any, widget: Any, tmp_path: Path) -> None:
    program = tmp_path / "noworker"
    program.write_text("#!/bin/sh\necho hello\n")
    program.chmod(0o755)
    widget.ui.pythonPathLineEdit.currentPath = str(program)
    widget.ui.checkPythonButton.click()
    app.wait(lambda: widget.setupPanel._check is None, 60)
    assert "does not speak the protocol" in widget.ui.pythonCheckLabel.text


def test_own_models_are_listed_and_emptied(
    widget: Any, own_models: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MEDDIFFFM_MODELS", str(tmp_path / "models"))
    widget.setupPanel.update()
    assert "empty" in widget.ui.modelFolderLabel.text and not widget.ui.emptyModelFolderButton.enabled
    shipped = json.loads((ROOT / "Resources" / "Models" / "models.json").read_text())["models"][0]
    entry = {**shipped, "name": "mine", "file": "mine.safetensors", "card": ""}
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.json").write_text(json.dumps(entry))
    (tmp_path / "models" / "mine.safetensors").write_bytes(b"0" * 2_000_000)
    widget.setupPanel.update()
    assert "2 MB" in widget.ui.modelFolderLabel.text and widget.ui.emptyModelFolderButton.enabled
    widget.setupPanel.emptyModels()
    assert not list((tmp_path / "models").iterdir()) and not widget.ui.emptyModelFolderButton.enabled


def test_offline_instructions_name_the_lists(module: Any) -> None:
    from MedDiffFMGui.panels.setupPanel import offlineText

    text = offlineText()
    assert "pip download" in text and "requirements-training.txt" in text and str(ROOT / "MedDiffFM") in text


def test_extras_are_offered_and_only_the_chosen_ones_installed(
    app: Any, widget: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there cannot be chosen; the rest goes to Slicer's installer, which asks."""
    there, asked = {"highdicom"}, []

    def ensure(requirements: list[str], requester: str) -> None:
        asked.append((requirements, requester))
        there.add("dicomweb-client")
        there.add("pynetdicom")

    monkeypatch.setattr(app.slicer.packaging, "pip_check", lambda requirement: requirement.name in there)
    monkeypatch.setattr(app.slicer.packaging, "pip_ensure", ensure)
    ui = widget.ui
    widget.setupPanel.update()
    assert ui.dicomExtraCheckBox.checked and not ui.dicomExtraCheckBox.enabled
    assert ui.pacsExtraCheckBox.enabled and not ui.pacsExtraCheckBox.checked and not ui.installExtrasButton.enabled
    ui.pacsExtraCheckBox.click()
    assert ui.installExtrasButton.enabled
    ui.installExtrasButton.click()
    assert asked == [(["dicomweb-client>=0.59", "pynetdicom>=2.1"], "MedDiff-FM")]
    assert ui.pacsExtraCheckBox.checked and not ui.pacsExtraCheckBox.enabled and not ui.installExtrasButton.enabled
    assert ui.trainingExtraCheckBox.enabled


@pytest.mark.slow
def test_a_stores_model_is_downloaded_after_a_question(
    app: Any, widget: Any, own_models: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model_file: Path
) -> None:
    """By the real command; without consent nothing comes."""
    from MedDiffFMLib.core.file_hash import file_sha256
    from MedDiffFMLib.models.catalogue import list_models
    from MedDiffFMLib.models.store import add_store

    monkeypatch.setenv("MEDDIFFFM_MODELS", str(tmp_path / "models"))
    panel, ui = widget.setupPanel, widget.ui
    panel.update()
    assert not ui.downloadModelWidget.visible
    shipped = json.loads((ROOT / "Resources" / "Models" / "models.json").read_text())["models"][0]
    size = {"sha256": file_sha256(tiny_model_file), "bytes": tiny_model_file.stat().st_size}
    row = {**shipped, "name": "lab-prior", "title": "Prior of the laboratory", "card": "", **size,
           "address": tiny_model_file.as_uri()}  # fmt: skip
    (tmp_path / "models.json").write_text(json.dumps({"models": [row]}))
    add_store(str(tmp_path / "models.json"))
    widget.logic.workerPython.useOther = False
    monkeypatch.setattr(type(widget.logic.workerPython), "executable", lambda self: sys.executable)
    panel.update()
    assert ui.availableModelComboBox.currentText == "Prior of the laboratory, 1 MB"
    questions: list[str] = []
    answers = [False, True]

    def confirm(text: str, **_: Any) -> bool:
        questions.append(text)
        return answers.pop(0)

    monkeypatch.setattr(app.slicer.util, "confirmOkCancelDisplay", confirm)
    ui.downloadModelButton.click()
    assert panel.modelDownload._command is None and "licence" in questions[0] and tiny_model_file.name in questions[0]
    ui.downloadModelButton.click()
    assert ui.downloadModelButton.text == "Cancel"
    app.wait(lambda: panel.modelDownload._command is None, 120)
    assert ui.downloadStatusLabel.text == "Downloaded." and not ui.downloadModelWidget.visible
    assert any(entry.name == "lab-prior" and entry.is_own for entry in list_models())


def test_an_older_slicer_is_told_what_is_needed(app: Any, widget: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 5.12 there was no slicer.packaging."""
    monkeypatch.setitem(sys.modules, "slicer.packaging", None)
    widget.ui.slicerPythonRadioButton.click()
    widget.setupPanel.update()
    assert "needs 3D Slicer 5.12 or newer" in widget.logic.workerPython.problem()
    assert not widget.ui.runButton.enabled and not widget.ui.installExtrasButton.enabled
