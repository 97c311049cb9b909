"""The panel with the shipped weights: real MRML, a real worker process, the real network, a crop of the sample CT."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from Testing.harness import scenes
from Testing.slicer.paint import paint_ball

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "Resources" / "SampleData" / "thorax_lidc0001.nrrd"
NODULE = (89, 147, 148)
"""Center (k, j, i) of the nodule in the sample CT."""

pytestmark = pytest.mark.slow


@pytest.fixture
def ct(app: Any, module: Any) -> Any:
    """60 x 64 x 64 voxels around the nodule of the sample CT."""
    import MedDiffFMGui  # noqa: F401  # the library can be imported from here on

    from MedDiffFMLib.imaging.io import read_volume

    sample = read_volume(SAMPLE)
    low = np.array([NODULE[0] - 30, NODULE[1] - 32, NODULE[2] - 32])
    shift = np.eye(4)
    shift[:3, 3] = low[::-1]
    voxels = sample.voxels[tuple(slice(n, n + size) for n, size in zip(low, (60, 64, 64), strict=True))]
    node = app.slicer.util.addVolumeFromArray(np.ascontiguousarray(voxels), sample.ijk_to_ras @ shift, "thorax")
    node.GetDisplayNode().SetAutoWindowLevel(False)
    node.GetDisplayNode().SetWindowLevel(1400, -500)
    return node


@pytest.fixture
def widget(app: Any, module: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module with this very Python as worker."""
    monkeypatch.setattr(app.slicer.packaging, "pip_check", lambda requirement: True)
    opened = app.open_widget(module)
    yield opened
    opened.cleanup()


def array(app: Any, node: Any) -> np.ndarray:
    return app.slicer.util.arrayFromVolume(node)


def composite(app: Any, view: str = "Red") -> Any:
    return app.slicer.app.layoutManager().sliceWidget(view).mrmlSliceCompositeNode()


def run(app: Any, widget: Any) -> Any:
    """Press the button and wait; gives the result's main node."""
    assert widget.ui.runButton.enabled, widget.ui.reasonLabel.text
    widget.ui.runButton.click()
    app.wait(lambda: not widget.logic.running, seconds=400)
    assert widget.ui.runStatusLabel.text.startswith("Done"), widget.ui.runStatusLabel.text
    return widget.compareView.run.main


def test_the_input_line_names_the_region_that_a_run_takes(app: Any, widget: Any) -> None:
    """On the sample CT; a later choice of another CT leaves nothing of it."""
    import MedDiffFMGui  # noqa: F401

    from MedDiffFMLib.imaging.io import read_volume
    from MedDiffFMLib.preprocessing.body_localization import localize_body

    sample = read_volume(SAMPLE)
    node = app.slicer.util.addVolumeFromArray(sample.voxels, sample.ijk_to_ras, "thorax")
    widget.ui.inputVolumeSelector.setCurrentNode(node)
    app.wait(lambda: widget.ui.inputFactsLabel.text.endswith(f"mm, probably {localize_body(sample).guessed}"))
    widget.ui.inputVolumeSelector.setCurrentNode(None)
    assert widget.ui.inputFactsLabel.text == ""


def test_fill_paint_look_paint_more_discard(app: Any, widget: Any, ct: Any) -> None:
    """The nodule goes, everything outside the mask stays to the last bit, the views come back."""
    ui, center = widget.ui, (30, 32, 32)
    before = array(app, ct).copy()
    app.slicer.util.setSliceViewerLayers(background=ct, foreground=None)
    ui.inputVolumeSelector.setCurrentNode(ct)
    widget.taskPanel.choose("inpaint")
    assert not ui.runButton.enabled and "Paint" in ui.reasonLabel.text
    inside = paint_ball(app, widget, center, 9.0)
    filled = run(app, widget)
    assert filled.GetName() == "thorax filled"
    after = array(app, filled)
    assert np.array_equal(after[~inside], before[~inside])
    assert after[inside].mean() < before[inside].mean() - 100  # lung in place of the nodule
    assert np.array_equal(array(app, ct), before)

    # Before and after
    assert composite(app).GetBackgroundVolumeID() == ct.GetID()
    assert composite(app).GetForegroundVolumeID() == filled.GetID()
    assert composite(app).GetForegroundOpacity() == 1
    ui.blinkButton.click()
    assert composite(app).GetForegroundOpacity() == 0
    ui.blendSlider.value = 0.25
    assert composite(app).GetForegroundOpacity() == 0.25

    # Paint more, run again: the same process, one result
    process = widget.logic._worker.processId
    more = paint_ball(app, widget, (30, 32, 40), 7.0)
    again = run(app, widget)
    assert widget.logic._worker.processId == process
    assert again.GetName() == "thorax filled"
    assert np.array_equal(array(app, again)[~more], before[~more])
    names = [node.GetName() for node in app.slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")]
    assert sorted(names) == ["thorax", "thorax filled"]

    ui.discardButton.click()
    names = [node.GetName() for node in app.slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")]
    assert names == ["thorax"]
    assert composite(app).GetBackgroundVolumeID() == ct.GetID() and not composite(app).GetForegroundVolumeID()
    assert not app.slicer.util.getNodesByClass("vtkMRMLTextNode")


def test_denoise_and_keep_it_with_the_scene(app: Any, widget: Any, ct: Any, tmp_path: Path) -> None:
    """Values of the panel, results and report survive saving and loading."""
    ui = widget.ui
    app.slicer.util.setSliceViewerLayers(background=ct, foreground=None)
    ui.inputVolumeSelector.setCurrentNode(ct)
    widget.taskPanel.choose("denoise")
    editors = widget.taskPanel._forms["denoise"].widgets._editors
    editors["strength"].widget.value = 1.3
    ui.seedSpinBox.value = 7
    denoised = run(app, widget)
    change = array(app, denoised).astype(float) - array(app, ct)
    assert 2 < change.std() < 60 and abs(change.mean()) < 10
    noise = app.slicer.util.getNode("thorax noise")
    display = noise.GetDisplayNode()
    widget.compareView._choices["noise"].click()
    assert composite(app).GetForegroundVolumeID() == noise.GetID()
    assert display.GetWindowLevelMin() == -display.GetWindowLevelMax() < 0
    ui.acceptButton.click()
    assert composite(app).GetBackgroundVolumeID() == denoised.GetID()
    report = app.slicer.util.getNode("thorax denoised report").GetText()
    assert '"strength": 1.3' in report and '"seed": 7' in report and "Research use only" in report

    expected = array(app, denoised).copy()
    scenes.save(tmp_path / "scene.mrb")
    app.slicer.mrmlScene.Clear(0)
    app.qt.processEvents()
    assert widget.taskPanel.task == "anomaly"
    scenes.load(tmp_path / "scene.mrb")
    widget.exit()
    widget.enter()
    assert widget.taskPanel.task == "denoise" and ui.seedSpinBox.value == 7
    assert ui.inputVolumeSelector.currentNode().GetName() == "thorax denoised"  # what was accepted is the input
    assert abs(editors["strength"].widget.value - 1.3) < 1e-6
    assert np.array_equal(array(app, app.slicer.util.getNode("thorax denoised")), expected)


def test_the_panel_stays_alive_and_cancel_leaves_nothing(app: Any, widget: Any, ct: Any, tmp_path: Path) -> None:
    """A timer in the event loop is never late by more than 100 ms from the click to the result, then to the cancel."""
    from PySide6 import QtCore

    ui = widget.ui
    ui.inputVolumeSelector.setCurrentNode(ct)
    widget.taskPanel.choose("inpaint")
    paint_ball(app, widget, (30, 32, 32), 9.0)
    late: list[float] = []
    last = [time.thread_time()]

    def tick() -> None:
        now = time.thread_time()  # work of this thread: other programs on the computer do not count
        late.append(now - last[0])
        last[0] = now

    gc.collect()
    gc.freeze()  # what a thousand tests before this one left in memory is not the panel's to look through
    timer = QtCore.QTimer()
    timer.timeout.connect(tick)
    timer.start(10)
    last[0] = time.thread_time()
    run(app, widget)
    ui.runButton.click()
    app.wait(lambda: widget.logic.running and ui.runProgressBar.value > 0 or not widget.logic.running, seconds=60)
    widget.logic.cancel()
    app.wait(lambda: not widget.logic.running, seconds=60)
    timer.stop()
    gc.unfreeze()
    assert len(late) > 20
    assert max(late) < 0.2, sorted(late)[-5:]
    assert len(app.slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")) == 2
