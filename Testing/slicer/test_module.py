"""The module's panel, used as a user would, with a worker process that computes no network."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from Testing.harness import pythonqt
from Testing.harness.geometries import GEOMETRIES

ROOT = Path(__file__).resolve().parents[2]
UI_FILE = ROOT / "MedDiffFM" / "Resources" / "UI" / "MedDiffFM.ui"


def volumes(app: Any) -> list[str]:
    nodes = app.slicer.mrmlScene.GetNodesByClass("vtkMRMLScalarVolumeNode")
    return [nodes.GetItemAsObject(index).GetName() for index in range(nodes.GetNumberOfItems())]


def alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


def run_to_end(app: Any, widget: Any) -> None:
    widget.taskPanel.choose("denoise")
    widget.ui.runButton.click()
    app.wait(lambda: not widget.logic.running)


def behaving(how: str) -> Any:
    """Settings that tell the fake worker what to do."""
    from MedDiffFMGui.runs.runRequest import runChoices

    return runChoices("denoise", parameters={"behave": how})


# ------------------------------------------------------------------------------------------------------------ the panel


def test_ui_file_names_only_what_slicer_has(app: Any) -> None:
    assert app.widgets.ui_problems(UI_FILE) == []


def test_every_parameter_of_the_ui_file_is_a_field(module: Any) -> None:
    named = set(re.findall(r'"SlicerParameterName" stdset="0">\s*<string>(\w+)<', UI_FILE.read_text()))
    source = (ROOT / "MedDiffFM" / "MedDiffFMGui" / "nodes" / "parameterNode.py").read_text()
    fields = re.findall(r"(?m)^    (\w+): ", source[source.index("class MedDiffFMParameterNode") :].split("\n\n\n")[0])
    without_widget = {"mask", "task", "parameters", "model"}
    assert named == set(fields) - without_widget != set()


def test_every_control_has_a_tooltip() -> None:
    blocks = re.findall(r'<widget class="(\w+)" name="(\w+)">(.*?)(?=<widget|</ui>)', UI_FILE.read_text(), re.S)
    controls = ("qMRMLNodeComboBox", "QComboBox", "QRadioButton", "ctkPathLineEdit", "QPlainTextEdit", "QProgressBar",
                "QSpinBox", "QPushButton", "ctkSliderWidget")  # fmt: skip
    assert [name for kind, name, body in blocks if kind in controls and "toolTip" not in body] == []


def test_button_explains_itself(app: Any, widget: Any) -> None:
    button = widget.ui.runButton
    assert not button.enabled
    assert button.toolTip == widget.ui.reasonLabel.text == "Choose a CT volume first."
    empty = app.slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    widget.ui.inputVolumeSelector.setCurrentNode(empty)
    assert not button.enabled and "no voxels" in button.toolTip


def test_choosing_a_ct_enables_the_button_and_describes_it(widget: Any, ct: Any) -> None:
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    assert widget.logic.getParameterNode().inputVolume is ct
    assert widget.ui.runButton.enabled
    assert "28 x 24 x 20" in widget.ui.inputFactsLabel.text


def test_missing_packages_are_named_and_installed_only_on_a_click(
    app: Any, module: Any, ct: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed: list[list[str]] = []
    packaging = app.slicer.packaging
    monkeypatch.setattr(packaging, "pip_check", lambda requirement: requirement.name not in ("monai", "einops"))
    monkeypatch.setattr(packaging, "pip_ensure", lambda what, requester: installed.append(what))
    widget = app.open_widget(module)
    try:
        widget.ui.inputVolumeSelector.setCurrentNode(ct)
        assert not widget.ui.runButton.enabled
        assert "monai" in widget.ui.runButton.toolTip and "einops" in widget.ui.setupStatusLabel.text
        assert not widget.ui.setupCollapsibleButton.collapsed
        assert installed == []
        widget.ui.installButton.click()
        assert installed == [["monai>=1.5", "einops>=0.8"]]
        monkeypatch.setattr(packaging, "pip_check", lambda requirement: True)
        widget.onWorkerPythonChanged()
        assert widget.ui.runButton.enabled and not widget.ui.installButton.enabled
    finally:
        widget.cleanup()


def test_torch_is_left_to_its_extension(app: Any, module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the PyTorch extension nothing is installed and the message names it."""
    from MedDiffFMGui.worker import installer

    from MedDiffFMLib.core.errors import MedDiffFMError

    installed: list[Any] = []
    monkeypatch.setattr(app.slicer.packaging, "pip_check", lambda requirement: False)
    monkeypatch.setattr(app.slicer.packaging, "pip_ensure", lambda *arguments, **_: installed.append(arguments))
    with pytest.raises(MedDiffFMError, match="PyTorch extension"):
        installer.install()
    assert installed == []


def test_all_connections_exist_in_slicer(widget: Any) -> None:
    assert pythonqt.refused_connections == []


@pytest.mark.slow
def test_opening_the_module_imports_no_network(widget: Any) -> None:
    """Asked in a fresh process, because other tests of this one may have imported torch."""
    import subprocess

    code = (
        "import sys, pathlib, tempfile; sys.path.insert(0, '.')\n"
        "from Testing.harness import application\n"
        "app = application.start(pathlib.Path(tempfile.mkdtemp()))\n"
        "widget = app.open_widget(app.load_module())\n"
        "print([name for name in ('torch', 'monai', 'scipy', 'nrrd', 'nibabel', 'pydicom') if name in sys.modules])\n"
        "widget.cleanup()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr


# --------------------------------------------------------------------------------------------------------------- a run


@pytest.mark.slow
@pytest.mark.parametrize("ct", GEOMETRIES, indirect=True)
def test_run_adds_a_result_on_the_same_grid(app: Any, widget: Any, ct: Any) -> None:
    from MedDiffFMGui.nodes.volumeNodes import volumeFromNode

    before = app.slicer.util.arrayFromVolume(ct).copy()
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    run_to_end(app, widget)

    result = app.slicer.util.getNode("thorax denoised")
    assert np.array_equal(app.slicer.util.arrayFromVolume(result), before * 0.5)
    assert np.array_equal(volumeFromNode(result).ijk_to_ras, volumeFromNode(ct).ijk_to_ras)
    assert np.array_equal(app.slicer.util.arrayFromVolume(ct), before)
    assert result.GetDisplayNode().GetWindow() == 350
    assert "thorax noise" in volumes(app)
    assert widget.ui.runStatusLabel.text == "Done: thorax denoised."
    assert widget.ui.runButton.text == "Denoise" and widget.ui.runButton.enabled


@pytest.mark.slow
def test_progress_and_second_run_with_the_same_process(app: Any, widget: Any, ct: Any) -> None:
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    widget.ui.runButton.click()
    assert widget.ui.runButton.text == "Cancel" and widget.ui.runButton.enabled
    assert not widget.ui.deviceComboBox.enabled
    app.wait(lambda: widget.ui.runProgressBar.value > 200)
    assert "reconstructing" in widget.ui.runStatusLabel.text and "left" in widget.ui.runStatusLabel.text
    app.wait(lambda: not widget.logic.running)
    first = widget.logic._worker.processId
    run_to_end(app, widget)
    assert widget.logic._worker.processId == first
    assert volumes(app).count("thorax denoised") == 1 and len(volumes(app)) == 5


@pytest.mark.slow
def test_cancel_leaves_the_scene_as_it_was(app: Any, widget: Any, ct: Any) -> None:
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    widget.ui.runButton.click()
    app.wait(lambda: widget.ui.runProgressBar.value > 0)
    widget.ui.runButton.click()
    app.wait(lambda: not widget.logic.running)
    assert volumes(app) == ["thorax"]
    assert widget.ui.runStatusLabel.text == "Cancelled."
    run_to_end(app, widget)
    assert "thorax denoised" in volumes(app)


@pytest.mark.slow
def test_cancel_while_the_process_is_starting(app: Any, widget: Any, ct: Any) -> None:
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    widget.ui.runButton.click()
    widget.ui.runButton.click()
    app.wait(lambda: not widget.logic.running)
    assert volumes(app) == ["thorax"]
    run_to_end(app, widget)
    assert "thorax denoised" in volumes(app)


@pytest.mark.slow
def test_a_worker_that_does_not_listen_is_ended_by_a_second_press(app: Any, widget: Any, ct: Any) -> None:
    widget.logic.start(behaving("deaf"), ct)
    app.wait(lambda: widget.ui.runStatusLabel.text.startswith("reconstructing"))
    process = widget.logic._worker.processId
    widget.ui.runButton.click()
    assert widget.ui.runButton.text == "Stop now"
    widget.ui.runButton.click()
    app.wait(lambda: not widget.logic.running)
    assert not alive(process)
    assert widget.ui.runStatusLabel.text == "Cancelled."


@pytest.mark.slow
@pytest.mark.parametrize("behave, words", [("crash", "crashed"), ("exit", "something is missing")])
def test_after_a_worker_that_died_the_next_run_works(
    app: Any, widget: Any, ct: Any, tmp_path: Path, behave: str, words: str
) -> None:
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    widget.logic.start(behaving(behave), ct)
    app.wait(lambda: not widget.logic.running)
    assert words in widget.ui.runStatusLabel.text
    assert not list(tmp_path.glob("meddifffm-*"))
    run_to_end(app, widget)
    assert "thorax denoised" in volumes(app)


def test_a_program_that_is_no_worker(app: Any, widget: Any, ct: Any, tmp_path: Path) -> None:
    program = tmp_path / "noworker"
    program.write_text("#!/bin/sh\necho hello\n")
    program.chmod(0o755)
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    widget.ui.pythonPathLineEdit.currentPath = str(program)
    run_to_end(app, widget)
    assert "does not speak the protocol" in widget.ui.runStatusLabel.text

    broken = tmp_path / "broken"
    broken.write_text("#!/no/such/interpreter\n")
    broken.chmod(0o755)
    widget.ui.pythonPathLineEdit.currentPath = str(broken)
    run_to_end(app, widget)
    assert "cannot be started" in widget.ui.runStatusLabel.text
    assert not list(tmp_path.glob("meddifffm-*"))


def test_a_path_that_is_no_program_disables_the_button(widget: Any, ct: Any, tmp_path: Path) -> None:
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    widget.ui.pythonPathLineEdit.currentPath = str(tmp_path)
    assert not widget.ui.runButton.enabled and "not a program" in widget.ui.runButton.toolTip


# ---------------------------------------------------------------------------------------- leaving, closing, quitting


@pytest.mark.slow
def test_run_goes_on_while_another_module_is_open(app: Any, widget: Any, ct: Any) -> None:
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    widget.ui.runButton.click()
    widget.exit()
    app.wait(lambda: not widget.logic.running)
    widget.enter()
    assert widget.ui.runStatusLabel.text == "Done: thorax denoised."


@pytest.mark.slow
def test_closing_the_scene_cancels_and_the_next_scene_works(app: Any, widget: Any, ct: Any) -> None:
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    widget.ui.runButton.click()
    app.wait(lambda: widget.ui.runProgressBar.value > 0)
    app.slicer.mrmlScene.Clear(0)
    app.wait(lambda: not widget.logic.running)
    assert volumes(app) == []
    assert not widget.ui.runButton.enabled
    node = app.slicer.util.addVolumeFromArray(np.linspace(-1000, 200, 4096).reshape(16, 16, 16), name="next")
    widget.ui.inputVolumeSelector.setCurrentNode(node)
    run_to_end(app, widget)
    assert "next denoised" in volumes(app)


@pytest.mark.slow
def test_removed_input_is_said(app: Any, widget: Any, ct: Any) -> None:
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    widget.ui.runButton.click()
    app.slicer.mrmlScene.RemoveNode(ct)
    app.wait(lambda: not widget.logic.running)
    assert "removed during the run" in widget.ui.runStatusLabel.text
    assert volumes(app) == []


@pytest.mark.slow
def test_quitting_leaves_no_process_and_no_folder(app: Any, widget: Any, ct: Any, tmp_path: Path) -> None:
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    widget.ui.runButton.click()
    app.wait(lambda: widget.ui.runProgressBar.value > 0)
    process = widget.logic._worker.processId
    assert alive(process) and list(tmp_path.glob("meddifffm-*"))
    app.slicer.app.events.aboutToQuit.emit()
    assert not alive(process)
    assert not list(tmp_path.glob("meddifffm-*"))


def test_module_self_test_passes(module: Any) -> None:
    module.MedDiffFMTest().runTest()
